"""Words too large for a pass over the whole picture are looked at again in coarser passes.

A detector learns from words of a range of heights, and of wide ones that are much higher it finds a
part: the name of a shop without its last letters, read with high confidence. Shrunk to half they
are words like others, for a quarter of a pass. Where a coarser pass shows a large word, `merge`
takes it from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textspot_ray.spotting.geometry import long_side, short_side
from textspot_ray.spotting.tiling import Seen, TileWindow

if TYPE_CHECKING:
    from textspot_ray.spotting.family import WindowFindings

_STEP = 2.0
_MOST_STEPS = 2
# Of the height of large words, what a coarser pass keeps: walls of bricks look like text from afar.
_LEAST_SHARE = 0.75
# A large word has to be so many times as long as large words are high: short ones are found whole,
# and pictures that show only those are spared the pass.
_LEAST_LENGTH = 3.0


def look_from_afar(
    made: Sequence[tuple[TileWindow, WindowFindings]],
    width: int,
    height: int,
    look: Callable[[TileWindow], WindowFindings],
    shrink_above: float,
) -> list[tuple[TileWindow, WindowFindings]]:
    """Make coarser passes over a picture as long as they show large words.

    Args:
        made: Passes and what they found, one over the whole picture among them.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        look: Makes a pass.
        shrink_above: Words higher than this and three times as long are large, input px; 0 = never
            look again.

    Returns:
        The further passes and what they found.
    """
    further: list[tuple[TileWindow, WindowFindings]] = []
    wholes = [(w, f) for w, f in made if (w.width, w.height) == (width, height)]
    while shrink_above and wholes and len(further) < _MOST_STEPS:
        window, found = wholes[-1]
        high = shrink_above * window.shrink
        if not any(_is_large(detection.polygon, high) for detection in found.detections):
            break
        coarser = replace(window, shrink=window.shrink * _STEP)
        wholes = [(coarser, look(coarser))]
        further += wholes
    return further


def _is_large(polygon: tuple[float, ...], high: float) -> bool:
    return short_side(polygon) > high and long_side(polygon) > _LEAST_LENGTH * high


def regions_of(
    made: Sequence[tuple[TileWindow, WindowFindings]],
    width: int,
    height: int,
    shrink_above: float,
) -> list[Seen]:
    """All regions of passes, but those that are not nearly large in a pass for large words.

    Args:
        made: Passes and what they found.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        shrink_above: As of `look_from_afar`.
    """
    shrinks = [w.shrink for w, _ in made if (w.width, w.height) == (width, height)]
    usual = min(shrinks, default=math.inf)
    seen: list[Seen] = []
    first = 0
    for window, found in made:
        least = 0.0
        if window.shrink > usual and (window.width, window.height) == (width, height):
            least = _LEAST_SHARE * shrink_above * window.shrink / _STEP
        seen += [
            Seen(detection, window, first + i)
            for i, detection in enumerate(found.detections)
            if short_side(detection.polygon) >= least
        ]
        first += len(found.detections)
    return seen
