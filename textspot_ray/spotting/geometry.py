"""Boxes and polygons: from a box and its mask to a polygon in the image, overlaps, pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Box = tuple[float, float, float, float]

# Sides of the window a mask is pasted into: the image's resolution within these bounds, that is
# half a mask cell or finer for small words and a tenth of a cell for large ones.
_WINDOW_MIN, _WINDOW_MAX = 60, 300
_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
# A word at least this much longer than high runs along its long side, whatever its angle.
_LONG = 1.3


def clip_box(box: NDArray[np.floating] | Box, width: int, height: int) -> Box:
    """Clip x_min, y_min, x_max, y_max to an image of that size in pixels."""
    x0, y0, x1, y1 = (float(v) for v in box)
    x0, x1 = sorted((min(max(x0, 0.0), width), min(max(x1, 0.0), width)))
    y0, y1 = sorted((min(max(y0, 0.0), height), min(max(y1, 0.0), height)))
    return x0, y0, x1, y1


def polygon_box(polygon: tuple[float, ...], width: int, height: int) -> Box | None:
    """The upright box around a polygon, clipped to the image; None where nothing is left.

    Args:
        polygon: x0, y0, x1, y1, ... in pixels.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
    """
    xs, ys = polygon[0::2], polygon[1::2]
    box = clip_box((min(xs), min(ys), max(xs), max(ys)), width, height)
    return box if box[0] < box[2] and box[1] < box[3] else None


def mask_polygon(mask: NDArray[np.float32], box: Box) -> tuple[float, ...]:
    """The word's rectangle: minimum-area rectangle of the mask's largest contour.

    The mask is pasted into the box's window alone, as the published demo pastes it into the image:
    a ring of zeros around it, the box grown by 30/28 about its centre, bilinear, cut at > 0.5. The
    window's resolution is bounded from below and above, which keeps small words exact and large
    ones cheap.

    Args:
        mask: 28 x 28 probabilities.
        box: x_min, y_min, x_max, y_max in pixels, before clipping.

    Returns:
        x0, y0, ... x3, y3, clockwise from the text's top left as far as that is known
        (see `order_corners`); the box's own corners where the mask is empty.
    """
    x0, y0, x1, y1 = box
    side = mask.shape[0]
    grow = (side + 2) / side
    width, height = max(x1 - x0, 1e-3) * grow, max(y1 - y0, 1e-3) * grow
    left, top = (x0 + x1) / 2 - width / 2, (y0 + y1) / 2 - height / 2
    columns, rows = (min(max(math.ceil(v), _WINDOW_MIN), _WINDOW_MAX) for v in (width, height))
    ringed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0.0)
    window = cv2.resize(ringed, (columns, rows), interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(
        (window > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return x0, y0, x1, y0, x1, y1, x0, y1
    # contour points name pixels; the word's edge runs around those pixels' squares
    hull = cv2.convexHull(max(contours, key=cv2.contourArea))
    points = (hull + _SQUARE).reshape(-1, 2) * (width / columns, height / rows) + (left, top)
    corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
    return order_corners(corners)


def order_corners(corners: NDArray[np.float32]) -> tuple[float, ...]:
    """Order a rectangle's corners clockwise, starting where its text most likely starts.

    An upright box and a mask do not give the reading direction. Long rectangles are taken to run
    along their long side, from left to right, or downwards when exactly vertical: angles in
    (-90, 90]. Nearly square ones are taken to be the least turned: angles in (-45, 45].

    Args:
        corners: 4 x 2, in order around the rectangle, either way.
    """
    # four corners: plain floats are several times faster than arrays
    quad = [(float(x), float(y)) for x, y in corners]
    edges = _edges(quad)
    if edges[0][0] * edges[1][1] - edges[0][1] * edges[1][0] < 0:  # y points down: now clockwise
        quad.reverse()
        edges = _edges(quad)
    lengths = [math.hypot(x, y) for x, y in edges[:2]]
    angles = [_half_open(math.degrees(math.atan2(y, x)), 1e-9) for x, y in edges]
    candidates: tuple[int, ...] = (0, 1, 2, 3)
    if max(lengths) >= _LONG * min(lengths):
        long = 0 if lengths[0] >= lengths[1] else 1
        candidates = (long, long + 2)
    start = min(candidates, key=lambda i: (round(abs(angles[i]), 6), -angles[i]))
    return tuple(v for corner in quad[start:] + quad[:start] for v in corner)


def _edges(quad: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [
        (bx - ax, by - ay) for (ax, ay), (bx, by) in zip(quad, quad[1:] + quad[:1], strict=True)
    ]


def _half_open(angle: float, slack: float = 0.0) -> float:
    """-180 degrees is 180; no negative zero."""
    return 180.0 if angle <= -180 + slack else angle + 0.0


def angle_deg(polygon: tuple[float, ...]) -> float:
    """Angle of the polygon's first edge, clockwise from the x axis as seen, in (-180, 180]."""
    x0, y0, x1, y1 = polygon[:4]
    return _half_open(math.degrees(math.atan2(y1 - y0, x1 - x0)))


def long_side(polygon: tuple[float, ...]) -> float:
    """The longer of a rectangle's sides, x0, y0, ... x3, y3, in pixels."""
    x0, y0, x1, y1, x2, y2 = polygon[:6]
    return max(math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x1, y2 - y1))


def short_side(polygon: tuple[float, ...]) -> float:
    """The shorter of a rectangle's sides, x0, y0, ... x3, y3: a word's height, or its width where
    it stands or has one narrow letter."""
    x0, y0, x1, y1, x2, y2 = polygon[:6]
    return min(math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x1, y2 - y1))


def box_ious(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every box of ``a`` with every box of ``b``.

    Args:
        a: N x 4, x_min, y_min, x_max, y_max.
        b: M x 4.

    Returns:
        N x M; 0 where both boxes have no area.
    """
    boxes_a = np.asarray(a, dtype=np.float64).reshape(-1, 1, 4)
    boxes_b = np.asarray(b, dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = np.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a = np.prod(boxes_a[..., 2:] - boxes_a[..., :2], axis=-1)
    area_b = np.prod(boxes_b[..., 2:] - boxes_b[..., :2], axis=-1)
    union = area_a + area_b - common
    ious: NDArray[np.float64] = np.zeros_like(common)
    np.divide(common, union, out=ious, where=union > 0)
    return ious


def one_to_one(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of pairs in order of preference those whose sides no earlier pair has used."""
    used_a: set[int] = set()
    used_b: set[int] = set()
    kept = []
    for n, m in pairs:
        if n not in used_a and m not in used_b:
            used_a.add(n)
            used_b.add(m)
            kept.append((n, m))
    return kept
