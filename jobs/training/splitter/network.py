# mypy: disable-error-code="misc"
"""Gaps between words within a detector's rectangle, and the rectangle's parts.

A one-stage detector regresses both ends of a word from every pixel. Where two words stand close
together its pixels disagree on which of them they mean, and the vote settles on one rectangle
around both: on the validation photos every seventh word that was not found was lost in this way.
This network sees each rectangle laid upright, and what the detector's maps say along it, and tells
for each of its columns whether it lies outside words. It runs inside the detector's graph. Parts
leave the graph beside the whole, each refined; whichever is read more surely is kept
(`textspot_ray.spotting.parts`), since letters far apart look like words too.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.training.detector.network import DISTANCE_UNIT_PX, STRIDE_PX
from jobs.training.loop.checkpoints import as_tensors, fill, load_arrays, save_arrays
from jobs.training.refiner.rectification import PatchShape, side_lengths

SPLITTER_PATCH = PatchShape(height=32, width=192, margin_x=0.5, margin_y=0.2, max_margin=0.25)
COLUMNS = 48
MAP_ROWS = (0.25, 0.5, 0.75)  # where the detector's maps are sampled, shares of the height
MAP_PLANES = 4  # of each: score, left end, right end, height
DILATIONS = (1, 2, 4, 1)
GAP_THRESHOLD = 0.5  # columns above it are outside words
LEAST_PART = 0.25  # parts narrower than this, in heights, are dropped


def _conv(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    dilation: int = 1,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, (1, dilation), bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Splitter(nn.Module):
    """Patches of rectangles to a logit for each of 48 columns (8 MMAC a rectangle)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _conv(3, 16, stride=(2, 2)),
            _conv(16, 32, stride=(2, 2)),
            _conv(32, 48, stride=(2, 1)),
            _conv(48, 64, (4, 1), padding=(0, 0)),
        )
        self.maps = nn.Conv2d(MAP_PLANES * len(MAP_ROWS), 64, (1, 3), padding=(0, 1))
        self.context = nn.ModuleList(
            _conv(64, 64, (1, 3), padding=(0, d), dilation=d) for d in DILATIONS
        )
        self.gap = nn.Conv2d(64, 1, 1)

    def forward(self, pixels: Tensor, along: Tensor) -> Tensor:
        """Say where gaps are.

        Args:
            pixels: [K, 3, 32, 192] BGR, 0..255, of `SPLITTER_PATCH`.
            along: [K, 12, 48] of `maps_along`.

        Returns:
            [K, 48] logits.
        """
        pixels = pixels - pixels.mean((2, 3), keepdim=True)
        spread = pixels.square().mean((1, 2, 3), keepdim=True).add(4.0).sqrt()
        x = self.trunk(pixels / spread) + self.maps(along.unsqueeze(2))
        for block in self.context:
            x = x + block(x)
        return cast(Tensor, self.gap(x)).reshape(-1, COLUMNS)


def column_edges(widths: Tensor, heights: Tensor) -> Tensor:
    """Left edges of a patch's columns, and the last one's right edge, [K, 49], in the rectangle:
    0 its left end, 1 its right."""
    margin = (SPLITTER_PATCH.margin_x * heights / widths).clamp(max=SPLITTER_PATCH.max_margin)
    share = torch.arange(COLUMNS + 1, device=widths.device) / COLUMNS
    return share * (1 + 2 * margin.unsqueeze(1)) - margin.unsqueeze(1)


