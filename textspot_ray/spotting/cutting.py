"""Passes with too many words are cut into smaller windows, until none has too many.

A detector outputs a limited number of rows, and many words of a dense page are too small to read.
A pass that reaches the limit, or that has many words lower than the bundle's ``zoom_below``, is cut
in two along each side that is long enough; its parts are enlarged, and cut again if necessary.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textspot_ray.spotting.tiling import TileWindow

if TYPE_CHECKING:
    from textspot_ray.spotting.family import WindowFindings

MAX_DEPTH = 3  # nested cuts of a planned pass
MAX_PARTS = 84  # further passes per page: 4 + 16 + 64
# Image pixels per input pixel: parts are not enlarged more than this.
LEAST_SHRINK = 0.15
# Fewer small words than this are a caption or two, not a page.
MANY_WORDS = 30
CUTTING = f"cut by saturation, depth {MAX_DEPTH}, {MAX_PARTS} parts"  # for fingerprints


def look_closer(
    passes: Sequence[TileWindow],
    look: Callable[[TileWindow], WindowFindings],
    shrink_of: Callable[[int, int], float],
    overlap: float,
    zoom_below: float = 0.0,
    left: int = MAX_PARTS,
) -> tuple[list[tuple[TileWindow, WindowFindings]], bool]:
    """Run passes, and further ones inside those that have too many words.

    Args:
        passes: The planned ones.
        look: Runs a pass.
        shrink_of: Image pixels per input pixel of a window of that width and height.
        overlap: Of neighbouring parts, as a share of their side.
        zoom_below: A pass with many words is cut if their median height is below this, input px;
            0 = never.
        left: Maximal number of further passes.

    Returns:
        Every pass and its findings, in the order they were run, and whether one that reached the
        limit could not be cut any more.
    """
    waiting = deque((window, 0) for window in passes)
    made: list[tuple[TileWindow, WindowFindings]] = []
    lost = False
    while waiting:
        window, depth = waiting.popleft()
        found = look(window)
        made.append((window, found))
        crowded = found.saturated or _low_words(found, window, zoom_below)
        parts = cut(window, shrink_of, overlap) if crowded and depth < MAX_DEPTH else ()
        if parts and len(parts) <= left:
            left -= len(parts)
            waiting.extend((part, depth + 1) for part in parts)
        elif found.saturated:
            lost = True
    return made, lost


def cut(
    window: TileWindow, shrink_of: Callable[[int, int], float], overlap: float
) -> tuple[TileWindow, ...]:
    """Cut a window into overlapping parts: four, or two where it is a strip.

    Returns:
        The parts; none if they would be enlarged too much, or not enlarged at all.
    """
    across, down = 2, 2
    if window.width > 2 * window.height:
        down = 1
    elif window.height > 2 * window.width:
        across = 1
    width, height = _part(window.width, across, overlap), _part(window.height, down, overlap)
    shrink = shrink_of(width, height)
    if shrink < LEAST_SHRINK or shrink > 0.95 * window.shrink:
        return ()
    lefts = (0, window.width - width)[:across]
    tops = (0, window.height - height)[:down]
    return tuple(
        TileWindow(window.x + left, window.y + top, width, height, shrink)
        for top in tops
        for left in lefts
    )


def _part(length: int, parts: int, overlap: float) -> int:
    """Length of each of two windows that overlap by a share of it; of one window, the whole."""
    return length if parts == 1 else min(length, math.ceil(length / (2 - overlap)))


def _low_words(found: WindowFindings, window: TileWindow, below: float) -> bool:
    if not below or len(found.detections) < MANY_WORDS:
        return False
    heights = [min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in (word.box for word in found.detections)]
    return statistics.median(heights) < below * window.shrink
