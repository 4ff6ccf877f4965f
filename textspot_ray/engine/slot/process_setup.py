"""What every worker process needs: to end with its parent, and to know its own memory."""

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
    """Have the kernel kill this process when its parent ends, however that comes about (Linux).

    A thread that watches a pipe would not do: a decoder may stall while it holds Python's lock.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the request was in place
        os._exit(1)


def calm_libraries() -> None:
    """One layer of parallelism owns the cores: inference. All others get one thread."""
    import cv2

    cv2.setNumThreads(1)
    if (arrow := sys.modules.get("pyarrow")) is not None:  # few processes need it: not imported
        arrow.set_cpu_count(1)


def crash_plainly() -> None:
    """End at once on a fatal signal, by the system's own way.

    Ray's handler looks up names for a stack trace first: on a busy machine it was seen to compute
    for a minute and to take 2.5 GB, for every image that crashes a decoder. Which image it was
    the runner knows without it.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        libc.signal(number, int(signal.SIG_DFL))  # Python's own call is for the main thread alone


class MemoryGauge:
    """Unique memory (USS) of this process, looked up at most every ``interval_s`` seconds."""

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
