"""Large images in several passes: the whole image shrunk, and overlapping tiles less shrunk.

A pass is a window of the image that is resized to the model's input. An image that would be shrunk
by more than ``tile_over`` is also cut into windows shrunk by exactly that much; enormous ones get
levels in between, each four times coarser, so that words of every size are seen whole somewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.images.decode import Decoded
from textspot_ray.records import Detection
from textspot_ray.spotting.geometry import angle_deg, order_corners, short_side

_LEVEL_FACTOR = 4.0
# a box that ends this close to an inner edge, in input pixels, is taken to be cut by it
_EDGE_PX = 3.0
_SAME_IOU = 0.5
_SAME_SHARE = 0.7
_FILLED = 0.5  # smaller boxes that fill this share of a box are its words
_FULL_HEIGHT = 0.5  # letters of a word reach across this share of its height or more
_PIECE_SHARE = 0.3
_CHAIN_SHARE = 0.1
# pieces of one line: how far heights, directions (radians) and middle lines (heights) may differ
_LIKE_HEIGHT = 1.5
_LIKE_ANGLE = 0.1
_OFF_LINE = 0.4


@dataclass(frozen=True, slots=True)
class TileWindow:
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
    seen_in: TileWindow
    row: int


def plan_passes(
    width: int, height: int, input_width: int, input_height: int, over: float, share: float
) -> tuple[TileWindow, ...]:
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
    whole = TileWindow(0, 0, width, height, shrink)
    passes: list[TileWindow] = []
    level = over
    while level < shrink:
        passes += level_tiles(width, height, input_width, input_height, level, share)
        level *= _LEVEL_FACTOR
    return (*passes, whole)


def level_tiles(
    width: int, height: int, input_width: int, input_height: int, level: float, share: float
) -> tuple[TileWindow, ...]:
    """The tiles of one level, row by row; ``level`` is their shrink, the rest as `plan_passes`."""
    tile_width, tile_height = round(input_width * level), round(input_height * level)
    return tuple(
        TileWindow(x, y, w, h, level)
        for y, h in _cuts(height, tile_height, share)
        for x, w in _cuts(width, tile_width, share)
    )


def cut(decoded: Decoded, window: TileWindow) -> NDArray[np.uint8]:
    """The window's pixels out of an image that may have been decoded smaller."""
    rows, columns = decoded.image.shape[:2]
    x0, x1 = (round(v * columns / decoded.width) for v in (window.x, window.x + window.width))
    y0, y1 = (round(v * rows / decoded.height) for v in (window.y, window.y + window.height))
    return decoded.image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


def merge(
    seen: Sequence[Seen],
    width: int,
    height: int,
    *,
    joins: bool = False,
    large_above: float = math.inf,
) -> list[Seen]:
    """Keep each word once, from the pass that shows it best.

    Only detections of different passes are compared: within one pass the model has decided. In this
    order:

    1. The same place seen more than once: boxes clear of their tile's inner edges come first, then
       those that are not too large for their pass, then the finest pass (of those too large the
       coarsest), then the surest box. Boxes close to an inner edge may lack letters, so they also
       give way to a box that holds most of them.
    2. A box that holds smaller ones, of finer or equal passes: where several clear ones fill most
       of it they are its words, and it goes (those too large for their pass do not count: they
       may be parts of it); otherwise those as high as it are letters of it and go, and lower ones
       are words of their own.
    3. Boxes cut by an inner edge give way to whatever is left there. Of a word that no pass shows
       whole, the largest piece stays.

    Args:
        seen: Detections of all passes.
        width: Of the image, pixels.
        height: Of the image, pixels.
        joins: Whether pieces of one region may be joined if no pass shows it whole.
        large_above: Boxes higher than this, input px, are too large for their pass.

    Returns:
        The kept ones from top to bottom, left to right.
    """
    ranked = sorted(seen, key=lambda s: _rank(s, width, height, large_above))
    rivals = _Rivals(ranked)
    gaps = [_gap(s, width, height) for s in ranked]
    clear = {i for i, gap in enumerate(gaps) if gap >= _doubt_px(ranked[i])}
    large = {i for i, s in enumerate(ranked) if _is_large(s, large_above)}
    kept: set[int] = set()
    for i, gap in enumerate(gaps):
        if gap < _EDGE_PX:
            continue
        if not any(
            rivals.iou(i, j) > _SAME_IOU or (i not in clear and rivals.inside(i, j) > _SAME_SHARE)
            for j in rivals.of(i)
            if j in kept
        ):
            kept.add(i)
    _drop_nested(kept, clear - large, ranked, rivals)
    pieces = {
        i
        for i, gap in enumerate(gaps)
        if gap < _EDGE_PX
        and not any(rivals.inside(i, j) > _PIECE_SHARE for j in rivals.of(i) if j in kept)
    }
    chosen = [ranked[i] for i in kept]
    if joins:
        chosen += _joined_pieces(pieces, ranked, rivals)
    else:
        chosen += [ranked[i] for i in _largest_pieces(pieces, rivals)]
    return sorted(chosen, key=lambda s: (s.detection.box[1], s.detection.box[0], s.detection.box))


