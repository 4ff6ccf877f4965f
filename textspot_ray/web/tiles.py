"""Tiles of large pictures."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

TILE_PX = 512


def top_level(width: int, height: int) -> int:
    """The level of full size; each lower level halves the sides, level 0 has one pixel."""
    return math.ceil(math.log2(max(width, height, 1)))


def cut_tile(
    image: NDArray[np.uint8], level: int, column: int, row: int
) -> NDArray[np.uint8] | None:
    """A tile of a picture, at most `TILE_PX` square, or None where there is none.

    Args:
        image: All its pixels, height by width by channels.
        level: Size of the whole: the sides are halved ``top_level - level`` times, rounded up.
        column: Of the tile, from the left.
        row: Of the tile, from the top.
    """
    height, width = image.shape[:2]
    if not 0 <= level <= top_level(width, height) or column < 0 or row < 0:
        return None
    shrink = 1 << (top_level(width, height) - level)
    level_width, level_height = -(-width // shrink), -(-height // shrink)
    x, y = column * TILE_PX, row * TILE_PX
    if x >= level_width or y >= level_height:
        return None
    size = (min(TILE_PX, level_width - x), min(TILE_PX, level_height - y))
    part = image[y * shrink : (y + size[1]) * shrink, x * shrink : (x + size[0]) * shrink]
    if shrink == 1:
        return part
    scaled: NDArray[np.uint8] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return scaled
