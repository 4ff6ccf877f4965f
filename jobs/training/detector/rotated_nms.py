"""Greedy non-maximum suppression of turned rectangles, as OpenVINO's NMSRotated does it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def rotated_nms(
    rects: NDArray[np.floating], scores: NDArray[np.floating], iou: float, score: float, top: int
) -> NDArray[np.int64]:
    """Select rectangles, best first.

    Args:
        rects: [N, 5] cx, cy, width, height, angle (radians, clockwise on screen).
        scores: [N].
        iou: Rectangles overlapping a better one by more than this are dropped.
        score: Rectangles scoring no more than this are dropped.
        top: At most this many are kept.

    Returns:
        Indices of the kept ones.
    """
    order = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] > score]
    shapes = [
        ((float(r[0]), float(r[1])), (float(r[2]), float(r[3])), float(np.rad2deg(r[4])))
        for r in rects
    ]
    radius = np.hypot(rects[:, 2], rects[:, 3]) / 2
    area = rects[:, 2] * rects[:, 3]
    kept: list[int] = []
    for i in order:
        if len(kept) == top:
            break
        if kept:
            near = np.hypot(*(rects[kept, :2] - rects[i, :2]).T) < radius[kept] + radius[i]
            rivals = [k for k, close in zip(kept, near, strict=True) if close]
        else:
            rivals = []
        for k in rivals:
            kind, points = cv2.rotatedRectangleIntersection(shapes[i], shapes[k])
            if kind == cv2.INTERSECT_NONE or points is None:
                continue
            inter = float(cv2.contourArea(cv2.convexHull(points)))
            if inter > iou * (area[i] + area[k] - inter):
                break
        else:
            kept.append(i)
    return np.array(kept, np.int64)
