"""Metrics of a slot: where it runs, what waits in it, its memory, times and retries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

QUEUES: Final = ("read", "detect", "detecting", "recognise", "commit")
PARTS: Final = ("driver", "runner", "detector", "recogniser", "spotter")
RETRIES: Final = ("image", "shard", "storage")


@dataclass(frozen=True, slots=True)
class SlotMetrics:
    """One slot, as it reports with every step.

    Attributes:
        node: Name of the machine, and of the Ray node if there is one.
        stage_s: Seconds per stage, summed over the slot's images, by `records.TIMED_STAGES`.
        waiting: Images (shards for ``commit``) by `QUEUES`: to be read, read and not begun, in the
            detector, waiting for the recogniser, being committed.
        memory_bytes: Unique memory of the slot's processes, by `PARTS`; of several of one kind,
            the largest.
        retries: What was repeated, by `RETRIES`.
    """

    node: str = ""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
