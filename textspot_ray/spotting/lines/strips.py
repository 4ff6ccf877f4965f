"""Rectified lines: the recogniser's input, cut out of the image, and how it is transported.

A strip is 48 pixels high and as wide as its line at that scale. It is padded on the right to a
multiple of a bucket, so that the recogniser sees few shapes: with dynamic shapes in fine steps
OpenVINO's memory grows without bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

STRIP_HEIGHT = 48
MIN_STRIP = 96  # pixels: the smallest bucket
# Widths up to a limit are rounded up to a multiple: some 70 shapes in all.
BUCKETS = ((640, 32), (1280, 64), (6400, 128))
LONG_STRIP = 320  # pixels: what recognisers are trained on; only wider strips may be squeezed
MAX_STRIP = 6400  # pixels, some 250 characters; longer lines are squeezed to it
MAX_COLUMNS = 1_000_000  # of all strips of a page: 144 MB
PADDING = 128  # grey: zero after the recogniser's normalisation
_MARGIN = 3  # pixels around a line that interpolation may use
_WARP_LIMIT = 32_000  # OpenCV's warp addresses source pixels with 16 bits
_TALL = 2.0  # lines more than this times the strip's height are shrunk by area averaging


@dataclass(frozen=True, slots=True)
class LineStrips:
    """The strips of one page in one buffer, so that they travel without copies.

    Attributes:
        pixels: uint8, one strip after the other, each 48 x padded width x 3, BGR.
        widths: int32, N: each line's width in its strip, pixels.
    """

    pixels: NDArray[np.uint8]
    widths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.widths)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return int(self.pixels.nbytes)

    def strips(self) -> list[NDArray[np.uint8]]:
        """Views of the strips, each 1 x 48 x padded width x 3."""
        found, start = [], 0
        for width in self.widths.tolist():
            padded = padded_width(width)
            end = start + STRIP_HEIGHT * padded * 3
            found.append(self.pixels[start:end].reshape(1, STRIP_HEIGHT, padded, 3))
            start = end
        return found


def padded_width(width: int) -> int:
    """Width of a strip's bucket."""
    step = next(step for limit, step in BUCKETS if width <= limit)
    return max(MIN_STRIP, math.ceil(width / step) * step)


def columns_of(polygon: Sequence[float], long_scale: float = 1.0) -> int:
    """Padded width of the strip of a line with these corners; ``long_scale`` as `cut_strips`."""
    return padded_width(_strip_width(np.array(polygon, np.float64).reshape(4, 2), long_scale))


def no_strips() -> LineStrips:
    """Strips of a page without lines."""
    return LineStrips(np.zeros(0, np.uint8), np.zeros(0, np.int32))


def cut_strips(
    image: NDArray[np.uint8], quads: Sequence[NDArray[np.float64]], long_scale: float = 1.0
) -> LineStrips:
    """Rectify lines.

    Args:
        image: H x W x 3, uint8.
        quads: 4 x 2 corners each, pixels of the image, clockwise from where the text starts.
        long_scale: Width of strips beyond `LONG_STRIP`, as a share of what their height asks for.
    """
    widths = [_strip_width(quad, long_scale) for quad in quads]
    sizes = [STRIP_HEIGHT * padded_width(width) * 3 for width in widths]
    pixels = np.full(sum(sizes), PADDING, np.uint8)
    start = 0
    for quad, width, size in zip(quads, widths, sizes, strict=True):
        strip = pixels[start : start + size].reshape(STRIP_HEIGHT, -1, 3)
        strip[:, :width] = _upright(image, quad, width)
        start += size
    return LineStrips(pixels, np.array(widths, np.int32))


def _strip_width(quad: NDArray[np.float64], long_scale: float) -> int:
    width, height = _sides(quad)
    full = STRIP_HEIGHT * width / max(height, 1e-3)
    if full > LONG_STRIP:
        full = max(LONG_STRIP, full * long_scale)
    return min(MAX_STRIP, max(1, math.ceil(full)))


def _sides(quad: NDArray[np.float64]) -> tuple[float, float]:
    return math.dist(quad[0], quad[1]), math.dist(quad[0], quad[3])


def _upright(image: NDArray[np.uint8], quad: NDArray[np.float64], width: int) -> NDArray[np.uint8]:
    """The line's pixels, 48 x width."""
    tall = _sides(quad)[1] / STRIP_HEIGHT
    factor = max(1, math.floor(tall)) if tall > _TALL else 1
    size = (width * factor, STRIP_HEIGHT * factor)
    # from corner to corner of the pixels' squares, not of their centres
    roi, (x, y), shrink = _around(image, quad)
    source = np.array((quad[[0, 1, 3]] - (x, y)) * shrink - 0.5, np.float32)
    w, h = size[0] - 0.5, size[1] - 0.5
    target = np.array([[-0.5, -0.5], [w, -0.5], [-0.5, h]], np.float32)
    matrix = cv2.getAffineTransform(source, target)
    laid = cv2.warpAffine(roi, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if factor > 1:
        laid = cv2.resize(laid, (width, STRIP_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(laid, np.uint8)


def _around(
    image: NDArray[np.uint8], quad: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], tuple[int, int], NDArray[np.float64]]:
    """The image around a line, the origin of that window, and its scale."""
    rows, columns = image.shape[:2]
    x0, y0 = np.floor(quad.min(axis=0) - _MARGIN).astype(int).clip(0, (columns - 1, rows - 1))
    x1, y1 = np.ceil(quad.max(axis=0) + _MARGIN).astype(int).clip((x0 + 1, y0 + 1), (columns, rows))
    roi = image[y0:y1, x0:x1]
    shrink = np.ones(2)
    if max(roi.shape[:2]) > _WARP_LIMIT:
        size = (min(roi.shape[1], _WARP_LIMIT), min(roi.shape[0], _WARP_LIMIT))
        shrink = np.array((size[0] / roi.shape[1], size[1] / roi.shape[0]))
        roi = np.asarray(cv2.resize(roi, size, interpolation=cv2.INTER_AREA), np.uint8)
    return roi, (int(x0), int(y0)), shrink
