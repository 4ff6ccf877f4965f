"""How long a run will take: a sample of its items is spotted as a slot would, and scaled up.

Items cost very different times (a page of small print some fifty times a street photo), so they are
divided into strata by container and size in bytes, and the next one to spot is drawn where it
narrows the interval most (Neyman's allocation; Cochran, Sampling Techniques, 1977, section 5.5).
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from textspot_ray.engine.sizing import available_cpus, slots_of_node
from textspot_ray.engine.slot.ports import BundleModels
from textspot_ray.records import Item, PageInfo
from textspot_ray.sources.reader import Reader
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.settings import SpotterSettings, settings_from

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig

Spot: TypeAlias = Callable[[bytes], "PageInfo | None"]
Stratum: TypeAlias = tuple[str, int]
_KEPT = 64  # candidates of a stratum
_T_90 = 1.7  # Student's t for an interval of 90 % with some twenty observations
# What a run differs by beside the sample: of five mixed archives it took 0.94 to 1.10 of the middle
# in three, 1.03 in one of large photos, 1.25 to 1.37 in a Parquet table of pages and photos. That
# last one is most likely the draw: rows have no size to divide them by, and a page costs thirty
# photos.
_MACHINE = 0.25
_NARROW = 0.08  # a sampling error below which no more is spotted
_LEAST_SPOTTED = 8
_TYPICAL_SPREAD = 1.0  # standard deviation by mean where a stratum has one observation
_READ_AHEAD = 2  # items that are being read while others are spotted
# Processes, models, Ray. Local: 93 photos took 15.3 s, of which 13 s were work; Ray: README's demo
# of 12 images reports 7.6 s, of which some 1 s is work, and 1.5 s of imports come before (two
# cores, models compiled before).
START_S = {"local": 2.5, "ray": 8.0}
_START_SPREAD = 1.5  # machines and caches differ; all of the interval of an archive of few images


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take on this machine.

    Attributes:
        low_s: Lower end of an interval of about 90 %, seconds, with the start.
        high_s: Its upper end.
        spotted: Items of the sample that were spotted.
        item_s: Seconds an item, without the start.
        passes: Detector passes an image.
        failed: Items of the sample that could not be read or decoded.
    """

    low_s: float
    high_s: float
    spotted: int
    item_s: float
    passes: float
    failed: int


@dataclass(slots=True)
class _Class:
    """A stratum: how many items there are, some of them, and what was seen of them."""

    items: int = 0
    candidates: list[Item] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)

    def gain(self, spread: float) -> float:
        """By how much the variance of the sum falls with one more observation."""
        n = len(self.work_s)
        if not self.candidates or n >= self.items:
            return 0.0
        if not n:
            return math.inf
        return (self.items * self.deviation(spread)) ** 2 / (n * (n + 1))

    def deviation(self, spread: float) -> float:
        """Standard deviation of an item's work, s; ``spread`` by mean where it is not known."""
        mean = sum(self.work_s) / len(self.work_s)
        if len(self.work_s) < 3:
            return spread * mean
        return float(np.std(self.work_s, ddof=1))

    def variance(self, spread: float) -> float:
        """Of the estimated sum of the stratum, s^2."""
        n = len(self.work_s)
        left = 1 - n / self.items
        return self.items**2 * self.deviation(spread) ** 2 / n * max(0.0, left)