def _drop_nested(kept: set[int], clear: set[int], ranked: Sequence[Seen], rivals: _Rivals) -> None:
    """Rule 2 of `merge`, in place, from the largest box down; ``clear``: whole words."""
    for outer in sorted(kept, key=lambda i: (-rivals.area(i), i)):
        if outer not in kept:
            continue
        inner = [
            i
            for i in rivals.of(outer)
            if i in kept
            and rivals.area(i) < rivals.area(outer)
            and rivals.inside(i, outer) > _SAME_SHARE
        ]
        coarser = [i for i in inner if ranked[i].seen_in.shrink > ranked[outer].seen_in.shrink]
        finer = [i for i in inner if i not in coarser]
        kept.difference_update(coarser)
        words = [i for i in finer if i in clear]
        filled = sum(rivals.area(i) for i in words) / max(rivals.area(outer), 1e-9)
        if len(words) > 1 and filled >= _FILLED:
            kept.remove(outer)
        else:
            kept.difference_update(i for i in finer if rivals.height_in(i, outer) > _FULL_HEIGHT)


def _largest_pieces(pieces: set[int], rivals: _Rivals) -> set[int]:
    """One of each chain of pieces that overlap from tile to tile."""

    def linked(i: int, j: int) -> bool:
        return max(rivals.inside(i, j), rivals.inside(j, i)) > _CHAIN_SHARE

    return {
        min(chain, key=lambda i: (-rivals.area(i), i)) for chain in _chains(pieces, rivals, linked)
    }


def _joined_pieces(pieces: set[int], ranked: Sequence[Seen], rivals: _Rivals) -> list[Seen]:
    """One region of each chain of pieces that go on in each other along one line."""

    def linked(i: int, j: int) -> bool:
        return rivals.inside(i, j) > 0 and rivals.on_one_line(i, j)

    joined = []
    for chain in _chains(pieces, rivals, linked):
        first = ranked[min(chain)]
        if len(chain) > 1:
            first = replace(first, detection=_around([ranked[i].detection for i in sorted(chain)]))
        joined.append(first)
    return joined


def _chains(
    pieces: set[int], rivals: _Rivals, linked: Callable[[int, int], bool]
) -> list[list[int]]:
    """Connected components of linked pieces."""
    left, chains = set(pieces), []
    while left:
        chain: list[int] = []
        reach = [min(left)]
        left.discard(reach[0])
        while reach:
            i = reach.pop()
            chain.append(i)
            near = [j for j in rivals.of(i) if j in left and linked(i, j)]
            reach += near
            left.difference_update(near)
        chains.append(chain)
    return chains


def _around(detections: Sequence[Detection]) -> Detection:
    """The rectangle around pieces of one region, with their mean confidence."""
    points = np.concatenate([_quad(d) for d in detections])
    polygon = order_corners(cv2.boxPoints(cv2.minAreaRect(points)))
    boxes = np.array([d.box for d in detections])
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    return Detection(
        confidence=sum(d.confidence for d in detections) / len(detections),
        box=(float(x0), float(y0), float(x1), float(y1)),
        polygon=polygon,
        angle_deg=angle_deg(polygon),
    )


def _is_large(seen: Seen, above: float) -> bool:
    return short_side(seen.detection.polygon) > above * seen.seen_in.shrink


def _rank(seen: Seen, width: int, height: int, large_above: float) -> tuple[object, ...]:
    gap = _gap(seen, width, height)
    is_large = _is_large(seen, large_above)
    return (
        gap < _doubt_px(seen),
        is_large,
        -seen.seen_in.shrink if is_large else seen.seen_in.shrink,
        -seen.detection.confidence,
        seen.detection.box,
        seen.seen_in.y,
        seen.seen_in.x,
        seen.row,
    )


def _doubt_px(seen: Seen) -> float:
    """Distance to an edge, input pixels, below which a letter may be hidden: a letter's width."""
    x0, y0, x1, y1 = seen.detection.box
    short, long = sorted((x1 - x0, y1 - y0))
    return max(_EDGE_PX, min(long, 1.5 * short) / seen.seen_in.shrink)


