"""The runner of one slot: reads ahead, keeps images in flight, and writes the results.

It is the same on every engine: workers, reader and writers are passed in. Everything that happens
(an item was read, a worker answered or died, a commit ended) is an event on one queue, which `pump`
handles in one thread; every wait has a limit.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from textspot_ray.engine.slot.done_pages import BLOCK_PAGES, LongFile
from textspot_ray.engine.slot.events import SlotEvent
from textspot_ray.engine.slot.failure_policy import FailurePolicy
from textspot_ray.engine.slot.flow import Flow
from textspot_ray.engine.slot.limits import Deadlines, Limits, read_deadline_s, weight_of
from textspot_ray.engine.slot.open_shards import (
    OpenShard,
    OpenShards,
    PageTask,
    ShardOutcome,
    as_fault,
)
from textspot_ray.engine.slot.ports import (
    Answered,
    Committed,
    Died,
    Event,
    Events,
    ItemRead,
    PageWork,
    Raised,
    ReaderFailed,
    Refused,
    Started,
    Worker,
    blank_png,
)
from textspot_ray.engine.slot.read_ahead import ReadAhead
from textspot_ray.engine.slot.slot_metrics import SlotMetrics
from textspot_ray.engine.slot.worker_pool import State, WorkerHandle, WorkerPool
from textspot_ray.records import (
    TIMED_STAGES,
    Counts,
    DetectedPage,
    Encoded,
    ErrorKind,
    ImageError,
    ImageResult,
    Readings,
    Shard,
    Stage,
)
from textspot_ray.redaction import redact_text

if TYPE_CHECKING:
    from textspot_ray.engine.slot.done_pages import DonePages
    from textspot_ray.tables.commit.writer import ShardWriter

_LOG = logging.getLogger(__name__)
_RECYCLES_TOLD: Final = 3  # every third one of a worker is reported
_PROBE: Final = 0  # ticket of the blank image
_MAX_OPEN_SHARDS: Final = 4  # being read, ending, being committed; the first are small
_TICK_S: Final = 0.5  # longest wait between two looks at the deadlines

Assemble = Callable[[Encoded, int, DetectedPage, Readings | None], ImageResult]


class ShardRunner:
    """Runs shards through a slot's workers; driven by calls of `pump` from one thread.

    Args:
        workers: Of the slot.
        read_ahead: Where bytes come from.
        events: What all of them post into.
        assemble: Makes a page's result.
        limits: Of time and memory.
        weigh: Estimates how much work an encoded image is for the detector.
        redact: Removes secrets from messages.
    """

    def __init__(
        self,
        workers: list[Worker],
        read_ahead: ReadAhead,
        events: Events,
        assemble: Assemble,
        limits: Limits,
        weigh: Callable[[bytes], PageWork] = lambda data: PageWork(),
        redact: Callable[[str], str] = redact_text,
    ) -> None:
        self._redact = redact
        self._workers = WorkerPool(workers)
        self._read_ahead = read_ahead
        self._events = events
        self._assemble = assemble
        self._limits = limits
        self._deadlines = Deadlines(limits.min_deadline_s)
        self._policy = FailurePolicy(limits.max_deaths)
        self._flow = Flow(self._workers, limits, weigh)
        self._tickets = itertools.count(_PROBE + 1)
        self._open = OpenShards(events, read_ahead.release)
        self._settled: list[ShardOutcome] = []
        self._helped: list[LongFile] = []
        self._stage_s = dict.fromkeys(TIMED_STAGES, 0.0)
        self._image_retries = 0
        self._draining = False

    # Used by the slot.

    @property
    def wants_shard(self) -> bool:
        """Whether another shard should be offered now, so that workers never wait for one."""
        if self._draining or len(self._open) >= _MAX_OPEN_SHARDS:
            return False
        return self._open.unread + self._flow.waiting < 4 * self._flow.window

    @property
    def idle(self) -> bool:
        """Whether no shard is open."""
        return not len(self._open)

    @property
    def open_counts(self) -> Counts:
        """Counts of finished work in shards that are not committed."""
        return self._open.counts

    @property
    def long_files(self) -> tuple[LongFile, ...]:
        """Pages not begun yet, of files that other slots can help with."""
        return tuple(
            _pages_of(task, task.page, task.stop)
            for task in self._flow.ready
            if task.stop is not None
            and task.encoded.sha256 is not None
            and task.shard.writer is not None
            and task.shard.keeps_pages(task.index)
        )

    @property
    def metrics(self) -> SlotMetrics:
        """What waits and what was repeated; the slot adds its node and own memory."""
        flow = self._flow
        return SlotMetrics(
            stage_s=dict(self._stage_s),
            waiting={
                "read": self._open.unread,
                "detect": flow.waiting + len(self._policy.suspects),
                "detecting": flow.detecting,
                "recognise": flow.recognising,
                "commit": self._open.committing,
            },
            memory_bytes=self._workers.memory_bytes,
            retries={"image": self._image_retries, "storage": self._read_ahead.retries},
        )

    def take_slot_events(self) -> tuple[SlotEvent, ...]:
        """What went wrong since the last call."""
        return self._policy.take_slot_events()

    def take_helped(self) -> tuple[LongFile, ...]:
        """Blocks done for other slots since the last call."""
        helped, self._helped = self._helped, []
        return tuple(helped)

    def start(self) -> None:
        """Start the workers, before the first shard comes."""
        for handle in self._workers.handles:
            if handle.state is State.DOWN:
                handle.start()

    def offer(self, shard: Shard, writer: ShardWriter, pages: DonePages | None = None) -> None:
        """Take a shard.

        Args:
            shard: The shard.
            writer: Takes its results.
            pages: Keeps finished pages of its long files.
        """
        opened = self._open.add(shard, writer, pages)
        self._read_ahead.add(opened.key, shard)
        self._open.commit_if_complete(opened)  # it may have no items

    def help(self, shard: Shard, pages: DonePages, requested: range) -> None:
        """Do pages of a long file whose shard another slot owns.

        Args:
            shard: With that file alone.
            pages: Stores finished pages.
            requested: The pages, whole blocks.
        """
        opened = self._open.helped(shard)
        if opened is None:
            opened = self._open.add(shard, None, pages)
            self._read_ahead.add(opened.key, shard)
        opened.requested.append(requested)
        self._begin_requested(opened)

    def pump(self, timeout_s: float, *, more: bool = True) -> list[ShardOutcome]:
        """Work until shards are settled, another one is wanted, or the time is up.

        Args:
            timeout_s: Longest time to work; 0 for one turn.
            more: Whether the caller has another shard to give if one is wanted.

        Raises:
            AbortedError: Workers keep dying, or storage keeps stalling.
            TextspotError: The models cannot be loaded, or a commit failed.
        """
        end = time.monotonic() + timeout_s
        while True:
            self._watch()
            self._begin_pages()
            self._flow.dispatch(self._policy.suspects)
            left = end - time.monotonic()
            if self._settled or left <= 0 or (more and self.wants_shard):
                break
            if self._draining and self.idle:
                break
            self._await_events(min(left, _TICK_S))
        settled, self._settled = self._settled, []
        return settled

    def drain(self) -> None:
        """Start no more images; shards that are complete once those in flight end are committed."""
        self._draining = True
        self._read_ahead.clear()
        self._open.drop_unstarted(task.shard.key for task in self._flow.ready)
        self._flow.ready.clear()

    def close(self) -> None:
        """Kill the workers and drop what is not committed."""
        self._read_ahead.clear()
        self._workers.stop()
        self._open.close()

    # One turn.

    def _watch(self) -> None:
        for handle in self._workers.handles:
            reason = handle.overdue(self._deadlines, self._limits.start_timeout_s)
            if reason is not None:
                self._on_end(handle, reason, ErrorKind.STALLED, blame=True)
            if handle.may_recycle and not self._flow.holds_features:
                self._recycle(handle)
            if handle.state is State.DOWN and not (self._draining and self.idle):
                handle.start()
        awaited = self._read_ahead.awaited
        if awaited is None:
            return
        limit_s = read_deadline_s(awaited.item, self._limits.min_deadline_s)
        if time.monotonic() - awaited.since_s > limit_s:
            stuck = self._read_ahead.abandon()
            if stuck is not None:
                error = self._policy.read_stalled(stuck.item, limit_s)
                self._on_no_data(stuck.shard_key, stuck.index, Encoded(stuck.item, None, error))

    def _recycle(self, handle: WorkerHandle) -> None:
        """Replace a process that has grown too large; reported only if it keeps happening."""
        handle.times_recycled += 1
        grown = f"{handle.name} recycled: it had grown over the memory limit"
        if handle.times_recycled % _RECYCLES_TOLD:
            _LOG.info("%s", grown)
        else:
            self._policy.record(f"{grown}, {handle.times_recycled} times by now")
        handle.stop()

    def _await_events(self, timeout_s: float) -> None:
        try:
            self._handle(self._events.get(timeout=timeout_s))
            while True:
                self._handle(self._events.get_nowait())
        except queue.Empty:
            return

    def _handle(self, event: Event) -> None:
        match event:
            case ItemRead():
                self._on_read(event)
            case ReaderFailed(epoch, error):
                if epoch == self._read_ahead.epoch:
                    raise as_fault(error, "the reader failed")
            case Committed():
                self._settled.append(self._open.committed(event))
            case _:
                handle = self._workers.find(event.worker, event.generation)
                if handle is not None and handle.state is not State.DOWN:
                    self._on_worker(handle, event)

    def _on_worker(self, handle: WorkerHandle, event: Event) -> None:
        match event:
            case Started():
                self._on_started(handle)
            case Refused(_, _, error):
                raise error
            case Answered():
                self._on_answered(handle, event)
            case Raised():
                self._on_raised(handle, event)
            case Died(_, _, reason, system):
                self._on_end(handle, reason, ErrorKind.CRASHED, blame=not system)

    # Handlers of events.

    def _on_read(self, event: ItemRead) -> None:
        self._policy.read()
        shard = self._open.find(event.shard_key)
        if event.encoded.data is None or shard is None:
            self._read_ahead.decoded()
            self._on_no_data(event.shard_key, event.index, event.encoded)
            return
        shard.read(event.index, event.encoded)
        if shard.writer is None:
            self._read_ahead.decoded()
            self._begin_requested(shard)
            return
        self._flow.ready.append(PageTask(next(self._tickets), shard, event.index, 0, event.encoded))

    def _on_no_data(self, shard_key: int, index: int, encoded: Encoded) -> None:
        shard = self._open.find(shard_key)
        if shard is None:
            return
        if shard.writer is None:  # the slot that owns the shard reports it
            self._open.drop(shard)
            return
        shard.read(index, encoded)
        shard.set_pages(index, 1)
        error = encoded.error or ImageError(Stage.READ, ErrorKind.INTERNAL, "the reader gave none")
        task = PageTask(next(self._tickets), shard, index, 0, encoded)
        self._finish(task, task.failed(error))

    def _on_started(self, handle: WorkerHandle) -> None:
        if not self._policy.wants_probe:
            handle.state = State.READY
            return
        handle.state = State.PROBING
        handle.since_s = time.monotonic()
        if Stage.DETECT in handle.worker.stages:
            handle.worker.detect([(_PROBE, blank_png(), 0)])
        else:
            handle.worker.recognise([(_PROBE, None)])

    def _on_answered(self, handle: WorkerHandle, event: Answered) -> None:
        if event.ticket == _PROBE:
            self._policy.probed()
            handle.state = State.READY
            return
        call = handle.close(event.ticket, event.uss_bytes, self._limits.max_uss_bytes)
        task = self._flow.find(event.ticket)
        if call is None or task is None:
            return
        self._deadlines.note(call.stage, time.monotonic() - call.since_s, weight_of(event.value))
        if isinstance(event.value, DetectedPage):
            handle.note_pace(event.value.decode_s + event.value.detect_s)
            self._on_detected(task, event.value, event.features)
        else:
            assert task.detected is not None
            handle.note_pace(event.value.recognise_s)
            self._finish(task, self._account(task, task.detected, event.value))

    def _on_detected(self, task: PageTask, detected: DetectedPage, features: Any) -> None:
        if not task.shard.pages_known(task.index):
            self._plan_pages(task, detected.info.pages if detected.info else 1)
        if detected.error is not None or not detected.detections:
            self._finish(task, self._account(task, detected, None))
            return
        self._flow.detected(task, detected, features)

    def _plan_pages(self, first: PageTask, pages: int) -> None:
        shard, limit = first.shard, self._limits.max_pages
        shard.set_pages(first.index, min(pages, limit + 1))
        self._read_ahead.decoded()
        if pages == 1 or shard.dropped:
            return
        if self._draining:
            self._open.drop(shard)
            return
        begun = self._begin_block(self._page_task(first, 0, min(pages, limit)))
        first.superseded = not any(task.page == 0 for task in begun)
        # Pages go before the next items, or bytes of half-done items would pile up.
        self._flow.ready.extendleft(task for task in reversed(begun) if task.page > 0)
        if pages > limit:
            message = f"{pages} pages, of which image.max_pages = {limit} are read"
            over = replace(first, page=limit, reserved=0)
            error = ImageError(Stage.DECODE, ErrorKind.TOO_LARGE, message)
            shard.finish(first.index, over.failed(error))

    def _begin_requested(self, shard: OpenShard) -> None:
        """Queue the pages that this slot was asked to help with, if the file has been read."""
        encoded, requested = shard.take_requested()
        if encoded is not None:
            first = PageTask(0, shard, 0, 0, encoded)
            for pages in requested:
                self._flow.ready.append(self._page_task(first, pages.start, pages.stop))

    def _begin_pages(self) -> None:
        """Begin the next blocks of long files, as far as pages may be sent in this turn."""
        ready, at = self._flow.ready, 0
        while at < min(len(ready), self._flow.window):
            if ready[at].stop is None:
                at += 1
                continue
            task = ready[at]
            del ready[at]
            for begun in reversed(self._begin_block(task)):
                ready.insert(at, begun)

    def _begin_block(self, task: PageTask) -> list[PageTask]:
        """Take the pages of a block that are done already; returns tasks for all others."""
        shard, index, start = task.shard, task.index, task.page
        assert task.stop is not None
        stop = min((start // BLOCK_PAGES + 1) * BLOCK_PAGES, task.stop)
        rest = [self._page_task(task, stop, task.stop)] if stop < task.stop else []
        done = set[int]()
        if shard.pages is not None and shard.keeps_pages(index):
            for result in shard.pages.begin(task.encoded, start, stop):
                done.add(result.page)
                shard.finish(index, result)
            self._open.commit_if_complete(shard)
        pages = [page for page in range(start, stop) if page not in done]
        return [self._page_task(task, page) for page in pages] + rest

    def _page_task(self, like: PageTask, page: int, stop: int | None = None) -> PageTask:
        ticket = next(self._tickets)
        return PageTask(ticket, like.shard, like.index, page, like.encoded, stop=stop)

    def _account(
        self, task: PageTask, page: DetectedPage, readings: Readings | None
    ) -> ImageResult:
        try:
            return self._assemble(task.encoded, task.page, page, readings)
        except Exception as exc:  # a bug must cost one image, not days of work
            message = f"{type(exc).__name__}: {exc}"
            return task.failed(ImageError(Stage.RECOGNISE, ErrorKind.INTERNAL, message))

    def _finish(self, task: PageTask, result: ImageResult) -> None:
        if result.error is not None:  # storage drivers' messages may hold credentials
            error = replace(result.error, message=self._redact(result.error.message))
            result = replace(result, error=error)
        self._flow.end(task)
        for stage in TIMED_STAGES:
            self._stage_s[stage] += getattr(result, f"{stage}_s")
        self._policy.finished(result)
        shard = task.shard
        if shard.dropped:
            return
        if task.superseded:
            self._open.commit_if_complete(shard)
            return
        if not shard.pages_known(task.index):  # it failed before its pages could be counted
            shard.set_pages(task.index, 1)
            self._read_ahead.decoded()
        if shard.pages is not None and shard.keeps_pages(task.index):
            last = shard.pages.add(task.encoded, result)
            if last and shard.writer is None:
                start = task.page // BLOCK_PAGES * BLOCK_PAGES
                self._helped.append(_pages_of(task, start, start + BLOCK_PAGES))
        shard.finish(task.index, result)
        self._open.commit_if_complete(shard)

    def _on_raised(self, handle: WorkerHandle, event: Raised) -> None:
        if event.ticket == _PROBE:
            reason = f"a blank image raised {event.message}"
            self._on_end(handle, reason, ErrorKind.CRASHED, blame=False)
            return
        call = handle.close(event.ticket, 0, self._limits.max_uss_bytes)
        task = self._flow.find(event.ticket)
        if call is None or task is None:
            return
        error = self._policy.raised(task, call.stage, event.message, lost=event.lost)
        if error is None:
            self._take_back(task)
        else:
            self._finish(task, task.failed(error))

    def _on_end(self, handle: WorkerHandle, reason: str, kind: ErrorKind, *, blame: bool) -> None:
        tasks = self._flow.lost_with(handle)
        alone = self._flow.alone
        handle.stop()
        for task, error in self._policy.ended(
            handle.name, reason, kind, tasks, alone=alone, blame=blame
        ):
            self._finish(task, task.failed(error))
        for task, _ in tasks:
            self._take_back(task)

    def _take_back(self, task: PageTask) -> None:
        self._image_retries += 1
        self._flow.end(task)
        task.reset(next(self._tickets))


def _pages_of(task: PageTask, start: int, stop: int) -> LongFile:
    shard, image_id = task.shard.shard, task.encoded.item.image_id
    return LongFile(shard.id, shard.generation, image_id, start, stop)
