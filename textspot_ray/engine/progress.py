"""Progress of a run: sums over its slots, and how they are shown."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from textspot_ray.engine.slot.done_pages import LongFile
from textspot_ray.engine.slot.events import tell
from textspot_ray.engine.slot.process_setup import MemoryGauge
from textspot_ray.engine.slot.slot import Report
from textspot_ray.engine.slot.slot_metrics import SlotMetrics
from textspot_ray.records import Counts

_RATE_WINDOW_S: Final = 60.0
_WAITING_S: Final = 10.0  # without a slot, before it is shown
_SLOWEST_S: Final = 60.0  # between plain lines


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Images include those of shards that are not committed yet.

    Attributes:
        items_planned: Items planned so far, those of earlier runs included.
        items_done: Items finished, those of earlier runs included.
        images: Images (pages) finished by this run, those done ahead for a long file included.
        words: Words found by this run.
        failed: Images failed in this run.
        shards_done: Shards committed by this run.
        images_per_s: Over the last minute.
        eta_s: Seconds to go at the rate of items; None while it is not known.
        elapsed_s: Seconds since the run began.
        planning: Whether sources are still being listed.
        final: Whether this is the last report.
        waiting_s: Seconds without a working slot; 0 while there is one.
        open_items: Items done in shards that are not committed yet.
        failures: Failed images of this run by kind.
        slots: Slots that work, by node.
        stage_s, waiting, memory_bytes, retries: As in `SlotMetrics`, of all slots: sums, with the
            seconds and retries of slots that are gone; of memory, the largest process of a kind.
    """

    items_planned: int
    items_done: int
    images: int
    words: int
    failed: int
    shards_done: int
    images_per_s: float
    eta_s: float | None
    elapsed_s: float
    planning: bool = False
    final: bool = False
    waiting_s: float = 0.0
    open_items: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    stage_s: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


class Tally:
    """Adds up what slots report."""

    def __init__(self, items_before: int) -> None:
        self._items_earlier = items_before
        self._items_skipped = 0
        self._began_s = time.monotonic()
        self._worked_s = self._began_s  # when a slot was last there
        self._reports: dict[int, Report] = {}  # the newest of each slot
        self._helped: set[LongFile] = set()  # blocks of long files that other slots have done
        self._rates: list[tuple[float, int, int]] = []  # time, images, items
        self._stage_s: dict[str, float] = {}  # of slots that are gone
        self._retries: dict[str, float] = {}  # likewise, and what no slot knows of
        self.items_planned = items_before
        self._gauge = MemoryGauge(interval_s=5.0)
        self.counts = Counts()
        self.shards = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began_s

    def add(self, slot: int, report: Report) -> None:
        """Take a slot's report."""
        for settled in report.settled:
            if settled.record is not None:
                self.counts += settled.counts
                self.shards += 1
        self._reports[slot] = report
        self._helped.update(report.helped)

    def begin_again(self, items: int) -> None:
        """Items of earlier runs are read again, and are not done until then."""
        self._items_earlier = max(0, self._items_earlier - items)

    def add_others(self, items: int) -> None:
        """Another driver has finished a task with this many items."""
        self._items_skipped += items

    def forget(self, slot: int) -> None:
        """A slot is gone, with everything it had not committed."""
        gone = self._reports.pop(slot, None)
        if gone is not None:
            self._stage_s = _sum(self._stage_s, gone.metrics.stage_s)
            self._retries = _sum(self._retries, gone.metrics.retries)

    def count_retries(self, shards: int) -> None:
        """Shards are begun again on another slot."""
        self._retries = _sum(self._retries, {"shard": shards})

    def progress(self, *, planning: bool = False, final: bool = False) -> Progress:
        """The sums now."""
        metrics = [report.metrics for report in self._reports.values()]
        counts = sum((report.open_counts for report in self._reports.values()), self.counts)
        images_done = counts.images + self._pages_ahead()
        now = time.monotonic()
        if metrics:
            self._worked_s = now
        self._rates = [r for r in self._rates if now - r[0] <= _RATE_WINDOW_S]
        self._rates.append((now, images_done, counts.items))
        since, images, items = self._rates[0]
        rate = (images_done - images) / (now - since) if now > since else 0.0
        items_rate = (counts.items - items) / (now - since) if now > since else 0.0
        if final:
            rate = counts.images / max(self.elapsed_s, 1e-9)
        done = self._items_earlier + self._items_skipped + counts.items
        left = max(self.items_planned - done, 0)
        return Progress(
            items_planned=max(self.items_planned, done),
            items_done=done,
            images=images_done,
            words=counts.words,
            failed=counts.failed,
            shards_done=self.shards,
            images_per_s=rate,
            eta_s=left / items_rate if items_rate > 0 and not planning else None,
            elapsed_s=self.elapsed_s,
            planning=planning,
            final=final,
            open_items=counts.items - self.counts.items,
            failures=counts.failures,
            waiting_s=now - self._worked_s,
            slots=Counter(m.node for m in metrics),
            stage_s=_sum(self._stage_s, *(m.stage_s for m in metrics)),
            waiting=_sum(*(m.waiting for m in metrics)),
            memory_bytes=self._memory_bytes(metrics),
            retries=_sum(self._retries, *(m.retries for m in metrics)),
        )

    def _memory_bytes(self, metrics: Iterable[SlotMetrics]) -> dict[str, int]:
        largest = {"driver": self._gauge.uss_bytes()}
        for part, size in (pair for m in metrics for pair in m.memory_bytes.items()):
            largest[part] = max(size, largest.get(part, 0))
        return largest

    def _pages_ahead(self) -> int:
        """Pages of long files done by helpers that the files' own slots have not counted yet."""
        files = {file.key: file for r in self._reports.values() for file in r.long_files}
        self._helped = {block for block in self._helped if block.key in files}
        ahead = [block for block in self._helped if block.start >= files[block.key].start]
        return sum(min(block.stop, files[block.key].stop) - block.start for block in ahead)


