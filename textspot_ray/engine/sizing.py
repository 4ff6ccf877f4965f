"""How many slots, and how many cores each of their parts gets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from textspot_ray.config import EngineConfig

SLOT_CPUS: Final = 8.0  # few fat slots share a copy of the weights; see `slots_of_node`
RUNNER_CPUS: Final = 0.1  # reads, writes and waits
RECOGNIZER_SHARE: Final = 0.15  # of a slot: some 10 words per image, see the cost model
_MIN_SLOT_CPUS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Threads:
    """Inference threads of a slot's workers.

    Attributes:
        detector: Of one detector.
        recognizer: Of the recogniser, which gives each word one thread.
        streams: Inferences at a time in one detector.
    """

    detector: int
    recognizer: int
    streams: int

    @property
    def detect_calls(self) -> int:
        """Calls a detecting worker takes at once: one decodes while each stream infers."""
        return self.streams + 1


@dataclass(frozen=True, slots=True)
class SlotShape:
    """What one slot asks of its node, in Ray's CPUs, and the threads it runs."""

    cpus: float
    detectors: int
    threads: Threads

    @property
    def bundles(self) -> list[dict[str, float]]:
        """CPUs of the placement group's bundles: runner, detectors, recogniser."""
        recognizer = round(max(0.1, self.cpus * RECOGNIZER_SHARE), 2)
        runner = min(RUNNER_CPUS, self.cpus * 0.1)
        detector = round((self.cpus - recognizer - runner) / self.detectors - 0.005, 2)
        return [
            {"CPU": runner},
            *({"CPU": max(detector, 0.01)} for _ in range(self.detectors)),
            {"CPU": recognizer},
        ]


def available_cpus() -> float:
    """Cores this process may use: affinity, and the container's quota if there is one."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        cores = float(os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores
    return max(cores, _MIN_SLOT_CPUS)


def share_threads(cpus: float, engine: EngineConfig) -> Threads:
    """Threads of a slot with that many cores; the detector's come first.

    The detector does 85-90 % of the work, and the recogniser is idle while there is nothing to
    read, so the two share the cores rather than divide them.
    """
    detector = engine.threads or max(1, int(cpus / engine.detectors_per_slot + 0.25))
    streams = max(1, detector // engine.threads_per_inference)
    recognizer = max(1, round(cpus * RECOGNIZER_SHARE))
    # also where there are fewer cores: the order of summation must be the same
    return Threads(streams * engine.threads_per_inference, recognizer, streams)


def slots_of_node(cpus: float, engine: EngineConfig) -> tuple[int, SlotShape]:
    """How many slots a node with that many CPUs takes, and their shape.

    Without `cpus_per_slot`, a node is divided evenly into slots of about `SLOT_CPUS`: threads of
    one inference scale well up to there, and each slot costs a copy of the models.
    """
    if engine.cpus_per_slot is not None:
        per_slot = engine.cpus_per_slot
        count = int(cpus / per_slot + 1e-6)
    else:
        count = max(1, round(cpus / SLOT_CPUS)) if cpus >= _MIN_SLOT_CPUS else 0
        per_slot = cpus / count if count else cpus
    shape = SlotShape(per_slot, engine.detectors_per_slot, share_threads(per_slot, engine))
    return count, shape


def shape_for_slots(nodes: Sequence[float], engine: EngineConfig, slots: int) -> SlotShape:
    """The largest shape, at most the usual one, of which the nodes can take so many slots.

    Args:
        nodes: CPUs of each node.
        engine: With `cpus_per_slot`, that is the shape whatever the nodes have.
        slots: How many are asked for. If the nodes cannot take as many, the shape is the usual
            one, and slots wait for nodes to come.
    """
    _, usual = slots_of_node(max(nodes, default=1.0), engine)
    if engine.cpus_per_slot is not None:
        return usual
    sizes = {min(usual.cpus, cpus / k) for cpus in nodes for k in range(1, slots + 1)}
    for size in sorted(sizes, reverse=True):
        fits = sum(int(cpus / size + 1e-6) for cpus in nodes)
        if size >= _MIN_SLOT_CPUS and fits >= slots:
            threads = share_threads(size, engine)
            return SlotShape(size, engine.detectors_per_slot, threads)
    return usual
