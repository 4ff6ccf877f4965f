"""Deadlines of the stages: generous multiples of what a call has taken so far."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from textspot_ray.records import DetectedPage, Readings, Stage

FACTOR: Final = 20.0  # times the median; see DESIGN.md, "Failure ladder"
_WINDOW: Final = 101
_REFRESH: Final = 16  # answers between two looks at the median


@dataclass(slots=True)
class _Record:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    fresh: int = 0
    median_s: float = 0.0


class Deadlines:
    """How long a call may take: max(``min_deadline_s``, 20 x median x weight).

    A call's weight is what makes it longer than others by right: the passes of a tiled image, the
    words of a page. The median is of the time a unit of weight.
    """

    def __init__(self, min_deadline_s: float) -> None:
        self._min_deadline_s = min_deadline_s
        self._records = {Stage.DETECT: _Record(), Stage.RECOGNISE: _Record()}

    def note(self, stage: Stage, seconds: float, weight: float = 1.0) -> None:
        """Add an answer's latency, from submission, so that queueing counts too."""
        record = self._records[stage]
        record.times.append(seconds / max(weight, 1.0))
        record.fresh += 1
        if record.fresh >= _REFRESH or len(record.times) < _REFRESH:
            record.fresh = 0
            record.median_s = statistics.median(record.times)

    def limit_s(self, stage: Stage, weight: float = 1.0) -> float:
        """Seconds after which a call of that weight counts as stalled."""
        expected_s = self._records[stage].median_s * max(weight, 1.0)
        return max(self._min_deadline_s, FACTOR * expected_s)


def weight_of(answer: DetectedPage | Readings) -> float:
    """How much work an answer stands for: the detector's passes, or the words read."""
    if isinstance(answer, Readings):
        return len(answer.readings)
    return answer.info.tiles if answer.info is not None else 1.0
