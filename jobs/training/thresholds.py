"""Choice of thresholds: score every pair of a grid on photos kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textspot_ray.evaluation.ground_truth import Predicted
from textspot_ray.evaluation.matching import Figures, Measured, score
from textspot_ray.evaluation.rules import Rules

DETECTION_GRID = tuple(n / 100 for n in range(5, 100, 5))
TEXT_GRID = (0.0, *(n / 100 for n in range(5, 100, 5)))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Two thresholds and the figures they give."""

    detection_threshold: float
    text_threshold: float
    figures: Figures


def sweep(
    measured: Sequence[Measured],
    rules: Rules,
    detection: Sequence[float] = DETECTION_GRID,
    text: Sequence[float] = TEXT_GRID,
) -> list[OperatingPoint]:
    """Figures at each pair of thresholds; a prediction stays at >= both."""
    return [
        OperatingPoint(low, lowest, score(measured, rules, _Keeper(low, lowest)).figures)
        for low in detection
        for lowest in text
    ]


def best(points: Sequence[OperatingPoint]) -> OperatingPoint:
    """The point of the highest hmean; of equals the one with lower thresholds, which keeps more."""
    return max(
        points,
        key=lambda point: (
            point.figures.hmean,
            -point.detection_threshold - point.text_threshold,
        ),
    )


class _Keeper:
    def __init__(self, detection: float, text: float) -> None:
        self._detection = detection
        self._text = text

    def __call__(self, item: Predicted) -> bool:
        return item.detection_confidence >= self._detection and item.text_confidence >= self._text
