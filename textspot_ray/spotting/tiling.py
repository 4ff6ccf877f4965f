"""Large images in several passes: the whole image shrunk, and overlapping tiles less shrunk.

A pass is a window of the image that is resized to the model's input. An image that would be shrunk
by more than ``tile_over`` is also cut into windows shrunk by exactly that much; enormous ones get
levels in between, each four times coarser, so that words of every size are seen whole somewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from textspot_ray.records import Detection
from textspot_ray.spotting.geometry import Box, overlap

_LEVEL_FACTOR = 4.0
# a box that ends this close to an inner edge, in input pixels, is taken to be cut by it
_EDGE_PX = 3.0
_SAME_IOU = 0.5
_SAME_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Pass:
    """A window of the image, in its pixels, and how much it is shrunk.

    Attributes:
        x: Left edge.
        y: Top edge.
        width: Of the window.
        height: Of the window.
        shrink: Image pixels per input pixel along the tighter axis.
    """

    x: int
    y: int
    width: int
    height: int
    shrink: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A detection in image pixels and the pass that saw it; ``row`` finds its features again."""

    detection: Detection
    seen_in: Pass
    row: int


def plan_passes(
    width: int, height: int, input_width: int, input_height: int, over: float, share: float
) -> tuple[Pass, ...]:
    """The passes over an image, finest tiles first, the whole image last.

    Args:
        width: Of the image, pixels.
        height: Of the image, pixels.
        input_width: Of the model's input.
        input_height: Of the model's input.
        over: Tile when the image would be shrunk by more than this; infinity = never.
        share: Overlap of neighbouring tiles as a share of a tile's side.
    """
    shrink = max(width / input_width, height / input_height)
    whole = Pass(0, 0, width, height, shrink)
    passes: list[Pass] = []
    level = over
    while level < shrink:
        tile_width, tile_height = round(input_width * level), round(input_height * level)
        for y, h in _cuts(height, tile_height, share):
            for x, w in _cuts(width, tile_width, share):
                passes.append(Pass(x, y, w, h, level))
        level *= _LEVEL_FACTOR
    return (*passes, whole)


def merge(seen: Sequence[Seen], width: int, height: int) -> list[Seen]:
    """Keep each word once: from the finest pass that holds it whole.

    Boxes cut by an inner edge of their tile give way to any other box of the same place; where
    nothing else saw the word, its largest piece stays.

    Args:
        seen: Detections of all passes.
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        The kept ones from top to bottom, left to right.
    """
    ranked = sorted(
        seen,
        key=lambda s: (
            is_cut(s, width, height),
            s.seen_in.shrink if not is_cut(s, width, height) else -_area(s.detection.box),
            -s.detection.confidence,
            s.detection.box,
        ),
    )
    kept: list[Seen] = []
    for candidate in ranked:
        same_share = 0.1 if is_cut(candidate, width, height) else _SAME_SHARE
        for other in kept:
            iou, shared = overlap(candidate.detection.box, other.detection.box)
            if iou > _SAME_IOU or shared > same_share:
                break
        else:
            kept.append(candidate)
    return sorted(kept, key=lambda s: (s.detection.box[1], s.detection.box[0], s.detection.box))


def is_cut(seen: Seen, width: int, height: int) -> bool:
    """Whether the box ends at an edge of its pass that is not the image's own edge."""
    tile, (x0, y0, x1, y1) = seen.seen_in, seen.detection.box
    near = _EDGE_PX * tile.shrink
    return (
        (tile.x > 0 and x0 < tile.x + near)
        or (tile.y > 0 and y0 < tile.y + near)
        or (tile.x + tile.width < width and x1 > tile.x + tile.width - near)
        or (tile.y + tile.height < height and y1 > tile.y + tile.height - near)
    )


def _cuts(length: int, tile: int, share: float) -> list[tuple[int, int]]:
    """Starts and lengths of evenly spread windows that overlap by at least the share."""
    if length <= tile:
        return [(0, length)]
    n = math.ceil((length - tile) / (tile * (1 - share))) + 1
    return [(round(i * (length - tile) / (n - 1)), tile) for i in range(n)]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