def _gap(seen: Seen, width: int, height: int) -> float:
    """Distance in input pixels to the nearest edge of the pass that is not the image's own."""
    tile, (x0, y0, x1, y1) = seen.seen_in, seen.detection.box
    gaps = [math.inf]
    if tile.x > 0:
        gaps.append(x0 - tile.x)
    if tile.y > 0:
        gaps.append(y0 - tile.y)
    if tile.x + tile.width < width:
        gaps.append(tile.x + tile.width - x1)
    if tile.y + tile.height < height:
        gaps.append(tile.y + tile.height - y1)
    return min(gaps) / tile.shrink


class _Rivals:
    """Detections of other passes that overlap a detection, and how much, by their polygons."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._quads = [_quad(s.detection) for s in seen]
        self._areas = [float(cv2.contourArea(quad)) for quad in self._quads]
        self._boxes = np.array([s.detection.box for s in seen], np.float64).reshape(-1, 4)
        numbers: dict[TileWindow, int] = {}
        self._pass = np.array([numbers.setdefault(s.seen_in, len(numbers)) for s in seen])
        self._rivals: dict[int, list[int]] = {}
        self._shared: dict[tuple[int, int], float] = {}

    def of(self, i: int) -> list[int]:
        """Those of other passes whose boxes overlap box i; one row at a time, to save memory."""
        if i not in self._rivals:
            low, high = self._boxes[:, :2], self._boxes[:, 2:]
            meet = (low < self._boxes[i, 2:]).all(axis=1) & (high > self._boxes[i, :2]).all(axis=1)
            self._rivals[i] = np.flatnonzero(meet & (self._pass != self._pass[i])).tolist()
        return self._rivals[i]

    def area(self, i: int) -> float:
        """Square pixels."""
        return self._areas[i]

    def inside(self, i: int, j: int) -> float:
        """Share of i's area that lies in j."""
        return self._both(i, j) / max(self._areas[i], 1e-9)

    def height_in(self, i: int, j: int) -> float:
        """How much of j's height, across its long side, i spans."""
        sides = np.roll(self._quads[j], -1, axis=0) - self._quads[j]
        lengths = np.hypot(sides[:2, 0], sides[:2, 1])
        short = int(lengths.argmin())
        return float(np.ptp(self._quads[i] @ sides[short]) / max(lengths[short] ** 2, 1e-9))

    def on_one_line(self, i: int, j: int) -> bool:
        """Whether two long regions have about the same height and middle line."""
        edges = [self._quads[k][1] - self._quads[k][0] for k in (i, j)]
        across = [self._quads[k][3] - self._quads[k][0] for k in (i, j)]
        long = [float(np.hypot(*edge)) for edge in edges]
        high = [float(np.hypot(*edge)) for edge in across]
        if min(*long, *high) <= 0 or max(high) > _LIKE_HEIGHT * min(high):
            return False
        if float(edges[0] @ edges[1]) < math.cos(_LIKE_ANGLE) * long[0] * long[1]:
            return False
        offset = self._quads[i].mean(axis=0) - self._quads[j].mean(axis=0)
        along = edges[long.index(max(long))] / max(long)
        return abs(float(offset @ (-along[1], along[0]))) < _OFF_LINE * max(high)

    def iou(self, i: int, j: int) -> float:
        """Intersection over union."""
        both = self._both(i, j)
        return both / max(self._areas[i] + self._areas[j] - both, 1e-9)

    def _both(self, i: int, j: int) -> float:
        key = (i, j) if i < j else (j, i)
        if key not in self._shared:
            shared, _ = cv2.intersectConvexConvex(self._quads[key[0]], self._quads[key[1]])
            self._shared[key] = float(shared)
        return self._shared[key]


def _quad(detection: Detection) -> NDArray[np.float32]:
    """The polygon, or the box's corners where the polygon has no area."""
    quad = np.array(detection.polygon, np.float32).reshape(4, 2)
    if cv2.contourArea(quad) > 0:
        return quad
    x0, y0, x1, y1 = detection.box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def _cuts(length: int, tile: int, share: float) -> list[tuple[int, int]]:
    """Starts and lengths of evenly spread windows that overlap by at least the share."""
    if length <= tile:
        return [(0, length)]
    n = math.ceil((length - tile) / (tile * (1 - share))) + 1
    return [(round(i * (length - tile) / (n - 1)), tile) for i in range(n)]
