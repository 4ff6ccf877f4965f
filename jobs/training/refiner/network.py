# mypy: disable-error-code="misc"
"""A second look at each word: the detector's rectangle laid upright, its corners moved.

The detector's ends are off by a third of the height in one word of five, which costs more readings
than the reader's own faults. This small network sees each word at one size, with what surrounds it,
and says where the corners are (the second stage of Cai and Vasconcelos 2018, Cascade R-CNN, with
corners for boxes). It runs inside the detector's graph, before masks and features are cut.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.training.loop.checkpoints import as_tensors, fill, load_arrays, save_arrays
from jobs.training.refiner.rectification import PatchShape

# Wide enough that the true ends are seen where the rectangle lost a letter or two.
REFINER_PATCH = PatchShape(height=32, width=128, margin_x=1.0, margin_y=0.35, max_margin=0.8)
LOOKS = 2  # how often a word is looked at: what lay outside the first patch is in the second
STEP = 0.25  # of the rectangle's sides, an output of 1
LARGEST = 1.5  # outputs are cut here
BASE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Refiner(nn.Module):
    """Patches of words to corners, in the rectangle's own coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv(3, 24, 2),
            _conv(24, 48, 2),
            _conv(48, 64),
            _conv(64, 96, 2),
            _conv(96, 96),
        )
        self.cells = (REFINER_PATCH.height // 8) * (REFINER_PATCH.width // 8)
        self.hidden = nn.Linear(96 * self.cells, 192)
        self.corners = nn.Linear(192, 8)
        nn.init.normal_(self.corners.weight, std=1e-3)
        nn.init.zeros_(self.corners.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Say where the corners are.

        Args:
            pixels: [K, 3, 32, 128] BGR, 0..255, of `REFINER_PATCH`.

        Returns:
            [K, 4, 2]: along the rectangle's width (0 left, 1 right) and down its height, clockwise
            from the text's top left.
        """
        pixels = pixels - pixels.mean((2, 3), keepdim=True)
        spread = pixels.square().mean((1, 2, 3), keepdim=True).add(4.0).sqrt()
        x = self.trunk(pixels / spread).reshape(-1, 96 * self.cells)
        x = self.corners(F.relu(self.hidden(x)))
        moved = x.float().clamp(-LARGEST, LARGEST) * STEP
        return moved.reshape(-1, 4, 2) + torch.tensor(BASE, device=moved.device)


def place(quads: Tensor, at: Tensor) -> Tensor:
    """Points [K, 4, 2] in pixels of coordinates `at` [K, 4, 2] within quads [K, 4, 2]."""
    tl, tr, br, bl = (c.unsqueeze(1) for c in quads.unbind(1))
    u, v = at[:, :, 0:1], at[:, :, 1:2]
    return (tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v


def corner_loss(predicted: Tensor, wanted: Tensor, aspect: Tensor) -> Tensor:
    """Smooth L1 of the corners' distances, in heights of the word.

    Args:
        predicted: [K, 4, 2], see `Refiner.forward`.
        wanted: The same.
        aspect: [K] width over height of the rectangles.
    """
    unit = torch.stack((aspect, torch.ones_like(aspect)), 1).unsqueeze(1)
    return F.smooth_l1_loss(predicted * unit, wanted * unit, beta=0.08)


def settings() -> dict[str, float]:
    """What the weights depend on beside the network: the patch, the unit of outputs, the looks."""
    return REFINER_PATCH.settings() | {"looks": LOOKS, "step": STEP, "largest": LARGEST}


def save_refiner(refiner: nn.Module, path: Path) -> None:
    """Write weights as FP16 in an .npz (no pickle inside)."""
    save_arrays(path, refiner.state_dict(), settings())


def load_refiner(path: Path) -> Refiner:
    """Read what `save_refiner` wrote, in eval mode.

    Raises:
        UsageError: the file is missing, holds other weights, or some made with other settings.
    """
    refiner = Refiner()
    fill(refiner, as_tensors(load_arrays(path, settings(), "refiner")), path)
    refiner.eval()
    return refiner
