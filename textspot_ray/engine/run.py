"""A run: create or check the table, plan, hand out tasks, take note of commits, report."""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from textspot_ray.config import RunConfig, config_to_dict, redactor_of
from textspot_ray.engine.components import Components, components_from
from textspot_ray.engine.control import Control, StopRequest, stop_on_signals
from textspot_ray.engine.dispatch import Dispatch
from textspot_ray.engine.planning import Planning
from textspot_ray.engine.progress import OnProgress, Progress, Tally
from textspot_ray.engine.slot.events import RateLimitedLog
from textspot_ray.engine.slot.slot import Job, Report
from textspot_ray.engine.status_writer import StatusWriter
from textspot_ray.errors import (
    AbortedError,
    ExitCode,
    FingerprintError,
    TextspotError,
    UsageError,
)
from textspot_ray.records import ErrorKind, RunReport, ShardId
from textspot_ray.redaction import Redactor
from textspot_ray.sources.identity import canonical_base
from textspot_ray.storage.filesystem import split_uri
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.ledger import Ledger, open_ledger
from textspot_ray.tables.driver_status import RunState
from textspot_ray.tables.maintenance.retry_failed import TRANSIENT, retry_tasks
from textspot_ray.tables.maintenance.vacuum import finish as vacuum
from textspot_ray.tables.maintenance.vacuum import vacuum_state
from textspot_ray.tables.plan.plan import Plan, Task
from textspot_ray.tables.status import read_run, run_ids

if TYPE_CHECKING:
    from textspot_ray.engine.slot.open_shards import ShardOutcome

_LOG = logging.getLogger(__name__)
_PROGRESS_S: Final = 0.25
_REFRESH_S: Final = 60.0


def run(
    config: RunConfig,
    *,
    on_progress: OnProgress | None = None,
    parts: Components | None = None,
) -> RunReport:
    """Spot every word in the configured sources and commit the tables.

    Committed shards are not done again: a second run continues where the first one stopped.

    Args:
        config: What to read, with which model, where to run and to write.
        on_progress: Called a few times a second; see `progress.console`.
        parts: Other parts than the configuration's.

    Raises:
        UsageError: Sources, model or configuration cannot be used as asked.
        FingerprintError: The output folder holds a table made with other settings.
        StorageError: The output cannot be written.
        AbortedError: The job stopped for a reason that is not an image's.
    """
    if not config.source.uris and parts is None:
        raise UsageError("nothing to do: name at least one source")
    _refuse_memory(config)
    with _begun(config, parts, on_progress) as job:
        job.plan_from_sources()
        return job.work()


def retry(
    config: RunConfig,
    *,
    kinds: frozenset[ErrorKind] = TRANSIENT,
    on_progress: OnProgress | None = None,
    parts: Components | None = None,
) -> RunReport:
    """Read failed images again and commit the results as a new generation of their shards.

    Args:
        config: As of the run that made the table.
        kinds: Which failures; by default transient ones.
        on_progress: As in `run`.
        parts: As in `run`.

    Raises:
        TextspotError: As in `run`.
    """
    with _begun(config, parts, on_progress) as job:
        job.give(retry_tasks(job.plan, job.ledger, kinds))
        return job.work()


def _refuse_memory(config: RunConfig) -> None:
    """Refuse ``memory://`` with Ray, whose workers cannot see this process's memory."""
    if config.engine.kind != "ray":
        return
    for uri in (config.output.uri, *config.source.uris):
        if split_uri(uri)[0] == "memory":
            raise UsageError(
                f"{uri} is in the memory of this process, where Ray's workers cannot reach it: "
                "use --engine local, or another place"
            )


@contextlib.contextmanager
def _begun(
    config: RunConfig, parts: Components | None, on_progress: OnProgress | None
) -> Iterator[_Run]:
    """A run on its output folder; exceptions leave the block without the configuration's secrets.

    Args:
        config: As of `run`.
        parts: As of `run`.
        on_progress: As of `run`.
    """
    redact = redactor_of(config)
    try:
        parts = parts or components_from(config)
        with stop_on_signals() as stop, _Run(config, parts, on_progress, stop, redact) as job:
            yield job
    except Exception as exc:
        redact.scrub(exc)
        raise


def exit_code(report: RunReport) -> ExitCode:
    """The exit code for a command that ends with this report."""
    if report.signal:
        terminated = report.signal == signal.SIGTERM
        return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    return ExitCode.FAILED_IMAGES if report.counts.failed else ExitCode.OK


