"""How long a run will take: a sample of its items is spotted as a slot would, and scaled up.

Items cost very different times (a page of small print some fifty times a street photo), so they are
divided into strata by container and size in bytes, and the next one to spot is drawn where it
narrows the interval most (Neyman's allocation; Cochran, Sampling Techniques, 1977, section 5.5).
"""

from __future__ import annotations

import math
import random
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
_MACHINE = 0.2  # what two runs of one command differ by on a machine that does other things, too
_NARROW = 0.08  # a sampling error below which no more is spotted
_LEAST_SPOTTED = 8
_TYPICAL_SPREAD = 1.0  # standard deviation by mean where a stratum has one observation
# Processes, models, Ray. Local: 93 photos took 15.3 s, of which 13 s were work; Ray: README's demo
# of 12 images takes 4.8 s in all (two cores, models compiled before).
START_S = {"local": 2.5, "ray": 4.0}


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
            low_s=start_s + run_s / (1 + off),
            high_s=start_s + run_s * (1 + off),
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


class _Work:
    """Spots items the way a slot does: as many at a time as it has calls in work."""

    def __init__(
        self, spot: Spot, reader: Reader, classes: dict[Stratum, _Class], calls: int
    ) -> None:
        self._spot_page = spot
        self._reader = reader
        self._classes = classes
        self._calls = calls
        self._failed = 0

    def run(self, most: int, seconds: float, enough: Callable[[], bool]) -> tuple[float, int]:
        """Seconds on the clock by seconds of work, and how many items failed."""
        began = time.perf_counter()
        running: dict[Future[tuple[float, int]], _Class] = {}
        begun = 0
        worked_s = 0.0
        chosen = self._choose()
        with ThreadPoolExecutor(self._calls, "estimate") as pool:
            while True:
                late = time.perf_counter() - began > seconds
                while len(running) < self._calls and begun < most and not (late or enough()):
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
                    kind = running.pop(future)
                    work_s, passes = future.result()
                    kind.work_s.append(work_s)
                    worked_s += work_s
                    if passes:
                        kind.passes.append(passes)
                    else:
                        self._failed += 1
        return (time.perf_counter() - began) / max(worked_s, 1e-9), self._failed

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

    def _spot(self, item: Item) -> tuple[float, int]:
        """Seconds of work and passes; no passes if it failed. A file's pages cost as its first."""
        encoded = next(iter(self._reader.read([item])))
        began = time.perf_counter()
        if encoded.data is None:
            return 0.0, 0
        info = self._spot_page(encoded.data)
        work_s = time.perf_counter() - began
        return (work_s * info.pages, info.tiles) if info is not None else (work_s, 0)


def _spread(seen: list[_Class]) -> float:
    """Standard deviation by mean of strata with several observations; a typical one at least."""
    known = [k for k in seen if len(k.work_s) > 2 and sum(k.work_s) > 0]
    ratios = [float(np.std(k.work_s, ddof=1) / np.mean(k.work_s)) for k in known]
    return float(np.median(ratios)) if len(ratios) > 2 else _TYPICAL_SPREAD


def _bytes(kind: _Class) -> int:
    return kind.candidates[0].size or 1 if kind.candidates else 0
