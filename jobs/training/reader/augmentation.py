# mypy: disable-error-code="misc"
"""Test-time augmentation of the reader: a word's patch, cut a little higher and a little lower.

Cut from the patch itself, whose margins show what lies around the word, so that the detector need
not send more. Boxes are often off across the line of text, and there the reader errs otherwise from
cut to cut. On the validation photos (801-900; `jobs.training.measure`, int8) word spotting is 66.1
without these two cuts and 68.3 with them, documents 91.3 and 91.4, each at the best thresholds for
photos. Cuts that are shifted along the line, turned by 3 degrees, or larger added nothing to them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.training.refiner.rectification import (
    MARGIN_X,
    MARGIN_Y,
    MAX_MARGIN_X,
    PATCH_HEIGHT,
    PATCH_PLANES,
    PATCH_WIDTH,
)

SHIFTS = (0.06, -0.06)  # down and up, shares of the word's height
SHORTER = 0.1  # taken off either end, share of the word's height
BETWEEN = (0.15, 0.8)  # confidences of words that gain by it
_LEAST_WIDTH = 0.3  # of its height, that a word keeps


class Augmentation(nn.Module):
    """Features of a word [1, 64, 28, 28] to those of its other cuts [2, 64, 28, 28]."""

    def forward(self, features: Tensor) -> Tensor:
        """Cut anew; beyond the patch its edge is repeated."""
        patch = features.reshape(1, PATCH_PLANES, PATCH_HEIGHT, PATCH_WIDTH)
        width = torch.pow(2.0, (patch[:, 3, 0, 0] - 96) / 32).view(1, 1, 1)  # in heights
        shorter = (width - 2 * SHORTER).clamp(min=_LEAST_WIDTH)
        across = _shown(shorter) / _shown(width)
        columns = torch.arange(PATCH_WIDTH) + 0.5
        rows = torch.arange(PATCH_HEIGHT) + 0.5
        x = (columns * (2 / PATCH_WIDTH) - 1).view(1, 1, -1) * across
        y = (rows * (2 / PATCH_HEIGHT) - 1).view(1, -1, 1)
        code = (torch.log2(shorter) * 32 + 96).clamp(0, 255).view(1, 1, 1, 1)
        upper = code.expand(1, 1, PATCH_HEIGHT // 2, PATCH_WIDTH)
        shape = torch.cat((upper, patch[:, 3:, PATCH_HEIGHT // 2 :]), 2)
        made = []
        for shift in SHIFTS:
            moved = y + 2 * shift / (1 + 2 * MARGIN_Y)
            size = (1, PATCH_HEIGHT, PATCH_WIDTH)
            grid = torch.stack((x.expand(size), moved.expand(size)), 3)
            pixels = F.grid_sample(
                patch[:, :3], grid, mode="bilinear", padding_mode="border", align_corners=False
            )
            made.append(torch.cat((pixels, shape), 1))
        return torch.cat(made).reshape(-1, 64, 28, 28)


def _shown(width: Tensor) -> Tensor:
    """How much a patch shows of a word so wide, margins included; both in heights."""
    return width * (1 + 2 * (MARGIN_X / width).clamp(max=MAX_MARGIN_X))
