"""SIGINT and SIGTERM: the first lets the run drain, the second ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
