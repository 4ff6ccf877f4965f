"""Threads that read ahead, and that may be left behind when storage never answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class AbandonableFuture(Generic[T]):
    """A piece of work under way."""

    def __init__(self, work: Callable[[AbandonableFuture[T]], T]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._result: T | None = None
        self._failure: BaseException | None = None
        self._beat_s: float | None = None  # None before it starts
        self._left_behind = False
        self._cancelled = False

    def beat(self) -> None:
        """Show that the work goes on."""
        self._beat_s = time.monotonic()

    @property
    def left_behind(self) -> bool:
        """Whether `wait` has given up on it."""
        return self._left_behind

    def cancel(self) -> None:
        """Nobody wants the result; work that has not begun is not done."""
        self._cancelled = True

    def wait(self, allowance_s: float, poll_s: float = 0.25) -> T:
        """The result, which can be taken once and is then not kept.

        Args:
            allowance_s: Longest time without a beat.
            poll_s: How often to look.

        Raises:
            TimeoutError: No beat for that long; its thread is left behind.
        """
        while not self._done.wait(min(poll_s, allowance_s)):
            if self._beat_s is not None and time.monotonic() - self._beat_s > allowance_s:
                with self._lock:
                    if not self._done.is_set():
                        self._left_behind = True
                        raise TimeoutError(f"no answer for {allowance_s:.3g} s")
        if self._failure is not None:
            raise self._failure
        result, self._result = self._result, None
        return result  # type: ignore[return-value]

    def run(self) -> bool:
        """Do the work; False if the thread was given up meanwhile and must end."""
        if self._cancelled:
            return True
        self.beat()
        try:
            self._result = self._work(self)
        except BaseException as exc:  # handed to whoever waits
            self._failure = exc
        with self._lock:
            self._done.set()
            return not self._left_behind


class AbandonablePool:
    """A few threads that never keep the process from ending.

    `concurrent.futures` joins its threads at exit, which a read that hangs would turn into a
    process that hangs.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads = threads
        self._name = name
        self._queue: queue.SimpleQueue[AbandonableFuture[object] | None] = queue.SimpleQueue()
        self._started = 0

    def submit(self, work: Callable[[AbandonableFuture[T]], T]) -> AbandonableFuture[T]:
        """Queue work; it is begun in the order of submission."""
        future: AbandonableFuture[T] = AbandonableFuture(work)
        self._queue.put(future)  # type: ignore[arg-type]
        if self._started < self._threads:
            self._start()
        return future

    def replace(self) -> None:
        """Start a thread in place of one that hangs; that one ends when its call comes back."""
        self._start()

    def close(self) -> None:
        """Let the threads end once the queue is empty."""
        for _ in range(self._started):
            self._queue.put(None)

    def _start(self) -> None:
        self._started += 1
        threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while (future := self._queue.get()) is not None:
            if not future.run():
                return
            del future  # an idle thread would hold what it has read
