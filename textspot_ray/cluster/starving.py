"""Tells a worker that is late because the machine gives it no time from one that hangs.

Linux counts for every thread how long it was ready to run and waited for a core (run delay, the
second number of /proc/PID/task/TID/schedstat; kernel documentation, "Scheduler Statistics"). A
stalled call sleeps or computes; a call on an overloaded machine mostly waits in that queue. Time in
it does not count against a deadline, within a bound, so that nothing can hang for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MOST: Final = 5.0  # times its deadline, a call may take whatever the machine does
_REFRESH_S: Final = 0.25


def run_delays_s(pid: int) -> dict[int, float]:
    """Seconds each thread of a process has waited for a core; empty where it is not told."""
    delays: dict[int, float] = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                delays[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):
                continue  # the thread has ended, or the kernel keeps no such count
    except OSError:
        return {}
    return delays


@dataclass(slots=True)
class Starving:
    """How much of its time a process has waited for a core since a look at it."""

    pid: int
    since_s: float
    delays_s: dict[int, float]
    _share: float = field(default=0.0, init=False)
    _told_s: float = field(default=float("-inf"), init=False)

    @classmethod
    def begin(cls, pid: int) -> Starving:
        """Take the first look."""
        return cls(pid, time.monotonic(), run_delays_s(pid))

    @property
    def age_s(self) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self.since_s

    def share(self) -> float:
        """Share of the time since then that its most delayed thread waited, 0 to 1."""
        now = time.monotonic()
        if now - self._told_s >= _REFRESH_S:
            self._told_s = now
            self._share = self._look(now - self.since_s)
        return self._share

    def _look(self, passed_s: float) -> float:
        waited_s = [
            delay_s - self.delays_s[thread]
            for thread, delay_s in run_delays_s(self.pid).items()
            if thread in self.delays_s
        ]
        if passed_s <= 0.0 or not waited_s:
            return 0.0
        return min(1.0, max(0.0, *waited_s) / passed_s)


def allowed_s(limit_s: float, share: float) -> float:
    """What a deadline becomes for a process that waits for a core for a share of its time.

    >>> allowed_s(60.0, 0.0), allowed_s(60.0, 0.5), allowed_s(60.0, 1.0)
    (60.0, 120.0, 300.0)
    """
    return limit_s * min(MOST, 1.0 / max(1.0 - share, 1e-9))
