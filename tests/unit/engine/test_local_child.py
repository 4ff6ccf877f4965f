"""The local engine's child: images are sent once, however many pages they have."""

from __future__ import annotations

import pickle

import pytest

from tests.support.scripted import ScriptedModels
from textspot_ray.engine import local as local_module
from textspot_ray.engine.local import ChildWorker
from textspot_ray.engine.slot.ports import Answered, Events, Raised, Started
from textspot_ray.errors import MissingExtraError, TextspotError
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


def test_every_kind_of_fault_travels_as_it_is() -> None:
    import textspot_ray.query.sql
    import textspot_ray.sources.listing  # noqa: F401

    kinds = [TextspotError]
    for kind in kinds:  # grows meanwhile
        kinds += kind.__subclasses__()
    assert len(kinds) > 10
    for kind in kinds:
        fault = kind("s3://", "s3") if kind is MissingExtraError else kind("one line: do this")
        arrived = pickle.loads(pickle.dumps(fault))
        assert type(arrived) is kind and str(arrived) == str(fault)
        assert arrived.exit_code is fault.exit_code
    assert str(MissingExtraError("s3://", "s3")).endswith("pip install 'textspot-ray[s3]'")
