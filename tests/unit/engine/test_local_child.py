"""The local engine's child: images are sent once, however many pages they have."""

from __future__ import annotations

import pytest

from tests.support.scripted import ScriptedModels
from textspot_ray.engine import local as local_module
from textspot_ray.engine.local import ChildWorker
from textspot_ray.engine.slot.ports import Answered, Events, Raised, Started
from textspot_ray.records import DetectedPage, Readings


def test_pages_of_one_file_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    class Counting(local_module.Connection):
        def send_bytes(self, buf: bytes, *args: int) -> None:
            sent.append(len(buf))
            super().send_bytes(buf, *args)

    monkeypatch.setattr(local_module, "Connection", Counting)
    events = Events()
    worker = ChildWorker(ScriptedModels(), events, detect_threads=1)
    worker.start(1)
    assert isinstance(events.get(timeout=30), Started)
    first = b"words=a,b\npages=9" + b"\n" * 5000
    other = b"words=c\n"
    asked = [(first, 0), (first, 1), (first, 2), (first, 3), (other, 0), (first, 4), (other, 0)]
    try:
        for ticket, (data, page) in enumerate(asked, 1):
            worker.detect([(ticket, data, page)])
        for ticket, (data, page) in enumerate(asked, 1):
            answer = events.get(timeout=30)
            assert isinstance(answer, Answered) and answer.ticket == ticket
            assert isinstance(answer.value, DetectedPage)
            assert len(answer.value.detections) == (2 if data is first else 1), page
        for ticket, (data, page) in enumerate(asked, 1):
            worker.recognise([(ticket, None)])
            answer = events.get(timeout=30)
            assert isinstance(answer, Answered) and isinstance(answer.value, Readings)
            tail = f"p{page}" if page else ""
            words = [f"{word}{tail}" for word in ("ab" if data is first else "c")]
            assert [reading.text for reading in answer.value.readings] == words
        # The first page, whose file may have no other; the second, which others follow; the fifth.
        assert sent == [len(d) for d in (first, first, other, first, other)]
        worker.detect([(99, b"words=d\ndo=raise", 0)])
        assert isinstance(events.get(timeout=30), Raised)
        worker.detect([(100, b"", 0)])  # which no reader gives, but which must not block
        assert isinstance(events.get(timeout=30), Answered)
    finally:
        worker.kill()
