"""How long a run will take: a sample of its items is processed as in a slot, and scaled up.

Items take very different times (a page of small print some fifty times a street photo), so they are
divided into strata by container and size in bytes, and the next one is drawn from the stratum where
it narrows the interval most (Neyman's allocation; Cochran, Sampling Techniques, 1977, section 5.5).
Rows of tables have no size before they are read: they are one stratum, of which many are read for
their size and some processed, and seconds a byte are scaled up (the ratio estimate with double
sampling; Cochran, sections 6.2 and 12.8).
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
Key: TypeAlias = tuple[str, int]  # container, and the logarithm of the size
_UNSIZED = -1
_KEPT = 64  # candidates of a stratum
_KEPT_UNSIZED = 512  # of one that is estimated by bytes
_SIZING_S = 5.0  # for reading them
_T_90 = 1.7  # Student's t for an interval of 90 % with some twenty observations
# How far a run differs for other reasons than sampling: of five mixed archives it took 0.94 to 1.10
# of the middle in three, 1.03 in one of large photos. A Parquet table of 120 photos and pages took
# 0.77 to 1.15 in three draws of 30 s of CPU time, 0.90 and 1.03 in two of 60 s, which is what two
# cores have.
_MACHINE = 0.25
_NARROW = 0.08  # a sampling error small enough to stop
_LEAST_SPOTTED = 8
_LEAST_UNSIZED = 64  # for a few pages among photos to be met
_TYPICAL_SPREAD = 1.0  # standard deviation by mean where a stratum has one observation
_READ_AHEAD = 2  # items that are being read while others are spotted
# Start of processes, models, Ray. Local: 93 photos took 15.3 s, of which 13 s were work; Ray:
# README's demo of 12 images reports 7.6 s, of which some 1 s is work, after 1.5 s of imports (two
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
class _Stratum:
    """How many items a stratum has, some of them, and what was measured.

    Attributes:
        items: How many there are.
        candidates: Some of them that may be processed.
        sizes: Bytes of candidates, where they were read for it.
        work_s: Seconds of those that were processed.
        work_bytes: Their bytes.
        passes: Detector passes of those that could be read.
    """

    items: int = 0
    candidates: list[Item] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)
    work_bytes: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)

    def mean_s(self) -> float:
        """Seconds an item; by its bytes where many are known."""
        if not self._by_bytes():
            return sum(self.work_s) / len(self.work_s)
        return sum(self.work_s) / sum(self.work_bytes) * float(np.mean(self.sizes))

    def gain(self, spread: float) -> float:
        """By how much the variance of the sum falls with one more observation."""
        n = len(self.work_s)
        if not self.candidates or n >= self.items:
            return 0.0
        if not n:
            return math.inf
        return (self.items * self.deviation(spread)) ** 2 / (n * (n + 1))

    def deviation(self, spread: float) -> float:
        """Standard deviation of an item's work, s; ``spread`` times the mean if unknown."""
        if len(self.work_s) < 3:
            return spread * self.mean_s()
        if not self._by_bytes():
            return float(np.std(self.work_s, ddof=1))
        s_a_byte = sum(self.work_s) / sum(self.work_bytes)
        off = np.subtract(self.work_s, s_a_byte * np.array(self.work_bytes))
        return math.sqrt(float(off @ off) / (len(off) - 1))

    def variance(self, spread: float) -> float:
        """Of the estimated sum of the stratum, s^2."""
        n = len(self.work_s)
        left = 1 - n / self.items
        of_work = self.deviation(spread) ** 2 / n * max(0.0, left)
        of_sizes = 0.0
        if self._by_bytes():
            m = len(self.sizes)
            s_a_byte = sum(self.work_s) / sum(self.work_bytes)
            of_sizes = s_a_byte**2 * float(np.var(self.sizes)) / m * max(0.0, 1 - m / self.items)
        return self.items**2 * (of_work + of_sizes)

    def _by_bytes(self) -> bool:
        return len(self.sizes) > len(self.work_s) and sum(self.work_bytes) > 0


class Sample:
    """Counts listed items, and keeps some of each stratum."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._strata: dict[Key, _Stratum] = {}
        self.items = 0

    def add(self, item: Item) -> None:
        """Add an item; which ones are kept is decided by reservoir sampling."""
        size = _UNSIZED if item.size is None else int(2 * math.log2(max(1, item.size)))
        stratum = self._strata.setdefault((item.container, size), _Stratum())
        self.items += 1
        stratum.items += 1
        most = _KEPT_UNSIZED if item.size is None else _KEPT
        if len(stratum.candidates) < most:
            stratum.candidates.append(item)
        elif (at := self._random.randrange(stratum.items)) < most:
            stratum.candidates[at] = item

    def estimate(
        self, config: RunConfig, items: int, most: int = 512, seconds: float = 30.0
    ) -> Estimate | None:
        """Process some of the items and scale up.

        Args:
            config: Of the run.
            items: How many items the run will spot.
            most: Most items to process.
            seconds: Time after which no more are begun, not counting that for sizes of rows.

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
        for stratum in self._strata.values():
            self._random.shuffle(stratum.candidates)
        with Reader(config.source, config.image) as reader:
            for (container, size), stratum in self._strata.items():
                # web addresses have none either, but each may be that of a silent server
                if size == _UNSIZED and container != "file":
                    stratum.sizes = _sizes(reader, stratum.candidates)
            work = _Work(spot, reader, self._strata, threads.detect_calls)
            speed, failed = work.run(most, seconds, self._narrow)
        seen = self._seen()
        if not any(stratum.passes for stratum in seen):
            return None
        total, error = self._total()
        run_s = total * speed / slots * items / self.items
        start_s = START_S[config.engine.kind]
        off = math.sqrt((_T_90 * error / total) ** 2 + _MACHINE**2) if total else 0.0
        covered = sum(stratum.items for stratum in seen)
        passes = sum(k.items * float(np.mean(k.passes or [0])) for k in seen) / covered
        return Estimate(
            low_s=start_s / _START_SPREAD + run_s / (1 + off),
            high_s=start_s * _START_SPREAD + run_s * (1 + off),
            spotted=sum(len(stratum.work_s) for stratum in seen) - failed,
            item_s=run_s / items,
            passes=passes,
            failed=failed,
        )

    def _seen(self) -> list[_Stratum]:
        return [stratum for stratum in self._strata.values() if stratum.work_s]

    def _total(self) -> tuple[float, float]:
        """Work of all items and its standard error, s."""
        seen = self._seen()
        spread = _spread(seen)
        work = sum(k.items * k.mean_s() for k in seen)
        share = self.items / sum(k.items for k in seen)  # adds strata without an observation
        error = math.sqrt(sum(k.variance(spread) for k in seen))
        return work * share, error * share + work * (share - 1)

    def _narrow(self) -> bool:
        seen = self._seen()
        if len(seen) < len(self._strata) or sum(len(k.work_s) for k in seen) < _LEAST_SPOTTED:
            return False
        for (_, size), stratum in self._strata.items():
            if size == _UNSIZED and len(stratum.work_s) < _LEAST_UNSIZED:
                return False
        total, error = self._total()
        return _T_90 * error < _NARROW * total


