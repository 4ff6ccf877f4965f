"""The run as an engine sees it: where tasks come from, where reports go, and when to stop.

The first SIGINT or SIGTERM lets the run drain, the second ends it at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final

from textspot_ray.engine.dispatch import Dispatch
from textspot_ray.engine.slot.slot import Job, Report

_LOG = logging.getLogger(__name__)
DRAIN_S: Final = 25.0  # a preempted node is given some 30 s
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether, and by which signal, the run was asked to stop.

    Attributes:
        signal: Its number; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._armed = False

    def __bool__(self) -> bool:
        return self.signal != 0

    def arm(self) -> None:
        """Handle the signals; only the main thread can."""
        self._armed = True
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def rearm(self) -> None:
        """Handle them again after a library has installed its own handlers, as Ray does."""
        if self._armed:
            self.arm()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            if number == signal.SIGTERM:
                raise SystemExit(128 + number)
            raise KeyboardInterrupt
        self.signal = number  # logged by the run: a handler must not log


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle signals while the block runs; in a thread other than the main one they stay as is.

    Raises:
        KeyboardInterrupt: At a second SIGINT.
        SystemExit: At a second SIGTERM, with status 143.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    request.arm()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