def _sum(*parts: Mapping[str, float]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(int)
    for name, value in (pair for part in parts for pair in part.items()):
        total[name] += value
    return dict(total)


def console(
    interval_s: float = 2.0, stream: IO[str] | None = None, log_format: str = "text"
) -> OnProgress:
    """A bar in a terminal that can move its cursor; anywhere else a line now and then.

    Lines get rarer, down to one a minute, and stop while nothing changes, so that logs of long runs
    stay readable.

    Args:
        interval_s: Seconds to the first line.
        stream: Instead of the standard error.
        log_format: ``text``, or ``json`` for one object per line, on terminals as well.
    """
    stream = stream or sys.stderr
    moves = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return (
        _Bar(stream) if moves and log_format == "text" else _Lines(interval_s, stream, log_format)
    )


def line(progress: Progress) -> str:
    """One line of progress."""
    return (
        f"{_done(progress)}  "
        f"{progress.images_per_s:.1f} images/s  {progress.words} words  "
        f"{progress.failed} failed  {_eta(progress)}"
    )


def _done(progress: Progress) -> str:
    """Items, called images as long as each has one page."""
    known = "+" if progress.planning else ""
    several = progress.images > progress.items_done
    pages = f" files, {progress.images:,} pages" if several else " images"
    return f"{progress.items_done:,}/{progress.items_planned:,}{known}{pages}"


def _eta(progress: Progress) -> str:
    if progress.final:
        return f"{_duration(progress.elapsed_s)} in all"
    if progress.waiting_s > _WAITING_S:
        return f"waiting for workers since {_duration(progress.waiting_s)}"
    return "ETA " + ("?" if progress.eta_s is None else _duration(progress.eta_s))


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    return f"{h}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class _Lines:
    def __init__(self, interval_s: float, stream: IO[str], log_format: str) -> None:
        self._interval_s = interval_s
        self._stream = stream
        self._log_format = log_format
        self._last_s = time.monotonic()
        self._shown: tuple[object, ...] = (0, 0, False)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        since_s = now - self._last_s
        state = (progress.items_done, progress.images, progress.waiting_s > _WAITING_S)
        due = since_s >= self._interval_s and state != self._shown
        if not (progress.final or due or since_s >= max(self._interval_s, _SLOWEST_S)):
            return
        self._last_s, self._shown = now, state
        self._interval_s = max(self._interval_s, min(1.5 * self._interval_s, _SLOWEST_S))
        eta_s = progress.eta_s
        tell(
            line(progress),
            self._log_format,
            self._stream,
            items_done=progress.items_done,
            items_planned=progress.items_planned,
            images=progress.images,
            words=progress.words,
            failed=progress.failed,
            images_per_s=round(progress.images_per_s, 2),
            eta_s=None if eta_s is None else round(eta_s, 1),
        )


class _Bar:
    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        shown = Console(file=stream)
        # a run that is killed must not leave the terminal without its cursor
        shown.show_cursor = lambda show=True: False  # type: ignore[method-assign]
        columns = [TextColumn(f"{{task.fields[{name}]}}") for name in _PARTS]
        self._bars = Bars(BarColumn(bar_width=24), *columns, console=shown, auto_refresh=False)
        fields: dict[str, Any] = dict.fromkeys(_PARTS, "")
        self._task = self._bars.add_task("", total=None, **fields)
        self._bars.start()
        atexit.register(self._bars.stop)  # a run that fails ends without a last report

    def __call__(self, progress: Progress) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not end a run
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        failed = f"{progress.failed:,} failed"
        self._bars.update(
            self._task,
            total=max(progress.items_planned, 1),
            completed=progress.items_done,
            done=_done(progress),
            rate=f"{progress.images_per_s:.1f} images/s",
            words=f"{progress.words:,} words",
            failed=f"[red]{failed}[/red]" if progress.failed else failed,
            left=_eta(progress),
        )
        self._bars.refresh()
        if progress.final:
            self._bars.stop()
            atexit.unregister(self._bars.stop)


_PARTS: Final = ("done", "rate", "words", "failed", "left")
