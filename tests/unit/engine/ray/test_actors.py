"""A file of several pages goes to its detector once; each page of a batch has its own answer."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from tests.support.scripted import ScriptedModels
from textspot_ray.engine.ray import actors
from textspot_ray.engine.ray.actors import ActorWorker, DetectorActor, Outcome, RecognizerActor
from textspot_ray.engine.slot.ports import Answered, Events, Raised
from textspot_ray.records import DetectedPage, Stage


class Ref:
    """Stands for Ray's reference, to an object or to an answer to come."""

    def __init__(self, value: object = None) -> None:
        self.value, self._future = value, Future()

    def hex(self) -> str:
        return f"{id(self):x}"

    def future(self) -> Future:
        return self._future


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[Ref]:
    puts: list[Ref] = []

    def put(data: bytes) -> Ref:
        puts.append(Ref(data))
        return puts[-1]

    monkeypatch.setattr(actors.ray, "put", put)
    return puts


def test_the_runner_sends_a_file_once_and_holds_it_while_pages_are_asked_for(puts: list[Ref]):
    asked: list[tuple[bytes | list[Ref], int, Ref]] = []

    def detect(pages):
        asked.extend((*page, Ref()) for page in pages)
        return asked[-1][2], "features"

    events = Events()
    worker = ActorWorker("detector", Stage.DETECT, ScriptedModels(), events, {})
    worker._actor = SimpleNamespace(detect=SimpleNamespace(remote=detect))
    file, other = b"file" * 9, b"other"
    for page in range(3):
        worker.detect([(page + 1, file, page)])
    assert [a[:2] for a in asked] == [(file, 0), ([puts[0]], 1), ([puts[0]], 2)]
    assert puts[0].value is file and len(puts) == 1
    worker.detect([(4, other, 0)])
    for _, _, ref in asked[:3]:
        ref.future().set_result(Outcome((DetectedPage(None, ()),), 0))
    worker.detect([(5, file, 3)])
    assert len(puts) == 1  # something was being detected all the time
    asked[3][2].future().set_exception(ValueError("no"))
    asked[4][2].future().set_exception(actors.ray.exceptions.ObjectLostError("0" * 56, None, ""))
    assert worker._file is None
    worker.detect([(6, file, 3)])
    assert len(puts) == 2
    found = [events.get_nowait() for _ in range(5)]
    assert sum(isinstance(event, Answered) for event in found) == 3
    assert isinstance(found[-1], Raised) and found[-1].lost


def test_the_detector_fetches_a_file_once_and_holds_no_other(monkeypatch: pytest.MonkeyPatch):
    fetched: list[Ref] = []
    seen: list[tuple[bytes, int]] = []

    def get(ref: Ref) -> object:
        fetched.append(ref)
        return ref.value

    class Detector:
        def detect(self, data, page):
            seen.append((data, page))
            return DetectedPage(None, ()), None

    monkeypatch.setattr(actors.ray, "get", get)
    actor = DetectorActor(SimpleNamespace(detector=Detector))
    actor._load()
    first, second = Ref(b"first"), Ref(b"second")
    for ref, page in ((first, 1), (first, 2), (second, 1), (second, 2)):
        actor.detect([([ref], page)])
    assert fetched == [first, second]
    assert seen[0][0] is seen[1][0] and [data for data, _ in seen[2:]] == [b"second"] * 2
    actor.detect([(b"an image", 0)])
    assert seen[-1] == (b"an image", 0) and actor._file is None


def test_what_one_page_of_a_batch_raises_is_told_of_that_page_alone():
    models = ScriptedModels()
    detector, recogniser = DetectorActor(models), RecognizerActor(models)
    detector._load(), recogniser._load()
    scripts = [b"words=a,b", b"do=raise", b"words=", b"words=c"]
    found, features = detector.detect([(script, 0) for script in scripts])
    assert [getattr(value, "detections", value) for value in found.values][1] == (
        "ValueError: scripted to raise"
    )
    assert [len(found.values[at].detections) for at in (0, 2, 3)] == [2, 0, 1]
    # pages of two calls, in any order
    read = recogniser.read([(0, 3), (1, 0), (0, 1), (0, 0)], features, [features[0][:1]])
    texts = [v if isinstance(v, str) else [r.text for r in v.readings] for v in read.values]
    assert texts[:2] == [["c"], ["a"]] and "Error" in texts[2] and texts[3] == ["a", "b"]


def test_answers_of_a_batch_are_one_event_a_page_and_a_lost_input_is_lost_to_all_of_them():
    account, events = Ref(), Events()
    worker = ActorWorker("detector", Stage.DETECT, ScriptedModels(), events, {})
    detect = SimpleNamespace(remote=lambda pages: (account, "features"))
    worker._actor = SimpleNamespace(detect=detect)
    worker.detect([(1, b"a", 0), (2, b"b", 0), (3, b"c", 0)])
    page = DetectedPage(None, ())
    account.future().set_result(Outcome((page, "ValueError: no", page), 7))
    first, second, third = (events.get_nowait() for _ in range(3))
    assert isinstance(second, Raised) and second.ticket == 2 and not second.lost
    assert [first.ticket, third.ticket] == [1, 3]
    assert [first.features, third.features] == [("features", 0), ("features", 2)]

    asked, account = [], Ref()
    read = SimpleNamespace(remote=lambda *call: asked.append(call) or account)
    worker._actor = SimpleNamespace(read=read)
    worker.recognise([(1, ("x", 1)), (2, ("y", 0)), (3, ("x", 0))])
    assert asked == [([(0, 1), (1, 0), (0, 0)], "x", "y")]
    lost = actors.ray.exceptions.ObjectLostError("0" * 56, None, "")
    account.future().set_exception(lost)
    found = [events.get_nowait() for _ in range(3)]
    assert [event.ticket for event in found] == [1, 2, 3]
    assert all(isinstance(event, Raised) and event.lost for event in found)
