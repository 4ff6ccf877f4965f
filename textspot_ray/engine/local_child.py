"""The local engine's worker process: detector and recogniser behind a socket.

Several threads detect, so that one image is decoded while inference runs on another; one thread
reads words. Features stay in this process, under the ticket of their page.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from textspot_ray.engine.slot.ports import Models
from textspot_ray.engine.slot.process_setup import (
    MemoryGauge,
    die_with_parent,
    limit_library_threads,
)
from textspot_ray.errors import TextspotError
from textspot_ray.records import DetectedPage, Readings


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a child."""

    models: Models
    detect_threads: int
    parent_pid: int


@dataclass(frozen=True, slots=True)
class DetectCall:
    """Decode a page and find its boxes.

    The image follows as a message of plain bytes, because pickling would copy it. With ``again`` it
    is the image sent last, for a later page, and does not follow.
    """

    ticket: int
    page: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class RecogniseCall:
    """Read the boxes found under this ticket."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker's first answer: it is ready, or the reason why it never will be."""

    error: TextspotError | None = None
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call, or the exception it ended in."""

    ticket: int
    value: DetectedPage | Readings | None
    message: str
    uss_bytes: int


class Child:
    """Serves calls until the socket closes."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._send_lock = threading.Lock()
        self._gauge = MemoryGauge()
        self._features: dict[int, Any] = {}  # by ticket; opaque here
        self._detector = setup.models.detector()
        self._recognizer = setup.models.recognizer()
        self._pages: queue.SimpleQueue[tuple[DetectCall, bytes]] = queue.SimpleQueue()
        self._boxes: queue.SimpleQueue[RecogniseCall] = queue.SimpleQueue()
        for _ in range(setup.detect_threads):
            self._serve(self._pages, self._detect)
        self._serve(self._boxes, self._recognise)

    def run(self) -> None:
        """Take calls and hand them to the threads."""
        self.send(Loaded())
        data = b""
        while True:
            call = self._connection.recv()
            if isinstance(call, DetectCall):
                if not call.again:
                    data = self._connection.recv_bytes()
                self._pages.put((call, data))
                if not call.page:
                    data = b""  # single images are not held
            else:
                self._boxes.put(call)

    def send(self, message: Loaded | Reply) -> None:
        """Send an answer; may be called from any thread."""
        with self._send_lock:
            self._connection.send(message)

    def _serve(self, calls: queue.SimpleQueue[Any], work: Callable[[Any], Any]) -> None:
        def loop() -> None:
            while True:
                self.send(work(calls.get()))

        threading.Thread(target=loop, daemon=True).start()

    def _detect(self, asked: tuple[DetectCall, bytes]) -> Reply:
        call, data = asked
        page: DetectedPage | None = None
        message = ""
        try:
            page, features = self._detector.detect(data, call.page)
            if page.detections:
                self._features[call.ticket] = features
        except Exception as exc:  # a bug: the runner makes it the image's error
            message = f"{type(exc).__name__}: {exc}"
        return Reply(call.ticket, page, message, self._gauge.uss_bytes())

    def _recognise(self, call: RecogniseCall) -> Reply:
        readings: Readings | None = None
        message = ""
        try:
            readings = self._recognizer.read(self._features.pop(call.ticket))
        except Exception as exc:
            message = f"{type(exc).__name__}: {exc}"
        return Reply(call.ticket, readings, message, self._gauge.uss_bytes())


def main(fd: int) -> int:
    """Run a child on one end of a socket pair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    faulthandler.enable()
    connection = Connection(fd)
    try:
        setup: Setup = connection.recv()
        die_with_parent(setup.parent_pid)
        limit_library_threads()
        try:
            child = Child(connection, setup)
        except TextspotError as exc:
            connection.send(Loaded(exc))
            return 0
        child.run()
    except (EOFError, ConnectionError):
        os._exit(0)  # the driver is gone or has no more work; threads may be busy
    return 0
