# mypy: disable-error-code="misc"
"""Rectification: a word's oriented quad laid upright into a patch of pixels of one size.

The contract's ``text_features`` are *pixels* here: 4 planes of 56 rows and 224 columns (B, G, R and
a plane that tells the quad's shape); 4*56*224 = 64*28*28, so the tensor of the contract is a plain
row-major view. Sampling pixels and not features keeps the reader free of the detector's weights,
needs no gradient through the sampler, and shows the first convolution upright letters of one size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_HEIGHT = 56
PATCH_WIDTH = 224
PATCH_PLANES = 4

# The quad grows by these shares of its height before it is sampled, so that a box that is a little
# tight or shifted still shows whole letters.
MARGIN_Y = 0.12
MARGIN_X = 0.20
MAX_MARGIN_X = 0.5  # share of the width
# Rows at most this many map pixels apart, else the next coarser level is sampled.
MAX_ROW_STEP = 1.5
LEVEL_STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class PatchShape:
    """How a word is laid into a patch of pixels.

    Attributes:
        height: rows.
        width: columns.
        margin_x: what is seen beyond either end, share of the word's height.
        margin_y: what is seen above and below, the same.
        max_margin: bound of the margin at the ends, share of the word's width.
    """

    height: int
    width: int
    margin_x: float
    margin_y: float
    max_margin: float

    def settings(self) -> dict[str, float]:
        """By name, to be stored beside weights trained on such patches."""
        return {f"patch_{name}": float(value) for name, value in asdict(self).items()}


READER_PATCH = PatchShape(PATCH_HEIGHT, PATCH_WIDTH, MARGIN_X, MARGIN_Y, MAX_MARGIN_X)


class Stem(nn.Module):
    """Packs an image and its averaged copies into one map that a single GridSample can read.

    No weights. Level 0 (the image itself) lies at the top; the copies at strides 2, 4 and 8 lie
    side by side below it: [B, 3, H, W] -> [B, 3, H + H/2, W] for H and W divisible by 8.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Build the packed pyramid.

        Args:
            image: [B, 3, H, W], BGR, 0..255; H and W divisible by 8.

        Returns:
            [B, 3, H + H/2, W], same range.
        """
        height, width = image.shape[2], image.shape[3]
        below = []
        level = image
        for _ in LEVEL_STRIDES[1:]:
            level = F.avg_pool2d(level, 2)
            below.append(F.pad(level, (0, 0, 0, height // 2 - level.shape[2])))
        strip = torch.cat(below, 3)
        strip = F.pad(strip, (0, width - strip.shape[3]))
        return torch.cat((image, strip), 2)


def sampling_grid(quads: Tensor, map_height: int, map_width: int) -> tuple[Tensor, Tensor]:
    """Where each of a word's 56 x 224 pixels lies in the packed pyramid.

    Args:
        quads: [K, 4, 2] corners (x, y) in input pixels, clockwise from the text's top left. Pixel
            centres lie at halves (the corner of the first pixel is 0, 0).
        map_height: height of the packed pyramid, 3/2 of the image's.
        map_width: its width, the image's.

    Returns:
        Points [K, 56, 224, 2] (x, y) in pyramid pixels (centres at halves), and shape codes [K, 2]:
        log2 of width / height and log2 of height / 16 px of the quad.
    """
    image_height = map_height * 2 // 3
    quads = quads.float()
    top_left, top_right, bottom_right, bottom_left = quads.unbind(1)
    width, height = side_lengths(quads)
    rows = (torch.arange(PATCH_HEIGHT, device=quads.device) + 0.5) / PATCH_HEIGHT
    cols = (torch.arange(PATCH_WIDTH, device=quads.device) + 0.5) / PATCH_WIDTH
    v = (rows * (1 + 2 * MARGIN_Y) - MARGIN_Y).view(1, -1, 1, 1)
    margin = (MARGIN_X * height / width).clamp(max=MAX_MARGIN_X).view(-1, 1, 1, 1)
    u = cols.view(1, 1, -1, 1) * (1 + 2 * margin) - margin

    def corner(c: Tensor) -> Tensor:
        return c.view(-1, 1, 1, 2)

    upper = corner(top_left) * (1 - u) + corner(top_right) * u
    lower = corner(bottom_left) * (1 - u) + corner(bottom_right) * u
    points = upper * (1 - v) + lower * v  # [K, 56, 224, 2]

    stride, left = pyramid_level(height, map_width, READER_PATCH)
    coarse = (stride > 1).float()
    stride, left, coarse = (t.view(-1, 1, 1) for t in (stride, left, coarse))
    x, y = points.unbind(3)
    # Stay half a level pixel inside: the edge is repeated, and neighbouring levels never mix.
    x = torch.minimum((x / stride).clamp(min=0.5), map_width / stride - 0.5) + left
    y = torch.minimum((y / stride).clamp(min=0.5), image_height / stride - 0.5)
    y = y + coarse * image_height
    return torch.stack((x, y), 3), shape_codes(width, height)


def side_lengths(quads: Tensor) -> tuple[Tensor, Tensor]:
    """Mean width and height [K] of quads [K, 4, 2], in pixels, at least 1."""
    top_left, top_right, bottom_right, bottom_left = quads.unbind(1)
    across = ((top_right - top_left) + (bottom_right - bottom_left)) / 2
    down = ((bottom_left - top_left) + (bottom_right - top_right)) / 2
    width = across.square().sum(1).sqrt().clamp(min=1.0)
    height = down.square().sum(1).sqrt().clamp(min=1.0)
    return width, height


def pyramid_level(height: Tensor, map_width: int, shape: PatchShape) -> tuple[Tensor, Tensor]:
    """Which level of the packed pyramid words are read from.

    Coarser ones for taller words: level n where a patch's rows would lie too far apart on n - 1.

    Args:
        height: [K] of the words, input pixels.
        map_width: of the packed pyramid.
        shape: of the patches.

    Returns:
        The level's stride [K], and where it begins from the left [K], in pyramid pixels.
    """
    step = height * ((1 + 2 * shape.margin_y) / shape.height / MAX_ROW_STEP)
    stride = torch.ones_like(height)
    left = torch.zeros_like(height)
    for i, n in enumerate(LEVEL_STRIDES[1:], 1):
        taller = (step > LEVEL_STRIDES[i - 1]).float()
        stride = stride + taller * (n - LEVEL_STRIDES[i - 1])
        if i > 1:
            left = left + taller * (map_width / LEVEL_STRIDES[i - 1])
    return stride, left


def shape_codes(width: Tensor, height: Tensor) -> Tensor:
    """What a patch says of its quad's shape: [K], [K] -> [K, 2], see :func:`sampling_grid`."""
    return torch.stack((torch.log2(width / height), torch.log2(height / 16)), 1)