def _sizes(reader: Reader, items: list[Item]) -> list[int]:
    """Bytes of as many items as can be read in a few seconds, 0 of those that cannot.

    Rows are cheap in rising order, so they are read in draws that are sorted each; of a draw that
    takes too long nothing is taken, for what was read of it are low rows alone.
    """
    until_s = time.perf_counter() + _SIZING_S
    sizes: list[int] = []
    for at in range(0, len(items), _KEPT):
        drawn: list[int] = []
        for encoded in reader.read(sorted(items[at : at + _KEPT], key=_place)):
            drawn.append(len(encoded.data or b""))
            if time.perf_counter() > until_s:
                return sizes
        sizes += drawn
    return sizes


def _place(item: Item) -> tuple[str, int, str]:
    """Where an item is, so that rows of a table come in rising order."""
    member = item.member or ""
    return item.source, len(member), member


def _loaded(settings: SpotterSettings, recognizer_threads: int) -> Spot:
    """Detector and recogniser with a slot's threads, warmed up."""
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
    """When an item was processed, s, its bytes, pages, and the passes of one; 0 if it failed."""

    began_s: float = 0.0
    ended_s: float = 0.0
    size: int = 0
    pages: int = 1
    passes: int = 0


class _Work:
    """Processes items as a slot does: as many at a time as it has calls in flight.

    Others are read meanwhile. The first one is processed once before the clock starts, because some
    parts compile only with the first words.
    """

    def __init__(self, spot: Spot, reader: Reader, strata: dict[Key, _Stratum], calls: int) -> None:
        self._spot_page = spot
        self._reader = reader
        self._strata = strata
        self._calls = calls
        self._turns = threading.Semaphore(calls)
        self._failed = 0

    def run(self, most: int, seconds: float, enough: Callable[[], bool]) -> tuple[float, int]:
        """Wall-clock seconds per second of work, and how many items failed."""
        began = time.perf_counter()
        running: dict[Future[_Spotted], _Stratum] = {}
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
                    stratum, item = picked
                    running[pool.submit(self._spot, item)] = stratum
                    begun += 1
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    stratum, turn = running.pop(future), future.result()
                    stratum.work_s.append((turn.ended_s - turn.began_s) * turn.pages)
                    stratum.work_bytes.append(turn.size)
                    turns.append(turn)
                    if turn.passes:
                        stratum.passes.append(turn.passes)
                    else:
                        self._failed += 1
        return _speed(turns), self._failed

    def _choose(self) -> Iterator[tuple[_Stratum, Item]]:
        while True:
            spread = _spread(self._strata.values())
            # Among strata without an observation, the one with the most bytes comes first.
            best = max(
                self._strata.values(),
                key=lambda stratum: (stratum.gain(spread), stratum.items * _bytes(stratum)),
            )
            if not best.gain(spread):
                return
            yield best, best.candidates.pop()

    def _spot(self, item: Item) -> _Spotted:
        """Read and process an item; pages of a file are assumed to cost as much as its first."""
        encoded = next(iter(self._reader.read([item])))
        if encoded.data is None:
            return _Spotted()
        with self._turns:
            began_s = time.perf_counter()
            info = self._spot_page(encoded.data)
            ended_s = time.perf_counter()
        size = len(encoded.data)
        if info is None:
            return _Spotted(began_s, ended_s, size)
        return _Spotted(began_s, ended_s, size, info.pages, info.tiles)


def _speed(turns: list[_Spotted]) -> float:
    """Wall-clock seconds per second of work, while all calls had work.

    At the end some are idle, which they are not in a long run; waiting for reads is not work.
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


def _spread(strata: Iterable[_Stratum]) -> float:
    """Median of deviation / mean over strata with several observations, or a typical value."""
    known = [k for k in strata if len(k.work_s) > 2 and sum(k.work_s) > 0]
    ratios = [float(np.std(k.work_s, ddof=1) / np.mean(k.work_s)) for k in known]
    return float(np.median(ratios)) if len(ratios) > 2 else _TYPICAL_SPREAD


def _bytes(stratum: _Stratum) -> int:
    return stratum.candidates[0].size or 1 if stratum.candidates else 0