def maps_along(maps: Tensor, quads: Tensor) -> Tensor:
    """What a detector says along rectangles: of each word that a column is in, the two ends.

    Within a word the ends stay where they are from column to column; from one word to the next
    they move.

    Args:
        maps: [1, 7, h, w] raw maps of one image.
        quads: [K, 4, 2] rectangles in input pixels.

    Returns:
        [K, 12, 48]: for each of the rows the score (0..1), the left end and the right end (0 the
        rectangle's left end, 1 its right), and the natural logarithm of the height by the
        rectangle's.
    """
    width, height = side_lengths(quads)
    edges = column_edges(width, height)
    u = ((edges[:, 1:] + edges[:, :-1]) / 2).view(-1, 1, COLUMNS, 1)
    v = torch.tensor(MAP_ROWS, device=quads.device).view(1, -1, 1, 1)
    tl, tr, br, bl = (c.view(-1, 1, 1, 2) for c in quads.unbind(1))
    points = (tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v
    h, w = maps.shape[2], maps.shape[3]
    x = points[..., 0] * (2.0 / STRIDE_PX / w) - 1
    y = points[..., 1] * (2.0 / STRIDE_PX / h) - 1
    grid = torch.stack((x, y), 3).reshape(1, -1, COLUMNS, 2)
    found = F.grid_sample(maps[:, :5].float(), grid, mode="bilinear", align_corners=False)
    found = found.reshape(5, -1, len(MAP_ROWS), COLUMNS)
    sides = torch.exp(found[1:].clamp(-4, 4)) * DISTANCE_UNIT_PX
    across = width.view(-1, 1, 1)
    u = u.reshape(-1, 1, COLUMNS)
    told = [
        torch.sigmoid(found[0]),
        (u - sides[3] / across).clamp(-1, 2),
        (u + sides[1] / across).clamp(-1, 2),
        torch.log((sides[0] + sides[2]) / height.view(-1, 1, 1)),
    ]
    return torch.cat(told, 1)


def split(words: Tensor, gaps: Tensor) -> Tensor:
    """Part rectangles at the gaps.

    Args:
        words: [K, 6]: cx, cy, width, height, angle (radians), score.
        gaps: [K, 48] logits of `Splitter`.

    Returns:
        [N, 6]: the parts of all rectangles that have two or more, with the rectangle's score.
    """
    edges = column_edges(words[:, 2], words[:, 3])
    left, right = edges[:, :-1].clamp(0, 1), edges[:, 1:].clamp(0, 1)
    within = (torch.sigmoid(gaps) < GAP_THRESHOLD) & (right > left)
    before = torch.cat((torch.zeros_like(within[:, :1]), within[:, :-1]), 1)
    starts = within & ~before
    # a part ends where the next column begins that is no part of a word
    at = torch.arange(COLUMNS, device=words.device)
    later = ~within.unsqueeze(1) & (at.view(1, 1, -1) > at.view(1, -1, 1))
    ends = torch.where(later, left.unsqueeze(1), torch.ones_like(left).unsqueeze(1)).amin(2)
    least = (LEAST_PART * words[:, 3] / words[:, 2]).unsqueeze(1)
    starts = starts & (ends - left >= least)
    starts = starts & (starts.sum(1, keepdim=True) > 1)
    row, column = torch.nonzero(starts, as_tuple=True)
    low, high = left[row, column], ends[row, column]
    part = words.index_select(0, row)
    moved = ((low + high) / 2 - 0.5) * part[:, 2]
    return torch.stack(
        [
            part[:, 0] + moved * torch.cos(part[:, 4]),
            part[:, 1] + moved * torch.sin(part[:, 4]),
            part[:, 2] * (high - low),
            part[:, 3],
            part[:, 4],
            part[:, 5],
        ],
        1,
    )


def gap_loss(logits: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy of columns.

    Args:
        logits: [K, 48].
        wanted: [K, 48], 1 outside words.
        weight: [K, 48], 0 where it is not known.
    """
    loss = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum")
    return loss / weight.sum().clamp(min=1)


def settings() -> dict[str, float]:
    """What the weights depend on beside the network."""
    return SPLITTER_PATCH.settings() | {"columns": COLUMNS}


def save_splitter(splitter: nn.Module, path: Path) -> None:
    """Write weights as FP16 in an .npz (no pickle inside)."""
    save_arrays(path, splitter.state_dict(), settings())


def load_splitter(path: Path) -> Splitter:
    """Read what `save_splitter` wrote, in eval mode.

    Raises:
        UsageError: the file is missing, holds other weights, or some made with other settings.
    """
    splitter = Splitter()
    fill(splitter, as_tensors(load_arrays(path, settings(), "splitter")), path)
    splitter.eval()
    return splitter