def rectify(stem_map: Tensor, quads: Tensor, batch_index: Tensor) -> Tensor:
    """Lay words upright, left to right, into patches of 56 x 224 pixels.

    One bilinear GridSample (align_corners=False) for all words, which torch and OpenVINO compute
    alike. The quad's four corners are blended bilinearly (exact for parallelograms).

    Args:
        stem_map: [B, 3, 3H/2, W] packed pyramid of :class:`Stem`.
        quads: [K, 4, 2] corners in input pixels, clockwise from the text's top left.
        batch_index: [K] the image of each word.

    Returns:
        [K, 4, 56, 224]: B, G, R (0..255) and a plane that is constant within its upper half (code
        of width / height) and its lower half (code of height), mapped to about 0..255.
    """
    batch, planes, map_height, map_width = stem_map.shape
    points, codes = sampling_grid(quads, map_height, map_width)
    n = points.shape[0]
    x, y = points.unbind(3)
    if batch > 1:
        stem_map = stem_map.transpose(0, 1).reshape(1, planes, batch * map_height, map_width)
        y = y + batch_index.view(-1, 1, 1) * map_height
    grid = torch.stack((x * (2 / map_width) - 1, y * (2 / (batch * map_height)) - 1), 3)
    grid = grid.view(1, n * PATCH_HEIGHT, PATCH_WIDTH, 2)
    pixels = F.grid_sample(stem_map, grid, mode="bilinear", align_corners=False)
    pixels = pixels.view(planes, n, PATCH_HEIGHT, PATCH_WIDTH).transpose(0, 1)
    return torch.cat((pixels, shape_plane(codes)), 1)


def shape_plane(codes: Tensor) -> Tensor:
    """The fourth plane of a patch: [K, 2] shape codes -> [K, 1, 56, 224], about 0..255."""
    values = (codes * 32 + 96).clamp(0, 255).view(-1, 1, 2, 1, 1)
    n = codes.shape[0]
    values = values.expand(n, 1, 2, PATCH_HEIGHT // 2, PATCH_WIDTH)
    return values.reshape(n, 1, PATCH_HEIGHT, PATCH_WIDTH)


def text_features(stem_map: Tensor, quads: Tensor, batch_index: Tensor) -> Tensor:
    """:func:`rectify`, viewed as the contract's ``text_features`` [K, 64, 28, 28]."""
    return rectify(stem_map, quads, batch_index).reshape(-1, 64, 28, 28)
