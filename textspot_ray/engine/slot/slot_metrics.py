"""Metrics of slots: where they run, what waits in them, their memory, times and retries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from textspot_ray.records import TIMED_STAGES

STAGES: Final = TIMED_STAGES
QUEUES: Final = ("read", "detect", "detecting", "recognise", "commit")
PARTS: Final = ("driver", "runner", "detector", "recogniser", "spotter")
RETRIES: Final = ("image", "shard", "storage")


@dataclass(frozen=True, slots=True)
class SlotMetrics:
    """One slot, as it reports with every step.

    Attributes:
        node: Name of the machine, and of the Ray node if there is one.
        stage_s: Seconds per stage, summed over the slot's images, by `STAGES`.
        waiting: Images (shards for ``commit``) by `QUEUES`: to be read, read and not begun, in the
            detector, waiting for the recogniser, being committed.
        memory_bytes: Unique memory of the slot's processes, by `PARTS`; of several of one kind,
            the largest.
        retries: What was done again, by `RETRIES`.
    """

    node: str = ""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterMetrics:
    """All slots of a run: sums; of memory, the largest process of each kind.

    Attributes:
        slots: Slots by node.
        stage_s, waiting, memory_bytes, retries: As in `SlotMetrics`; seconds and retries of slots
            that are gone are included.
    """

    slots: Mapping[str, int] = field(default_factory=dict)
    stage_s: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, float] = field(default_factory=dict)


class ClusterTally:
    """Adds up the metrics that slots report."""

    def __init__(self) -> None:
        self._slots: dict[int, SlotMetrics] = {}
        self._stage_s: dict[str, float] = {}  # of slots that are gone
        self._retries: dict[str, float] = {}

    def add(self, slot: int, metrics: SlotMetrics) -> None:
        """Take a slot's newest."""
        self._slots[slot] = metrics

    def forget(self, slot: int) -> None:
        """A slot is gone."""
        gone = self._slots.pop(slot, None)
        if gone is not None:
            self._stage_s = _sum([self._stage_s, gone.stage_s])
            self._retries = _sum([self._retries, gone.retries])

    def count_retries(self, what: str, n: int = 1) -> None:
        """Something is done again that no slot knows of."""
        self._retries = _sum([self._retries, {what: n}])

    def metrics(self, driver_bytes: int = 0) -> ClusterMetrics:
        """The sums now."""
        live = self._slots.values()
        memory: dict[str, int] = {"driver": driver_bytes} if driver_bytes else {}
        for metrics in live:
            for part, size in metrics.memory_bytes.items():
                memory[part] = max(size, memory.get(part, 0))
        return ClusterMetrics(
            slots=Counter(metrics.node for metrics in live),
            stage_s=_sum([self._stage_s, *(metrics.stage_s for metrics in live)]),
            waiting=_sum(metrics.waiting for metrics in live),
            memory_bytes=memory,
            retries=_sum([self._retries, *(metrics.retries for metrics in live)]),
        )


def _sum(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(int)
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return dict(total)
