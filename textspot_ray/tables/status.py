"""How far a job is, judged by its output folder alone, while it runs or afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from textspot_ray.errors import AbortedError, MissingFileError, StorageError, TableError
from textspot_ray.records import Counts
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.data_files import read_data_file
from textspot_ray.tables.commit.ledger import RUNS, Ledger
from textspot_ray.tables.commit.manifest import read_counts
from textspot_ray.tables.plan.plan import Plan

RATE_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class TableStatus:
    """The state of a job.

    Attributes:
        uri: The output folder.
        fingerprint: The table's settings.
        items_planned: Items in the plan.
        bytes_planned: Their size, as far as known.
        shards_total: Shards in the plan.
        shards_done: Shards committed.
        redo_shards: Committed shards with changed items that wait to be read again.
        counts: Sums over the committed shards; ``failures`` by kind.
        images_per_s: Rate over the last ten minutes of work, None before the first commit.
        eta_s: Seconds to the end at that rate, None if unknown.
        last_commit_s: Seconds since the last commit, None before the first.
        forgotten: Images removed for good.
        run_ids: Runs on record, oldest first.
    """

    uri: str
    fingerprint: dict[str, str]
    items_planned: int
    bytes_planned: int
    shards_total: int
    shards_done: int
    redo_shards: int
    counts: Counts
    images_per_s: float | None
    eta_s: float | None
    last_commit_s: float | None
    forgotten: int
    run_ids: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.shards_done == self.shards_total and not self.redo_shards


def table_status(ledger: Ledger, plan: Plan, now: float | None = None) -> TableStatus:
    """Read the state of a job; both arguments are refreshed.

    Args:
        ledger: Of the output folder.
        plan: Of the same.
        now: Unix time, instead of the clock's.
    """
    ledger.refresh()
    plan.refresh()
    counts = ledger.counts()
    rate, last = ledger.on_latest(lambda: _rate(ledger))
    shards_done = len(ledger.settled())
    left = max(0, plan.n_items - counts.items - ledger.snapshot.forgotten)
    moment = time.time() if now is None else now
    return TableStatus(
        uri=ledger.store.uri,
        fingerprint=ledger.fingerprint,
        items_planned=plan.n_items,
        bytes_planned=plan.n_bytes,
        shards_total=plan.n_shards,
        shards_done=shards_done,
        redo_shards=plan.n_redo(ledger),
        counts=counts,
        images_per_s=rate,
        eta_s=None if not rate else left * (counts.images / max(counts.items, 1)) / rate,
        last_commit_s=None if last is None else max(0.0, moment - last),
        forgotten=ledger.snapshot.forgotten,
        run_ids=tuple(run_ids(ledger.store)),
    )


def run_ids(store: Store) -> list[str]:
    """Names of the runs on record, oldest first."""
    entries = sorted(store.list(RUNS), key=lambda entry: (entry.mtime, entry.path))
    names = (entry.path.removeprefix(RUNS) for entry in entries)
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def read_run(store: Store, run_id: str) -> dict[str, Any]:
    """The record of a run: its configuration, and its report once it has ended.

    Raises:
        TableError: There is no such run, or its record is damaged.
    """
    try:
        facts = json.loads(store.read(f"{RUNS}{run_id}.json"))
    except FileNotFoundError:
        raise TableError(f"{store.uri} has no run {run_id}") from None
    except ValueError as exc:
        raise TableError(f"{store.uri}: the record of run {run_id} is damaged") from exc
    return facts if isinstance(facts, dict) else {}


def run_records(store: Store) -> list[dict[str, Any]]:
    """The records of runs, oldest first; damaged ones are skipped."""
    records = []
    for run_id in run_ids(store):
        with suppress(TableError, StorageError):
            records.append(read_run(store, run_id))
    return records


def error_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The rows of ``errors``, streamed.

    Raises:
        StorageError: A file is damaged.
        AbortedError: The table was rewritten meanwhile.
    """
    return _streamed(ledger, "errors", None)


def damaged_rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """``image_id`` and ``damage`` of images that were read although their file is damaged."""
    return _streamed(ledger, "images", ["image_id", "damage"])


def _streamed(ledger: Ledger, table: str, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of a table; if files disappear before the first row, the latest state is read instead.

    Args:
        ledger: Of the table.
        table: Which.
        columns: Those to return, of rows that have a value in the last; None: all, of all rows.

    Raises:
        AbortedError: Files disappeared later.
    """
    first: list[dict[str, Any]] = []
    rest: Iterator[dict[str, Any]] = iter(())

    def rows() -> Iterator[dict[str, Any]]:
        for part in list(ledger.files(table)):
            for found in read_data_file(ledger.store, part, columns):
                if columns is not None:  # few of millions of images have one
                    found = found.filter(found.column(columns[-1]).is_valid())
                yield from found.to_pylist()

    def begin() -> None:
        nonlocal rest
        rest = rows()
        first[:] = islice(rest, 1)

    ledger.on_latest(begin)
    state = ledger.state()
    yield from first
    try:
        yield from rest
    except (FileNotFoundError, MissingFileError) as exc:
        ledger.expect_move(state, exc)
        raise AbortedError(
            f"{ledger.store.uri} was rewritten while it was read: run it again"
        ) from exc


def _rate(ledger: Ledger) -> tuple[float | None, float | None]:
    """Images per second over the last stretch of work, and the time of the last commit."""
    columns: list[np.ndarray] = []
    for manifest in ledger.snapshot.manifests:
        table = read_counts(ledger.store, manifest)
        names = ("started_at", "finished_at", "images")
        columns.append(np.array([table.column(n).to_numpy() for n in names], np.float64))
    live = [*ledger.unabsorbed(), *ledger.pending()]
    rows = [(m.started_at, m.finished_at, m.counts.images) for m in live]
    columns.append(np.array(rows, np.float64).reshape(-1, 3).T)
    started, finished, images = np.concatenate(columns, axis=1)
    if not len(finished):
        return None, None
    last = float(finished.max())
    recent = finished > last - RATE_WINDOW_S
    begin = max(float(started[recent].min()), last - RATE_WINDOW_S)
    # A shard that began before the window counts with the share that falls into it.
    lasted = np.maximum(finished[recent] - started[recent], 1e-3)
    share = (finished[recent] - np.maximum(started[recent], begin)) / lasted
    span = last - begin
    return (float((images[recent] * share).sum()) / span if span > 0 else None), last
