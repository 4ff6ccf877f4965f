"""Overlaps of polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textspot_ray.errors import MissingExtraError


@dataclass(frozen=True, slots=True)
class Overlap:
    """A word and a prediction that touch."""

    gt: int
    predicted: int
    iou: float
    share: float  # of the prediction's area


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
