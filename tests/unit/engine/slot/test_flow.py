"""Pages in motion: by number, by bytes of features, by bytes in the detector."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.config import ImageConfig
from textspot_ray.engine.components import estimate_work
from textspot_ray.engine.slot.flow import Flow
from textspot_ray.engine.slot.limits import Limits
from textspot_ray.engine.slot.open_shards import PageTask
from textspot_ray.engine.slot.ports import PageWork, blank_png
from textspot_ray.records import DetectedPage, Encoded, Item


class Detector:
    """A pool of one worker that takes any number of calls and answers none."""

    def __init__(self, batch: int) -> None:
        self.calls: list[list[int]] = []
        self.batch = batch
        self.worker = self
        self.detectors = [self]

    @property
    def pages(self) -> list[int]:
        return [page for call in self.calls for page in call]

    def least_busy(self, stage: object, max_calls: int) -> Detector:
        return self

    def free_calls(self, stage: object, max_calls: int) -> int:
        return 1

    def open(self, tickets: list[int], stage: object, weight: float) -> None:
        pass

    def detect(self, pages: list[tuple[int, bytes, int]]) -> None:
        self.calls.append([ticket for ticket, _, _ in pages])

    def recognise(self, pages: list[tuple[int, object]]) -> None:
        pass


def flow_of(
    sizes: list[int], max_detect_bytes: int, in_flight: int = 100, batch: int = 1
) -> tuple[Flow, Detector]:
    detector = Detector(batch)
    limits = Limits(in_flight, max_detect_bytes=max_detect_bytes, max_feature_bytes=2**40)
    flow = Flow(detector, limits, lambda data: PageWork(1.0, int(data)))  # type: ignore
    shard: Any = SimpleNamespace(dropped=False)
    for ticket, size in enumerate(sizes):
        encoded = Encoded(Item(f"mem://{ticket}", "mem://"), str(size).encode())
        flow.ready.append(PageTask(ticket, shard, ticket, 0, encoded))
    return flow, detector


def test_a_page_too_large_for_the_budget_goes_alone() -> None:
    flow, detector = flow_of([60, 30, 500, 10], 100)
    flow.dispatch(deque())
    assert detector.pages == [0, 1]
    flow.end(flow.find(0))
    flow.dispatch(deque())
    assert detector.pages == [0, 1]  # the large one waits for the other, and is not overtaken
    flow.end(flow.find(1))
    flow.dispatch(deque())
    assert detector.pages == [0, 1, 2] and flow.alone
    # its pixels are gone once it is detected, while its words wait to be read
    flow.detected(flow.find(2), DetectedPage(None, ()), object())
    flow.dispatch(deque())
    assert detector.pages == [0, 1, 2, 3]


@given(
    sizes=st.lists(st.integers(0, 120), max_size=30),
    order=st.randoms(),
    shape=st.sampled_from([(5, 1), (2, 4)]),
)
def test_never_more_than_the_budget_and_every_page_goes(
    sizes: list[int], order: Any, shape: tuple[int, int]
) -> None:
    in_flight, batch = shape
    flow, detector = flow_of(sizes, 100, in_flight, batch)
    inside: set[int] = set()
    while True:
        flow.dispatch(deque())
        inside |= {t for t in detector.pages if flow.find(t) is not None}
        assert len(inside) <= in_flight * batch
        assert all(0 < len(call) <= batch for call in detector.calls)
        assert sum(sizes[t] for t in inside) <= 100 or len(inside) == 1
        if not inside:
            break
        ended = order.choice(sorted(inside))
        flow.end(flow.find(ended))
        inside.remove(ended)
    assert detector.pages == [*range(len(sizes))]


def test_work_goes_by_the_header() -> None:
    small = estimate_work(blank_png(640, 480), ImageConfig())
    assert small.passes < 10
    large = estimate_work(blank_png(6400, 3840), ImageConfig())
    assert large.passes > small.passes
    assert large.n_bytes > 2 * 3 * 6400 * 3840
    whole = estimate_work(blank_png(6400, 3840), ImageConfig(tiles="off"))
    assert whole.passes == 1
    refused = estimate_work(blank_png(6400, 3840), ImageConfig(max_pixels=1000))
    assert refused == estimate_work(b"no image", ImageConfig()) == PageWork()
