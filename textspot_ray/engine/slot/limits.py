"""What limits a slot: images, bytes, deaths, and every deadline."""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from textspot_ray.config import RunConfig
from textspot_ray.records import DetectedPage, Item, Readings, Stage
from textspot_ray.sources.kinds import is_ordered


@dataclass(frozen=True, slots=True)
class Limits:
    """What limits a slot.

    The fields are those of `EngineConfig`, except that the budget of bytes in flight is divided:
    half for features, three sixteenths for encoded images until they are done, one sixteenth for
    reads requested ahead, and a quarter for the rest of reading: the largest single image, and a
    page of the table it comes from. Pixels and features inside a detector may take a third of the
    memory at which it is replaced; the models come on top.
    """

    in_flight: int = 3
    max_encoded_bytes: int = 96 * 2**20
    max_ahead_bytes: int = 32 * 2**20
    max_feature_bytes: int = 256 * 2**20
    max_detect_bytes: int = 2**30
    max_uss_bytes: int = 3 * 2**30
    max_pages: int = 10_000
    min_deadline_s: float = 60.0
    start_timeout_s: float = 120.0
    max_deaths: int = 5


def limits_from(config: RunConfig, streams: int = 1) -> Limits:
    """The limits that a configuration sets, for a detector with this many streams."""
    engine = config.engine
    sixteenth = engine.max_bytes_in_flight // 16
    return Limits(
        in_flight=max(engine.in_flight, streams + 2),  # decoding, inferring, reading
        max_encoded_bytes=3 * sixteenth,
        max_ahead_bytes=sixteenth,
        max_feature_bytes=8 * sixteenth,
        max_detect_bytes=engine.actor_max_uss_bytes // 3,
        max_uss_bytes=engine.actor_max_uss_bytes,
        max_pages=config.image.max_pages,
        min_deadline_s=engine.min_deadline_s,
        start_timeout_s=engine.start_timeout_s,
        max_deaths=engine.max_deaths,
    )


# All time-outs, each shorter than the next one, which waits for it: a request to storage
# (`sources.reader`: 60 s of silence, tried 4 times) < an item < a step of a slot.
_ITEM: Final = 5.0  # times the deadline of a stage
_STREAMED_ITEM: Final = 60.0
_SILENCE_S: Final = 300.0
_SILENCE: Final = 5.0


def read_deadline_s(item: Item, min_deadline_s: float) -> float:
    """How long one item may take to arrive.

    Storage has its own time-outs and retries, which need time to finish. A compressed tar may have
    to be streamed for a long time before the first wanted member arrives.
    """
    return (_STREAMED_ITEM if is_ordered(item.container) else _ITEM) * min_deadline_s


def step_deadline_s(min_deadline_s: float) -> float:
    """How long a remote slot may take for a step, storage's retries included."""
    return max(_SILENCE_S, _SILENCE * min_deadline_s)


FACTOR: Final = 20.0  # times the median; see DESIGN.md, "Failure policy"
_WINDOW: Final = 101
_REFRESH: Final = 16  # answers between two looks at the median


@dataclass(slots=True)
class _Record:
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    fresh: int = 0
    median_s: float = 0.0


class Deadlines:
    """How long a call may take: max(``min_deadline_s``, 20 x median x weight).

    A call's weight is how much work it is: the passes of a tiled image, the words of a page. The
    median is of the time per unit of weight.
    """

    def __init__(self, min_deadline_s: float) -> None:
        self._min_deadline_s = min_deadline_s
        self._records = {Stage.DETECT: _Record(), Stage.RECOGNISE: _Record()}

    def note(self, stage: Stage, seconds: float, weight: float = 1.0) -> None:
        """Add an answer's latency, from submission, so that queueing counts too.

        Args:
            stage: Which.
            seconds: From submission to answer.
            weight: Of the work: passes of the detector, words of a page.
        """
        record = self._records[stage]
        record.times.append(seconds / max(weight, 1.0))
        record.fresh += 1
        if record.fresh >= _REFRESH or len(record.times) < _REFRESH:
            record.fresh = 0
            record.median_s = statistics.median(record.times)

    def limit_s(self, stage: Stage, weight: float = 1.0) -> float:
        """Seconds after which a call of that weight counts as stalled."""
        expected_s = self._records[stage].median_s * max(weight, 1.0)
        return max(self._min_deadline_s, FACTOR * expected_s)


def weight_of(answer: DetectedPage | Readings) -> float:
    """How much work an answer was: the detector's passes, or the words read."""
    if isinstance(answer, Readings):
        return len(answer.readings)
    return answer.info.tiles if answer.info is not None else 1.0


MAX_STRETCH: Final = 5.0  # times its deadline: the most a call may take on a busy machine
_REFRESH_S: Final = 0.25


def run_delays_s(pid: int) -> dict[int, float]:
    """Seconds each thread of a process has waited for a core; empty where that is not known."""
    delays: dict[int, float] = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                delays[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):
                continue  # the thread has ended, or the kernel keeps no such count
    except OSError:
        return {}
    return delays


@dataclass(slots=True)
class Starving:
    """How much of its time a process has waited for a core, measured since `begin`."""

    pid: int
    since_s: float
    delays_s: dict[int, float]
    _share: float = field(default=0.0, init=False)
    _looked_at_s: float = field(default=float("-inf"), init=False)

    @classmethod
    def begin(cls, pid: int) -> Starving:
        """Begin to measure."""
        return cls(pid, time.monotonic(), run_delays_s(pid))

    @property
    def age_s(self) -> float:
        """Seconds since the measurement began."""
        return time.monotonic() - self.since_s

    def share(self) -> float:
        """Share of that time that its most delayed thread waited, 0 to 1."""
        now = time.monotonic()
        if now - self._looked_at_s >= _REFRESH_S:
            self._looked_at_s = now
            self._share = self._look(now - self.since_s)
        return self._share

    def _look(self, passed_s: float) -> float:
        waited_s = [
            delay_s - self.delays_s[thread]
            for thread, delay_s in run_delays_s(self.pid).items()
            if thread in self.delays_s
        ]
        if passed_s <= 0.0 or not waited_s:
            return 0.0
        return min(1.0, max(0.0, *waited_s) / passed_s)


def allowed_s(limit_s: float, share: float) -> float:
    """The deadline of a process that spends a share of its time waiting for a core.

    >>> allowed_s(60.0, 0.0), allowed_s(60.0, 0.5), allowed_s(60.0, 1.0)
    (60.0, 120.0, 300.0)
    """
    return limit_s * min(MAX_STRETCH, 1.0 / max(1.0 - share, 1e-9))
