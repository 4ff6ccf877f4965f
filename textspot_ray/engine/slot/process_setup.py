"""Setup of worker processes: end with the parent, limit threads, measure memory."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends for any reason (Linux).

    A thread that watches a pipe is not enough: a decoder may hang while it holds Python's lock.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the request was in place
        os._exit(1)


def limit_library_threads() -> None:
    """Give OpenCV and Arrow one thread each: only inference runs in parallel."""
    import cv2

    cv2.setNumThreads(1)
    if (arrow := sys.modules.get("pyarrow")) is not None:  # not imported where it is not in use
        arrow.set_cpu_count(1)


def use_default_crash_handlers() -> None:
    """End at once on a fatal signal, as the system does by default.

    Ray's handler first looks up symbols for a stack trace: on a busy machine that was seen to take
    a minute and 2.5 GB for every image that crashes a decoder. The runner knows the image anyway.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        libc.signal(number, int(signal.SIG_DFL))  # Python's own call is for the main thread alone


class MemoryGauge:
    """Unique memory (USS) of this process, measured at most every ``interval_s`` seconds."""

    def __init__(self, interval_s: float = 2.0) -> None:
        self._interval_s = interval_s
        self._process = psutil.Process()
        self._read_at = -interval_s
        self._uss_bytes = 0

    def uss_bytes(self) -> int:
        """Bytes that would be free if this process ended."""
        now = time.monotonic()
        if now - self._read_at >= self._interval_s:
            self._read_at = now
            self._uss_bytes = int(self._process.memory_full_info().uss)
        return self._uss_bytes