class _Run:
    """One run on one output folder."""

    def __init__(
        self,
        config: RunConfig,
        parts: Components,
        on_progress: OnProgress | None,
        stop: StopRequest,
        redact: Redactor,
    ) -> None:
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        output = config.output
        if not output.uri:
            raise UsageError("no output folder: name one with --out")
        self._config = config
        self._parts = parts
        self._redact = redact
        self._on_progress = on_progress
        self._stop = stop
        store = open_store(output.uri, output.storage_options, create=True)
        if not output.unsafe_single_driver and not store.probe_exclusive():
            raise UsageError(
                f"{store.uri} cannot put a file only if it is absent: choose another store, or "
                "run one driver alone with --unsafe-single-driver"
            )
        self.ledger: Ledger = open_ledger(store, parts.fingerprint)
        self.plan = Plan(store)
        self.plan.refresh()
        self._is_new = self.plan.n_shards == 0
        shown = config_to_dict(config)
        if not self._is_new:
            _check_ids(store, shown["source"])
        self._facts = {
            "config": shown,
            "started_at": time.time(),
            "text_threshold": parts.text_threshold,
        }
        self.ledger.record_run(self.run_id, self._facts)
        own_store = open_store(output.uri, output.storage_options)
        self._status = StatusWriter(own_store, self.run_id, config.engine.status_s)
        self._dispatch = Dispatch(self.run_id)
        self._planning: Planning | None = None
        self._tally = Tally(self.ledger.counts().items)
        self._again: set[tuple[ShardId, int]] = set()  # shards that are read a second time
        self._looked_at = (-1, -1)
        self._refreshed_s = time.monotonic()
        self._shown_s = 0.0
        self._slot_log = RateLimitedLog(_LOG)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        self._slot_log.flush()
        # A fallback: usually the run has already written how it ended.
        reason = self._redact(str(value or "it ended without a report"))
        self._status.close(RunState.FAILED, reason)
        if self._planning is not None:
            self._planning.stop()
            self._planning.join(5.0)
        self.plan.close()

    def plan_from_sources(self) -> None:
        """Hand out what the stored plan has left, and list the sources for more."""
        known = self.plan.next_seq
        self.give(task for task in self.plan.tasks(self.ledger) if task.shard.plan < known)
        self._planning = Planning(
            self.plan, self._config, self.run_id, self._parts.listing, self._redact
        )

    def give(self, tasks: Iterable[Task]) -> None:
        """Hand tasks to the dispatcher."""
        self._dispatch.add(self._noted(task) for task in tasks)

    def _noted(self, task: Task) -> Task:
        if task.generation > 0 and (task.shard, task.generation) not in self._again:
            self._again.add((task.shard, task.generation))
            self._tally.begin_again(task.items)
        return task

    def work(self) -> RunReport:
        """Run the engine until all tasks are settled or a signal came."""
        job = Job(self._config, self.run_id, dict(self._parts.fingerprint), self._parts.recipe)
        control = Control(
            job, self._dispatch, self._stop, self._turn, self._on_report, self._on_lost
        )
        try:
            if not self._has_work():
                pass
            elif self._config.engine.kind == "local":
                from textspot_ray.engine.local import run_local

                run_local(control)
            else:
                from textspot_ray.engine.ray.scheduler import run_on_ray

                run_on_ray(control)
        except BaseException as exc:
            reason = str(exc) if isinstance(exc, TextspotError) else repr(exc)
            self._status.close(RunState.FAILED, self._redact(reason))
            self._record(error=self._redact(f"{type(exc).__name__}: {exc}"))
            raise
        return self._finish()

    def _has_work(self) -> bool:
        """Whether there is anything to do, found out before models and Ray are started.

        A new table is assumed to have work, so that its engine starts while sources are listed.
        """
        if self._is_new:
            return True
        while not self._dispatch.busy:
            if not self._turn() or self._stop:
                break
            time.sleep(0.05)
        return self._dispatch.busy

    def _turn(self) -> bool:
        planning = self._planning
        listing = planning is not None and planning.active
        if planning is not None:
            if self._stop:
                planning.stop()
            for seq in planning.take_segments():
                self.give(self._tasks_of(seq))
            if not listing and not self._dispatch.busy:
                self._look_again()
        now = time.monotonic()
        if now - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = now
            self.ledger.refresh()  # so that what other drivers have done is not handed out
        self._tally.items_planned = self.plan.n_items
        if now - self._shown_s >= _PROGRESS_S:
            self._shown_s = now
            progress = self._progress()
            self._status(progress, draining=bool(self._stop))
            if self._on_progress is not None:
                self._on_progress(progress)
        return listing

    def _tasks_of(self, seq: int) -> Iterator[Task]:
        """A new segment's tasks, without shards that an older segment listed already."""
        tasks = self.plan.tasks_of(seq, self.ledger)
        return (task for task in tasks if task.shard.plan == seq or task.generation > 0)

    def _look_again(self) -> None:
        """Everything known is done: take what other drivers have planned, and changed items."""
        if self._stop:
            return
        settled = len(self.ledger.settled()), self._tally.shards
        if settled == self._looked_at:
            return  # nothing has changed since the last look
        self._looked_at = settled
        self.plan.refresh()
        self.ledger.refresh()
        self.give(self.plan.tasks(self.ledger))

    def _progress(self, final: bool = False) -> Progress:
        planning = self._planning is not None and self._planning.active
        return self._tally.progress(planning=planning, final=final)

    def _on_report(self, slot: int, report: Report) -> None:
        for event in report.events:
            self._slot_log.write(slot, event)
        self._tally.add(slot, report)
        for settled in report.settled:
            self._settle(slot, settled)
        self._dispatch.note_long_files(slot, report.long_files)

    def _settle(self, slot: int, settled: ShardOutcome) -> None:
        task = self._dispatch.settle(slot, (settled.shard, settled.generation))
        if settled.record is None:
            self._tally.add_others(task.items if task is not None else 0)
            return
        self.ledger.note(settled.record)
        if self.ledger.fold():
            vacuum_state(self.ledger)

    def _on_lost(self, slot: int) -> None:
        self._tally.forget(slot)
        self._tally.count_retries(self._dispatch.give_back(slot))

    def _finish(self) -> RunReport:
        if self._stop:
            self.ledger.refresh()
        else:
            vacuum(self.ledger)
        summary = self._planning.summary if self._planning is not None else None
        report = RunReport(
            out=self._config.output.uri,
            run_id=self.run_id,
            counts=self.ledger.counts(),
            run_counts=self._tally.counts,
            shards_done=len(self.ledger.settled()),
            shards_total=self.plan.n_shards,
            skipped=dict(summary.skipped) if summary is not None else {},
            elapsed_s=self._tally.elapsed_s,
            signal=0 if self._is_through() else self._stop.signal,
        )
        self._record(
            counts=report.counts.stored(),
            run_counts=report.run_counts.stored(),
            shards_done=report.shards_done,
            shards_total=report.shards_total,
            skipped=report.skipped,
            elapsed_s=report.elapsed_s,
            signal=report.signal,
        )
        last = self._progress(final=True)
        if self._on_progress is not None:
            self._on_progress(last)
        self._status(last)
        whole = self._planning is not None and not self._stop  # a retry leaves the rest
        if whole and report.shards_done < report.shards_total:
            raise AbortedError(
                f"{report.shards_total - report.shards_done} of {report.shards_total} shards are "
                f"not committed although no task is left; run again, and report this if it stays"
            )
        self._status.close(RunState.STOPPED if report.signal else RunState.DONE)
        return report

    def _is_through(self) -> bool:
        """Whether nothing was left to do when the signal came."""
        listed = self._planning is None or self._planning.summary is not None
        return listed and not self._dispatch.busy

    def _record(self, error: str | None = None, **figures: object) -> None:
        facts = {**self._facts, "ended_at": time.time(), "error": error, **figures}
        try:
            self.ledger.record_run(self.run_id, facts)
        except Exception as exc:  # must not hide why the run ended
            _LOG.warning("the run's record could not be stored: %s", self._redact(str(exc)))


def _check_ids(store: Store, now: Mapping[str, Any]) -> None:
    """Check that images get the same ids as when the table was begun.

    Raises:
        FingerprintError: ``--base`` or ``--id-column`` differ.
    """
    for run_id in run_ids(store):
        then = read_run(store, run_id).get("config")
        if not isinstance(then, dict) or not isinstance(then.get("source"), dict):
            continue
        for key, option in (("base", "--base"), ("id_column", "--id-column")):
            old, new = then["source"].get(key), now[key]
            if key == "base":
                old, new = canonical_base(old), canonical_base(new)
            if old != new:
                raise FingerprintError(
                    f"{store.uri} was begun with {option} {then['source'].get(key) or '(none)'}, "
                    f"not {now[key] or '(none)'}: every image would get a second id; give the "
                    "same, or another --out"
                )
        return
