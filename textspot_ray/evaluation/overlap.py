"""Overlaps of boxes and of polygons, and one-to-one pairs of what overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textspot_ray.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class Overlap:
    """A word and a prediction that touch."""

    gt: int
    predicted: int
    iou: float
    share: float  # of the prediction's area


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


def polygon_overlaps(
    gt: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]]
) -> tuple[Overlap, ...]:
    """All polygons that touch, in order of (gt, predicted).

    Args:
        gt: Polygons as x0, y0, x1, y1, ...
        predicted: The same of the predictions.

    Raises:
        MissingExtraError: shapely is not installed.
    """
    gt_shapes = [_shape(polygon) for polygon in gt]
    shapes = [_shape(polygon) for polygon in predicted]
    found = []
    for g, gt_shape in enumerate(gt_shapes):
        for p, shape in enumerate(shapes):
            if not _boxes_touch(gt_shape.bounds, shape.bounds):
                continue
            common = float(gt_shape.intersection(shape).area)
            if common <= 0:
                continue
            union = float(gt_shape.area) + float(shape.area) - common
            found.append(Overlap(g, p, common / union, common / float(shape.area)))
    return tuple(found)


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


def _shape(polygon: Sequence[float]) -> Any:
    try:
        from shapely.geometry import Polygon
        from shapely.validation import make_valid
    except ImportError as exc:
        raise MissingExtraError("evaluation", "evaluate") from exc
    shape = Polygon(list(zip(polygon[0::2], polygon[1::2], strict=True)))
    return shape if shape.is_valid else make_valid(shape)  # bow ties, points in a line


def _boxes_touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    if len(a) < 4 or len(b) < 4:
        return False
    return bool(a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3])
