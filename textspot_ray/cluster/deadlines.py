"""Deadlines of the stages: generous multiples of what a call has taken so far."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from textspot_ray.records import Stage

FACTOR: Final = 20.0  # times the median; see DESIGN.md, "Failure ladder"
_WINDOW: Final = 101
_REFRESH: Final = 16  # answers between two looks at the median


@dataclass(slots=True)
class _Record:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    fresh: int = 0
    median_s: float = 0.0


class Deadlines:
    """How long a call of each stage may take: max(``min_deadline_s``, 20 x median)."""

    def __init__(self, min_deadline_s: float) -> None:
        self._min_deadline_s = min_deadline_s
        self._records = {Stage.DETECT: _Record(), Stage.RECOGNISE: _Record()}

    def note(self, stage: Stage, seconds: float) -> None:
        """Add an answer's latency, from submission, so that queueing counts too."""
        record = self._records[stage]
        record.times.append(seconds)
        record.fresh += 1
        if record.fresh >= _REFRESH or len(record.times) < _REFRESH:
            record.fresh = 0
            record.median_s = statistics.median(record.times)

    def limit_s(self, stage: Stage) -> float:
        """Seconds after which a call counts as stalled."""
        return max(self._min_deadline_s, FACTOR * self._records[stage].median_s)
