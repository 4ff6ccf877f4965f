"""Estimates of a run's time: what they say of archives whose items cost very different times."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from textspot_ray.config import RunConfig
from textspot_ray.engine import estimate
from textspot_ray.engine.estimate import Sample
from textspot_ray.records import Encoded, Item, PageInfo


class Clock:
    """Time that passes by what images cost, shared by as many at a time as there are calls."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spots(clock: Clock):
    """Costs what an image's bytes say; one call at a time, so that the clock is that of work."""

    def spot(data: bytes) -> PageInfo:
        clock.now += float(data)
        return PageInfo(9, 9, "jpeg", 1, tiles=2)

    return lambda settings, threads: spot


class Archive:
    """Photos that cost 0.1 s, and pages of the same container that cost 20 times as much."""

    def __init__(self, photos: int, pages: int, spread: float) -> None:
        chance = random.Random(1)
        costs = [0.1] * photos + [2.0] * pages
        chance.shuffle(costs)
        self.costs = [cost * chance.uniform(1 - spread, 1 + spread) for cost in costs]

    def items(self) -> list[Item]:
        return [
            Item(str(n), "x", size=400_000 if cost > 1 else 60_000 + n % 9000)
            for n, cost in enumerate(self.costs)
        ]

    def __call__(self, *_: object) -> Archive:
        return self

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, items: list[Item]) -> list[Encoded]:
        return [Encoded(item, str(self.costs[int(item.image_id)]).encode()) for item in items]


@pytest.mark.parametrize(("photos", "pages"), [(3000, 0), (2900, 100), (500, 500), (20, 3)])
def test_the_interval_holds_the_time_and_is_narrow(
    photos: int, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    archive = Archive(photos, pages, spread=0.4)
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(estimate, "_loaded", spots(clock))
    monkeypatch.setattr(estimate, "Reader", archive)
    monkeypatch.setattr(estimate, "ThreadPoolExecutor", OneByOne)
    sample = Sample()
    for item in archive.items():
        sample.add(item)
    found = sample.estimate(RunConfig(), len(archive.costs), seconds=1e9)
    assert found is not None
    true_s = estimate.START_S["ray"] + sum(archive.costs)
    assert found.low_s < true_s < found.high_s
    if true_s > 60:
        assert found.high_s / found.low_s < 1.3**2, "within a factor of 1.3"
    assert found.high_s / found.low_s > 1.3, "nobody knows it better"
    assert found.passes == 2 and found.failed == 0
    assert found.spotted <= 64


class OneByOne:
    """A pool that does each call when it is asked."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> OneByOne:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(call(*arguments))
        return future


def test_nothing_that_can_be_read_is_no_estimate(tmp_path: Path) -> None:
    sample = Sample()
    assert sample.estimate(RunConfig(), 5) is None
    lost = (tmp_path / "lost.jpg").as_uri()
    sample.add(Item(lost, lost, size=10))
    assert sample.estimate(RunConfig(), 1) is None
    assert sample.estimate(RunConfig(), 1, most=0) is None


def test_of_any_number_of_items_few_are_kept() -> None:
    sample = Sample()
    for n in range(20_000):
        sample.add(Item(str(n), "x", size=1 << (n % 8)))
    assert sample.items == 20_000
    assert sum(len(stratum.candidates) for stratum in sample._strata.values()) <= 8 * estimate._KEPT


def test_speed_is_that_of_full_work() -> None:
    turn = estimate._Spotted
    two_at_a_time = [turn(float(n // 2), float(n // 2 + 1)) for n in range(8)]
    assert estimate._speed(two_at_a_time) == 0.5
    last_one_alone = [*two_at_a_time, turn(4.0, 9.0)]
    assert estimate._speed(last_one_alone) == 0.5
    after_a_pause = [*two_at_a_time, turn(100.0, 101.0), turn(100.0, 101.0)]
    assert estimate._speed(after_a_pause) == 0.5
    assert estimate._speed([]) == estimate._speed([turn()]) == 1.0


def test_what_compiles_with_the_first_words_is_no_part_of_the_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    archive = Archive(photos=400, pages=0, spread=0.1)
    first = [True]

    def loaded(*_: object):
        spot = spots(clock)(None, None)

        def slow_at_first(data: bytes) -> PageInfo:
            clock.now += 30.0 if first.pop() else 0.0
            first.append(False)
            return spot(data)

        return slow_at_first

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(estimate, "_loaded", loaded)
    monkeypatch.setattr(estimate, "Reader", archive)
    monkeypatch.setattr(estimate, "ThreadPoolExecutor", OneByOne)
    sample = Sample()
    for item in archive.items():
        sample.add(item)
    found = sample.estimate(RunConfig(), 400, seconds=1e9)
    assert found is not None and found.item_s == pytest.approx(0.1, rel=0.05)
