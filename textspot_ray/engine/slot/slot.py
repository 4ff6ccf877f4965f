"""A slot: one runner with its workers, given tasks one step at a time.

It is the same on every engine. For each task it checks whether the shard is committed already,
loads it from the stored plan, and reports the outcome in small records.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from textspot_ray.config import redactor_of
from textspot_ray.engine.arithmetic import check_arithmetic
from textspot_ray.engine.sizing import Threads
from textspot_ray.engine.slot.done_pages import DonePages, LongFile
from textspot_ray.engine.slot.events import SlotEvent
from textspot_ray.engine.slot.limits import limits_from
from textspot_ray.engine.slot.open_shards import ShardOutcome
from textspot_ray.engine.slot.ports import Events, Models, PageWork, Worker
from textspot_ray.engine.slot.process_setup import MemoryGauge
from textspot_ray.engine.slot.read_ahead import ReadAhead
from textspot_ray.engine.slot.runner import Assemble, ShardRunner
from textspot_ray.engine.slot.slot_metrics import SlotMetrics
from textspot_ray.records import Counts
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import read_commit_record
from textspot_ray.tables.commit.ledger import fingerprint_digest
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.environment import describe_environment
from textspot_ray.tables.plan.plan import Plan, Task

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig
    from textspot_ray.sources.reader import Reader


def small_page(data: bytes) -> PageWork:
    """The work of an image that is never tiled and never large."""
    return PageWork()


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a slot makes its parts; picklable.

    Attributes:
        models: Makes the detector and the recogniser, in their own processes.
        make_reader: Makes the archive reader, in the runner's process.
        assemble: Makes a page's result from detections and readings.
        weigh: Estimates how much work an encoded image is for the detector.
    """

    models: Models
    make_reader: Callable[[], Reader]
    assemble: Assemble
    weigh: Callable[[bytes], PageWork] = small_page


@dataclass(frozen=True, slots=True)
class Job:
    """What every slot of a run needs to know; picklable."""

    config: RunConfig
    run_id: str
    fingerprint: dict[str, str]
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a step.

    Attributes:
        settled: Shards that are committed now, by this slot or by others before.
        open_counts: Finished work in shards that are not committed yet.
        wants: Whether the slot wants another task.
        idle: Whether it has none left.
        events: What went wrong, for the log.
        metrics: Where the slot runs, what waits in it and its memory.
        long_files: Long files that it works on, with the pages it has not begun.
        helped: Blocks of other slots' long files done since the last report.
    """

    settled: tuple[ShardOutcome, ...]
    open_counts: Counts
    wants: bool
    idle: bool
    events: tuple[SlotEvent, ...]
    metrics: SlotMetrics = field(default_factory=SlotMetrics)
    long_files: tuple[LongFile, ...] = ()
    helped: tuple[LongFile, ...] = ()


class Slot:
    """Runs tasks; `step` is called again and again from one thread.

    Args:
        job: What the run is.
        make_workers: Makes the slot's workers, given the queue for their answers.
        threads: Of its workers.
        node: Name of the machine in reports; default its host name.
    """

    def __init__(
        self,
        job: Job,
        make_workers: Callable[[Events], list[Worker]],
        threads: Threads,
        node: str = "",
    ) -> None:
        self._node = node or platform.node()
        self._gauge = MemoryGauge()
        output = job.config.output
        self._job = job
        check_arithmetic(job.fingerprint, job.config.engine)
        self._store = open_store(output.uri, output.storage_options, is_patient=True)
        self._digest = fingerprint_digest(job.fingerprint)
        self._plan = Plan(self._store)
        self._environment = describe_environment()
        events = Events()
        workers = make_workers(events)
        limits = limits_from(job.config, threads.streams)
        window = limits.in_flight * len(workers)
        read_ahead = ReadAhead(
            job.recipe.make_reader,
            events,
            max_items=2 * window * max(worker.max_batch for worker in workers) + 2,
            max_bytes=limits.max_encoded_bytes,
        )
        recipe = job.recipe
        self._runner = ShardRunner(
            workers,
            read_ahead,
            events,
            recipe.assemble,
            limits,
            recipe.weigh,
            redactor_of(job.config),
        )
        self._runner.start()

    def step(
        self, tasks: Sequence[Task], timeout_s: float, *, more: bool, drain: bool = False
    ) -> Report:
        """Take tasks and work for a while.

        Args:
            tasks: New tasks.
            timeout_s: Longest time to work.
            more: Whether the caller has more tasks.
            drain: Start no more images.

        Raises:
            TextspotError: The job cannot go on.
        """
        settled = [found for task in tasks if (found := self._take(task)) is not None]
        if drain:
            self._runner.drain()
        settled += self._runner.pump(0.0 if settled else timeout_s, more=more)
        return Report(
            settled=tuple(settled),
            open_counts=self._runner.open_counts,
            wants=self._runner.wants_shard,
            idle=self._runner.idle,
            events=self._runner.take_slot_events(),
            metrics=self._metrics(),
            long_files=self._runner.long_files,
            helped=self._runner.take_helped(),
        )

    def close(self) -> None:
        """Kill the workers."""
        self._runner.close()
        self._plan.close()

    def _metrics(self) -> SlotMetrics:
        found = self._runner.metrics
        retries = dict(found.retries)
        retries["storage"] = retries.get("storage", 0) + self._store.retries
        memory = {**found.memory_bytes, "runner": self._gauge.uss_bytes()}
        return replace(found, node=self._node, memory_bytes=memory, retries=retries)

    def _take(self, task: Task) -> ShardOutcome | None:
        if read_commit_record(self._store, task.shard, task.generation) is not None:
            outcome = ShardOutcome(task.shard, task.generation, None, Counts())
            return outcome if task.help_pages is None else None
        shard = self._plan.load(task)
        pages = DonePages(self._store, shard, self._digest)
        if task.help_pages is not None:
            if shard.items:  # else the image was forgotten meanwhile
                self._runner.help(shard, pages, range(*task.help_pages))
            return None
        writer = ShardWriter(
            self._store,
            shard,
            run_id=self._job.run_id,
            fingerprint=self._digest,
            previous=task.previous,
            redo=task.redo,
            environment=self._environment,
        )
        self._runner.offer(shard, writer, pages)
        return None