class Sample:
    """Takes note of listed items, and keeps some of each stratum."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._classes: dict[Stratum, _Class] = {}
        self.items = 0

    def add(self, item: Item) -> None:
        """Note an item; it is kept by reservoir sampling."""
        size = -1 if item.size is None else int(2 * math.log2(max(1, item.size)))
        kind = self._classes.setdefault((item.container, size), _Class())
        self.items += 1
        kind.items += 1
        if len(kind.candidates) < _KEPT:
            kind.candidates.append(item)
        elif (at := self._random.randrange(kind.items)) < _KEPT:
            kind.candidates[at] = item

    def estimate(
        self, config: RunConfig, items: int, most: int = 64, seconds: float = 30.0
    ) -> Estimate | None:
        """Spot some of the items and scale up.

        Args:
            config: Of the run.
            items: How many items the run will spot.
            most: Items to spot at most.
            seconds: After which no more are begun.

        Returns:
            The estimate; None if there is nothing to do, or nothing could be spotted.
        """
        if not self.items or not items or most < 1:
            return None
        count, shape = slots_of_node(available_cpus(), config.engine)
        slots = config.engine.slots or max(1, count)
        threads = shape.threads
        settings = settings_from(config, threads=threads.detector, streams=threads.streams)
        spot = _loaded(settings, threads.recognizer)
        for kind in self._classes.values():
            self._random.shuffle(kind.candidates)
        with Reader(config.source, config.image) as reader:
            work = _Work(spot, reader, self._classes, threads.detect_calls)
            speed, failed = work.run(most, seconds, self._narrow)
        seen = [kind for kind in self._classes.values() if kind.work_s]
        if not any(kind.passes for kind in seen):
            return None
        total, error = self._total()
        run_s = total * speed / slots * items / self.items
        start_s = START_S[config.engine.kind]
        off = math.sqrt((_T_90 * error / total) ** 2 + _MACHINE**2) if total else 0.0
        covered = sum(kind.items for kind in seen)
        passes = sum(k.items * float(np.mean(k.passes or [0])) for k in seen) / covered
        return Estimate(
            low_s=start_s / _START_SPREAD + run_s / (1 + off),
            high_s=start_s * _START_SPREAD + run_s * (1 + off),
            spotted=sum(len(kind.work_s) for kind in seen) - failed,
            item_s=run_s / items,
            passes=passes,
            failed=failed,
        )

    def _total(self) -> tuple[float, float]:
        """Work of all items and its standard error, s."""
        seen = [kind for kind in self._classes.values() if kind.work_s]
        spread = _spread(seen)
        work = sum(k.items * sum(k.work_s) / len(k.work_s) for k in seen)
        share = self.items / sum(k.items for k in seen)  # strata that nobody came to
        error = math.sqrt(sum(k.variance(spread) for k in seen))
        return work * share, error * share + work * (share - 1)

    def _narrow(self) -> bool:
        seen = [kind for kind in self._classes.values() if kind.work_s]
        if len(seen) < len(self._classes) or sum(len(k.work_s) for k in seen) < _LEAST_SPOTTED:
            return False
        total, error = self._total()
        return _T_90 * error < _NARROW * total


def _loaded(settings: SpotterSettings, recognizer_threads: int) -> Spot:
    """Detector and recogniser with a slot's threads, ready: what they compile late is compiled."""
    cv2.setNumThreads(1)  # as in a slot's processes: large photos are resized on one core
    models = BundleModels(settings, recognizer_threads)
    detector, recognizer = models.detector(), models.recognizer()

    def spot(data: bytes) -> PageInfo | None:
        detected, features = detector.detect(data)
        if detected.error is None:
            recognizer.read(features)
        return None if detected.error is not None else detected.info

    for width, height in load_bundle(settings.model).spec.shapes:
        blank = np.full((height, width, 3), 128, np.uint8)
        spot(cv2.imencode(".png", blank)[1].tobytes())
    return spot


@dataclass(frozen=True, slots=True)
class _Spotted:
    """An item's turn on the clock, s, its pages, and the passes of one; none if it failed."""

    began_s: float = 0.0
    ended_s: float = 0.0
    pages: int = 1
    passes: int = 0


