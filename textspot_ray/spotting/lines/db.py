"""From a detector's probability map to rectangles: DB post-processing.

Liao et al., "Real-time Scene Text Detection with Differentiable Binarization" (AAAI 2020). The map
marks shrunken lines; a line's rectangle is the minimum one around its region, grown by
area x ratio / perimeter. For a rectangle that is what polygon clipping with round corners and a
second minimum rectangle give.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_MIN_SIDE = 3.0  # map pixels, before growing: smaller ones are noise
_MIN_GROWN_SIDE = 5.0


@dataclass(frozen=True, slots=True)
class DbRules:
    """How lines are extracted from a probability map.

    Attributes:
        binarize_threshold: Pixels above it belong to a region.
        score_threshold: Regions whose mean probability is at or below it are dropped.
        unclip_ratio: How far a region's rectangle is grown.
        dilate: Whether regions are widened by a pixel first, which joins broken letters.
        max_lines: Regions looked at, the largest first.
    """

    binarize_threshold: float = 0.3
    score_threshold: float = 0.5
    unclip_ratio: float = 1.6
    dilate: bool = True
    max_lines: int = 3000


@dataclass(frozen=True, slots=True)
class FoundLines:
    """Rectangles of a map.

    Attributes:
        corners: N x 4 x 2, float32, map pixels, in order around each rectangle.
        scores: N, float64, mean probabilities.
        saturated: Whether `DbRules.max_lines` was reached.
        probability: The map itself, if a caller needs it.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float64]
    saturated: bool
    probability: NDArray[np.float32] | None = None


def find_lines(probability: NDArray[np.float32], rules: DbRules) -> FoundLines:
    """Find the lines of a probability map.

    Args:
        probability: H x W, float32, 0 to 1.
        rules: Thresholds.
    """
    regions = (probability > rules.binarize_threshold).astype(np.uint8)
    if rules.dilate:
        regions = cv2.dilate(regions, np.ones((2, 2), np.uint8))
    contours, tree = cv2.findContours(regions, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer = [c for c, (_, _, _, parent) in zip(contours, _rows(tree), strict=True) if parent < 0]
    saturated = len(outer) > rules.max_lines
    if saturated:
        outer = sorted(outer, key=cv2.contourArea, reverse=True)[: rules.max_lines]
    corners: list[NDArray[np.float32]] = []
    scores: list[float] = []
    for contour in outer:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < _MIN_SIDE:
            continue
        score = _mean_inside(probability, cv2.boxPoints((centre, (width, height), angle)))
        if not score > rules.score_threshold:  # also drops NaN
            continue
        grow = width * height * rules.unclip_ratio / (width + height)  # both sides: 2 x distance
        if min(width, height) + grow < _MIN_GROWN_SIDE:
            continue
        corners.append(cv2.boxPoints((centre, (width + grow, height + grow), angle)))
        scores.append(score)
    return FoundLines(
        np.array(corners, np.float32).reshape(-1, 4, 2), np.array(scores, np.float64), saturated
    )


def _rows(tree: NDArray[np.int32] | None) -> list[list[int]]:
    rows: list[list[int]] = [] if tree is None else tree[0].tolist()
    return rows


def _mean_inside(probability: NDArray[np.float32], corners: NDArray[np.float32]) -> float:
    """Mean of the map inside a rectangle."""
    rows, columns = probability.shape
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0, (columns - 1, rows - 1))
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(0, (columns - 1, rows - 1))
    inside = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    cv2.fillPoly(inside, [(corners - (x0, y0)).astype(np.int32)], (1,))
    return float(cv2.mean(probability[y0 : y1 + 1, x0 : x1 + 1], inside)[0])
