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

    def __init__(self, photos: int, pages: int, spread: float, seed: int = 1) -> None:
        chance = random.Random(seed)
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


class Table(Archive):
    """The same as rows of a table: how large they are is only known when they are read.

    Bytes tell of costs, but loosely: those of a page cost twice as much as those of a photo.
    """

    read_s = 0.0

    def __init__(self, clock: Clock, photos: int, pages: int, seed: int = 1) -> None:
        super().__init__(photos, pages, spread=0.4, seed=seed)
        self._clock = clock

    def items(self) -> list[Item]:
        return [Item(str(n), "x", "parquet", member=str(n)) for n in range(len(self.costs))]

    def read(self, items: list[Item]):
        rows = [int(item.image_id) for item in items]
        assert rows == sorted(rows), "rows are read rising"
        for item, row in zip(items, rows, strict=True):
            self._clock.now += self.read_s
            cost = self.costs[row]
            size = round(1000 * cost if cost > 1 else 2000 * cost)
            yield Encoded(item, str(cost).encode().ljust(size))

    def estimate(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> estimate.Estimate:
        monkeypatch.setattr(time, "perf_counter", self._clock)
        monkeypatch.setattr(estimate, "_loaded", spots(self._clock))
        monkeypatch.setattr(estimate, "ThreadPoolExecutor", OneByOne)
        monkeypatch.setattr(estimate, "Reader", self)
        sample = Sample()
        for item in self.items():
            sample.add(item)
        found = sample.estimate(RunConfig(), len(self.costs), seconds=seconds)
        assert found is not None
        return found


def test_rows_of_a_table_are_estimated_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    middles, holds = [], 0
    for seed in range(40):
        table = Table(Clock(), photos=2700, pages=300, seed=seed)
        found = table.estimate(monkeypatch, seconds=30.0)
        work_s = sum(table.costs)
        middles.append(work_s / (found.item_s * len(table.costs)))
        holds += found.low_s < estimate.START_S["ray"] + work_s < found.high_s
    # by the rows alone, whatever their bytes, 30 are within it
    assert sum(1 / 1.3 < middle < 1.3 for middle in middles) >= 38, sorted(middles)
    assert holds >= 36, "an interval of 90 %"


def test_few_pages_among_rows_of_photos_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(Clock(), photos=2900, pages=100)
    found = table.estimate(monkeypatch, seconds=1e9)
    assert found.spotted >= estimate._LEAST_UNSIZED
    assert found.low_s < estimate.START_S["ray"] + sum(table.costs) < found.high_s


def test_a_table_too_slow_to_be_read_for_sizes_is_estimated_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    table = Table(clock, photos=240, pages=60)
    table.read_s = 1.0
    found = table.estimate(monkeypatch, seconds=30.0)
    assert found.spotted > 8
    assert clock.now < 30 + estimate._SIZING_S + 8


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