class _Work:
    """Spots items the way a slot does: as many at a time as it has calls in work.

    Others are read meanwhile, and the first one is spotted once more before: what compiles only
    with the first words is no part of an item's time.
    """

    def __init__(
        self, spot: Spot, reader: Reader, classes: dict[Stratum, _Class], calls: int
    ) -> None:
        self._spot_page = spot
        self._reader = reader
        self._classes = classes
        self._calls = calls
        self._turns = threading.Semaphore(calls)
        self._failed = 0

    def run(self, most: int, seconds: float, enough: Callable[[], bool]) -> tuple[float, int]:
        """Seconds on the clock by seconds of work, and how many items failed."""
        began = time.perf_counter()
        running: dict[Future[_Spotted], _Class] = {}
        begun = 0
        turns: list[_Spotted] = []
        chosen = self._choose()
        first = next(chosen, None)
        if first is not None:
            self._spot(first[1])
            chosen = itertools.chain([first], chosen)
        at_once = self._calls + _READ_AHEAD
        with ThreadPoolExecutor(at_once, "estimate") as pool:
            while True:
                late = begun > 0 and time.perf_counter() - began > seconds
                while len(running) < at_once and begun < most and not (late or enough()):
                    picked = next(chosen, None)
                    if picked is None:
                        break
                    kind, item = picked
                    running[pool.submit(self._spot, item)] = kind
                    begun += 1
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    kind, turn = running.pop(future), future.result()
                    kind.work_s.append((turn.ended_s - turn.began_s) * turn.pages)
                    turns.append(turn)
                    if turn.passes:
                        kind.passes.append(turn.passes)
                    else:
                        self._failed += 1
        return _speed(turns), self._failed

    def _choose(self) -> Iterator[tuple[_Class, Item]]:
        while True:
            seen = [kind for kind in self._classes.values() if kind.work_s]
            spread = _spread(seen)
            # of strata that nobody has looked at, the one with the most bytes first
            best = max(
                self._classes.values(),
                key=lambda kind: (kind.gain(spread), kind.items * _bytes(kind)),
            )
            if not best.gain(spread):
                return
            yield best, best.candidates.pop()

    def _spot(self, item: Item) -> _Spotted:
        """Read and spot an item; a file's pages cost as its first."""
        encoded = next(iter(self._reader.read([item])))
        if encoded.data is None:
            return _Spotted()
        with self._turns:
            began_s = time.perf_counter()
            info = self._spot_page(encoded.data)
            ended_s = time.perf_counter()
        if info is None:
            return _Spotted(began_s, ended_s)
        return _Spotted(began_s, ended_s, info.pages, info.tiles)


def _speed(turns: list[_Spotted]) -> float:
    """Seconds on the clock by seconds of work, as long as there was work for all calls.

    At the end some are idle, which they are not in a long run; waiting for reads is no work.
    """
    worked = sorted((t for t in turns if t.ended_s > t.began_s), key=lambda turn: turn.began_s)
    if not worked:
        return 1.0
    at_once = {t.ended_s: sum(o.began_s < t.ended_s <= o.ended_s for o in worked) for t in worked}
    until_s = max(s for s, n in at_once.items() if n == max(at_once.values()))
    work_s = clock_s = 0.0
    seen_s = worked[0].began_s
    for turn in (t for t in worked if t.began_s < until_s):
        ended_s = min(turn.ended_s, until_s)
        work_s += ended_s - turn.began_s
        clock_s += max(0.0, ended_s - max(seen_s, turn.began_s))
        seen_s = max(seen_s, ended_s)
    return clock_s / work_s


def _spread(seen: list[_Class]) -> float:
    """Standard deviation by mean of strata with several observations; a typical one at least."""
    known = [k for k in seen if len(k.work_s) > 2 and sum(k.work_s) > 0]
    ratios = [float(np.std(k.work_s, ddof=1) / np.mean(k.work_s)) for k in known]
    return float(np.median(ratios)) if len(ratios) > 2 else _TYPICAL_SPREAD


def _bytes(kind: _Class) -> int:
    return kind.candidates[0].size or 1 if kind.candidates else 0
