"""Timing of variants side by side: on a busy machine only ratios within one run mean something."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

Work = Callable[[], int]  # does some work and says how many units (images, steps) it was


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a unit of one variant, one value a round.

    Attributes:
        wall_s: By the clock.
        cpu_s: By the cores, of this process and its children.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def per_s(self) -> float:
        """Units a second at the median."""
        return 1.0 / statistics.median(self.wall_s)

    @property
    def ms(self) -> float:
        """Milliseconds a unit at the median."""
        return 1e3 * statistics.median(self.wall_s)

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of cores a unit at the median."""
        return 1e3 * statistics.median(self.cpu_s)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one variant is than another: median, quartiles, and by CPU time.

    Attributes:
        median: Of the rounds' ratios of wall time.
        low: Lower quartile.
        high: Upper quartile.
        cpu: Median of the rounds' ratios of CPU time: what other processes disturb least.
    """

    median: float
    low: float
    high: float
    cpu: float


def interleave(
    variants: Mapping[str, Work],
    rounds: int,
    *,
    on_round: Callable[[str], None] = lambda line: None,
) -> dict[str, Timing]:
    """Time variants in turn, A B C A B C, after one round that is not counted.

    Args:
        variants: Work to time, by name.
        rounds: How often each is timed.
        on_round: Given a line after each piece of work.
    """
    wall: dict[str, list[float]] = {name: [] for name in variants}
    cpu: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, work in variants.items():
            cpu_before, before = cpu_seconds(), time.perf_counter()
            units = work()
            wall_s = (time.perf_counter() - before) / units
            cpu_s = (cpu_seconds() - cpu_before) / units
            on_round(f"{name}: {1e3 * wall_s:.1f} ms, {1e3 * cpu_s:.1f} ms of CPU")
            if number:
                wall[name].append(wall_s)
                cpu[name].append(cpu_s)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in variants}


def ratio(slow: Timing, fast: Timing) -> Ratio:
    """How many times as fast ``fast`` is as ``slow``, round by round."""
    ratios = sorted(a / b for a, b in zip(slow.wall_s, fast.wall_s, strict=True))
    cpu = [a / b for a, b in zip(slow.cpu_s, fast.cpu_s, strict=True)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0], cpu[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high, statistics.median(cpu))


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that descend from it and live."""
    total = time.process_time()  # psutil counts in ticks of 10 ms
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total
