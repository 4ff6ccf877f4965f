"""The in-process engine: one slot in the caller's process, its models in one child process."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from textspot_ray.engine.control import Control
from textspot_ray.engine.local_child import DetectCall, Loaded, RecogniseCall, Reply, Setup
from textspot_ray.engine.sizing import available_cpus, share_threads
from textspot_ray.engine.slot.ports import (
    Answered,
    Died,
    Events,
    Models,
    Raised,
    Refused,
    Started,
    Worker,
)
from textspot_ray.engine.slot.slot import Slot
from textspot_ray.import_path import safe_path
from textspot_ray.records import Stage

_DEBUG: Final = "TEXTSPOT_DEBUG"  # if set, the worker's own output is shown
# Not `-m`: the child's classes must be pickled under their module's name, not as __main__.
_PROGRAM: Final = (
    "import sys, textspot_ray.engine.local_child as c; sys.exit(c.main(int(sys.argv[1])))"
)
_KILL_TIMEOUT_S: Final = 10.0
# Sent by others; a crash in native code is SIGSEGV, SIGBUS, SIGFPE, SIGABRT, ...
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class ChildWorker:
    """Detector and recogniser in one child process; see `ports.Worker`.

    Args:
        models: What it loads.
        events: Where its answers go.
        detect_threads: Images decoded and detected at a time.
    """

    stages = frozenset({Stage.DETECT, Stage.RECOGNISE})
    max_batch = 1

    def __init__(self, models: Models, events: Events, detect_threads: int = 2) -> None:
        self.name = "spotter"
        self._models = models
        self._events = events
        self._detect_threads = detect_threads
        self._link: _Link | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, if there is one."""
        return self._link.process.pid if self._link is not None else None

    def start(self, generation: int) -> None:
        """Start a fresh child."""
        setup = Setup(self._models, self._detect_threads, os.getpid())
        self._link = _Link(setup, self._events, self.name, generation)

    def detect(self, pages: Sequence[tuple[int, bytes, int]]) -> None:
        """Detect the boxes on pages, see `ports.Worker`."""
        if self._link is not None:
            for page in pages:
                self._link.send_image(*page)

    def recognise(self, pages: Sequence[tuple[int, Any]]) -> None:
        """Read the words of pages whose features the child has kept."""
        if self._link is not None:
            for ticket, _ in pages:
                self._link.send(RecogniseCall(ticket))

    def kill(self) -> None:
        """Kill the child."""
        link, self._link = self._link, None
        if link is not None:
            link.kill()


class _Link:
    """One child process and the two threads that talk to it.

    Sending has its own thread: a stalled child reads nothing, and the runner must not wait.
    """

    def __init__(self, setup: Setup, events: Events, name: str, generation: int) -> None:
        self._events = events
        self._name = name
        self._generation = generation
        self._outbox: queue.SimpleQueue[
            tuple[Setup | DetectCall | RecogniseCall, bytes | None] | None
        ]
        self._outbox = queue.SimpleQueue()
        self._last: bytes | None = None  # image that the child holds
        self._detecting: set[int] = set()  # tickets
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            output = None if os.environ.get(_DEBUG) else subprocess.DEVNULL
            # Not `multiprocessing`, which would import the caller's main module again and so break
            # notebooks and scripts without a guard.
            # -P: otherwise `-c` imports from the working folder, which holds users' files.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(fd)],
                pass_fds=(fd,),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(safe_path())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._connection = Connection(ours.detach())
        self.send(setup)
        for work in (self._send_all, self._listen):
            threading.Thread(target=work, name=f"{name}-link", daemon=True).start()

    def send(self, message: Setup | DetectCall | RecogniseCall) -> None:
        """Queue a message for the child."""
        self._outbox.put((message, None))

    def send_image(self, ticket: int, data: bytes, page: int) -> None:
        """Queue an image, or another page of the one before."""
        self._detecting.add(ticket)
        again = data is self._last
        self._last = data if page else None
        self._outbox.put((DetectCall(ticket, page, again), None if again else data))

    def kill(self) -> None:
        """Kill the child."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_KILL_TIMEOUT_S)

    def _send_all(self) -> None:
        with contextlib.suppress(OSError):  # the child is gone: the listener posts it
            while (queued := self._outbox.get()) is not None:
                message, data = queued
                self._connection.send(message)
                if data is not None:
                    self._connection.send_bytes(data)
                del queued, message, data  # or the image would be held meanwhile

    def _listen(self) -> None:
        try:
            while True:
                self._tell(self._connection.recv())
        except (EOFError, OSError):
            reason, system = _describe(self.process.wait())
        except Exception as exc:  # not one of our messages
            self.kill()
            reason, system = f"it sent something unreadable ({exc!r})", False
        self._outbox.put(None)
        self._events.put(Died(self._name, self._generation, reason, system))

    def _tell(self, message: Loaded | Reply) -> None:
        if isinstance(message, Reply):
            self._detecting.discard(message.ticket)
            if not self._detecting:
                self._last = None  # hold it no longer than the runner does
        name, generation = self._name, self._generation
        match message:
            case Loaded(None):
                self._events.put(Started(name, generation))
            case Loaded(error) if error is not None:
                self._events.put(Refused(name, generation, error))
            case Reply(ticket, None, text, _):
                self._events.put(Raised(name, generation, ticket, text))
            case Reply(ticket, value, _, uss_bytes) if value is not None:
                self._events.put(Answered(name, generation, ticket, value, uss_bytes=uss_bytes))


def _describe(status: int) -> tuple[str, bool]:
    """How a process ended, in words, and whether it was killed from outside."""
    if status >= 0:
        return f"exit status {status}", False
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    outside = -status in _FROM_OUTSIDE
    return f"{name}{' (killed from outside, or out of memory)' if outside else ''}", outside


_SLOT: Final = 0
_STEP_S: Final = 0.25


def run_local(control: Control) -> None:
    """Run until no task is left or a stop has drained the slot."""
    job = control.job

    threads = share_threads(available_cpus(), job.config.engine)

    def make_workers(events: Events) -> list[Worker]:
        return [ChildWorker(job.recipe.models, events, threads.detect_calls)]

    slot = Slot(job, make_workers, threads)
    try:
        _drive(control, slot)
    finally:
        slot.close()


def _drive(control: Control, slot: Slot) -> None:
    dispatch = control.dispatch
    wants, idle = True, True
    while True:
        coming = control.turn()
        draining = control.draining
        if draining and (idle or control.drain_is_over):
            return
        if idle and not coming and not dispatch.has_for(_SLOT):
            return
        task = dispatch.take(_SLOT) if wants and not draining else None
        began_s = time.monotonic()
        report = slot.step(
            [task] if task is not None else [],
            _STEP_S,
            more=not draining and dispatch.has_for(_SLOT),
            drain=draining,
        )
        control.on_report(_SLOT, report)
        wants, idle = report.wants, report.idle
        if idle and coming and time.monotonic() - began_s < 0.01:
            time.sleep(0.02)  # nothing to do until the listing adds a segment
