"""The run as an engine sees it: where tasks come from, where reports go, and when to stop."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from textspot_ray.engine.dispatch import Dispatch
from textspot_ray.engine.signals import StopRequest
from textspot_ray.engine.slot.slot import Job, Report

_LOG = logging.getLogger(__name__)
DRAIN_S: Final = 25.0  # a preempted node is given some 30 s


@dataclass(slots=True)
class Control:
    """The run as an engine sees it.

    Attributes:
        job: What every slot must know.
        dispatch: Where tasks come from.
        stop: Whether the run was asked to stop.
        turn: Must be called several times a second; returns whether more tasks may come.
        on_report: Takes a slot's report.
        on_lost: Called when a slot is gone; its tasks go to others.
    """

    job: Job
    dispatch: Dispatch
    stop: StopRequest
    turn: Callable[[], bool]
    on_report: Callable[[int, Report], None]
    on_lost: Callable[[int], None]
    _drain_until_s: float | None = None

    @property
    def draining(self) -> bool:
        """Whether no more images may be started; logged the first time."""
        if self._drain_until_s is None and self.stop:
            self._drain_until_s = time.monotonic() + DRAIN_S
            _LOG.warning(
                "%s: no new images; whole shards are being committed (again to stop at once)",
                signal.Signals(self.stop.signal).name,
            )
        return self._drain_until_s is not None

    @property
    def drain_is_over(self) -> bool:
        """Whether draining has taken too long."""
        return self._drain_until_s is not None and time.monotonic() > self._drain_until_s
