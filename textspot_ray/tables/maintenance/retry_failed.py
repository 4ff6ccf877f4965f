"""Retrying failed images: which shards, and which of their items."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError, MissingFileError
from textspot_ray.records import ErrorKind, ShardId
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile
from textspot_ray.tables.commit.data_files import read_data_file
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.maintenance.rewrite import TRIES, absorb_pending
from textspot_ray.tables.plan.plan import Plan, Task
from textspot_ray.tables.schema import item_names

TRANSIENT = frozenset(kind for kind in ErrorKind if kind.transient)


def retry_tasks(
    plan: Plan, ledger: Ledger, kinds: frozenset[ErrorKind] = TRANSIENT
) -> Iterator[Task]:
    """Tasks that read failed items again, one per shard, as its next generation.

    All pages of an item with a failed page are read again. Shards that are not committed yet, or
    that have changed items waiting to be redone, are left to `run`.

    Args:
        plan: The plan, refreshed.
        ledger: The ledger, refreshed.
        kinds: Which failures; by default transient ones.
    """
    plan.refresh()
    absorb_pending(ledger)
    waiting = {task.shard for task in plan.tasks(ledger)}
    names = pa.array(sorted(str(kind) for kind in kinds), pa.string())
    done: set[ShardId] = set()

    def candidates() -> Iterator[CommitRecord]:
        for record in ledger.commit_records():
            if record.shard in waiting or record.shard in done or ledger.is_pending(record.shard):
                continue
            if any(record.counts.failures.get(str(kind)) for kind in kinds):
                yield record

    def of_compacted() -> list[Task]:
        """Tasks of the shards whose rows are in base files, all at once."""
        found = {record.shard: record for record in candidates() if record.compaction >= 0}
        if not found:
            return []
        files = [*ledger.snapshot.base, *(p for m in found.values() for p in m.files)]
        ids = sorted({name for i in _failed(ledger, files, names) for name in item_names(i)})
        by_shard: dict[ShardId, set[str]] = {}
        for image_id, shard in zip(ids, plan.locate(ids), strict=True):
            if shard in found:
                by_shard.setdefault(shard, set()).add(image_id)
        return [
            _task(found[shard], by_shard[shard])
            for shard in sorted(by_shard, key=lambda s: (s.plan, s.index))
        ]

    for _ in range(TRIES):
        # The consumer of the tasks may refresh the ledger meanwhile: this is the state that named
        # the files read here.
        state = ledger.state()
        try:
            for record in candidates():
                if record.compaction < 0:
                    failed = _failed(ledger, record.files, names)
                    yield _task(record, {name for i in failed for name in item_names(i)})
                    done.add(record.shard)
            break
        except (FileNotFoundError, MissingFileError) as exc:
            ledger.expect_move(state, exc)
    else:
        raise AbortedError(f"{ledger.store.uri}: other drivers keep changing it; run again")
    yield from ledger.on_latest(of_compacted)


def _task(record: CommitRecord, ids: set[str]) -> Task:
    return Task(
        shard=record.shard,
        generation=record.generation + 1,
        reason="retry",
        items=len(ids),
        bytes=0,
        redo=record.redo,
        previous=record,
        only=tuple(sorted(ids)),
    )


def _failed(
    ledger: Ledger, files: tuple[DataFile, ...] | list[DataFile], kinds: pa.Array
) -> set[str]:
    found: set[str] = set()
    for part in files:
        if part.table == "errors":
            for rows in read_data_file(ledger.store, part, ["image_id", "kind"]):
                chosen = rows.filter(pc.is_in(rows.column("kind"), kinds))
                found.update(chosen.column("image_id").to_pylist())
    return found
