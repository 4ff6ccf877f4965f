"""Compacting: merge many data files into few, by a snapshot.

Rows are copied in the order of the plan, so that images of a folder or archive stay together. Then
the new files, their sorted copy of words and the list of shards they hold become the table by one
put. Until then nothing that readers or a running job use has changed, and afterwards the old files
stay for a grace period. Shards that are committed meanwhile are not touched and stay beside the
base files.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from textspot_ray.errors import AbortedError
from textspot_ray.records import ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile
from textspot_ray.tables.commit.data_files import delete_files
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.commit.manifest import (
    ManifestFile,
    newest_only,
    read_manifest,
    shard_ids,
    to_table,
    write_manifest,
)
from textspot_ray.tables.commit.snapshot import Snapshot, put_snapshot, swapped
from textspot_ray.tables.maintenance.compacted_files import (
    ROWS_PER_FILE,
    CompactedFileWriter,
    read_data_files,
    write_by_text,
)
from textspot_ray.tables.maintenance.rewrite import TRIES, absorb_pending
from textspot_ray.tables.schema import TABLES, WORDS_BY_TEXT, with_values

MEMORY_BYTES = 5 * 2**27  # twice as much is no faster at ten million words, and needs 0.6 GiB more
_REPEATED = ["text", "image_id"]  # of words, read as dictionaries


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What compact did.

    Attributes:
        shards: Shards whose rows are now in base files.
        files_before: Files that the table had, the sorted copy of words included.
        files_after: Files that it has, likewise.
        replaced: Files that no longer count but stay for the grace period of `vacuum.finish`.
        words: Rows of ``words`` in base files.
        elapsed_s: Seconds taken.
    """

    shards: int
    files_before: int
    files_after: int
    replaced: int
    words: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class _Built:
    """Base files made from one state of the table, and the shards they hold."""

    base: tuple[DataFile, ...]
    by_text: tuple[DataFile, ...]
    shards: dict[ShardId, int]  # generation
    live: tuple[CommitRecord, ...]  # those of the shards that no snapshot had absorbed
    fresh: tuple[str, ...]
    replaced: tuple[str, ...]


def compact(
    ledger: Ledger, memory_bytes: int = MEMORY_BYTES, rows_per_file: int = ROWS_PER_FILE
) -> CompactReport:
    """Merge the files of all committed shards, while a job runs or not.

    Args:
        ledger: The ledger of the output folder.
        memory_bytes: Limit of the sort; the whole process needs some 400 MB more.
        rows_per_file: Rows after which a new file is begun.

    Raises:
        StorageError: Storage refuses or a committed file is damaged; nothing has changed.
        AbortedError: Others kept compacting, forgetting or retrying.
    """
    start = time.monotonic()
    for _ in range(TRIES):
        absorb_pending(ledger)
        ledger.refresh()
        done = ledger.on_latest(lambda: _compact(ledger, memory_bytes, rows_per_file, start))
        if done is not None:
            return done
    raise AbortedError(f"{ledger.store.uri}: other drivers keep rewriting it; run compact again")


def _compact(
    ledger: Ledger, memory_bytes: int, rows_per_file: int, start: float
) -> CompactReport | None:
    """Compact the ledger's state; None if that has been replaced meanwhile."""
    before = ledger.paths()
    records = sorted(ledger.commit_records(), key=lambda m: (m.shard.plan, m.shard.index))
    if not any(record.files for record in records):
        return _report(ledger, before, start)
    built = _build(ledger, records, memory_bytes, rows_per_file)
    try:
        published = _publish(ledger, built)
    except FileNotFoundError:  # a manifest that another driver's snapshot has replaced
        published = False
    if published:
        return _report(ledger, before, start)
    delete_files(ledger.store, built.fresh)
    return None


def _build(
    ledger: Ledger, records: Sequence[CommitRecord], memory_bytes: int, rows_per_file: int
) -> _Built:
    store, head = ledger.store, ledger.snapshot
    # Large base files stay as they are: compacting a growing table must not copy all of it each
    # time.
    kept = tuple(part for part in head.base if 2 * part.rows >= rows_per_file)
    small = [part for part in head.base if part not in kept]
    parts = [*small, *(part for record in records for part in record.files)]
    n = head.n + 1
    writers = {table: CompactedFileWriter(store, table, n, rows_per_file) for table in TABLES}
    by_text: list[DataFile] = []
    try:
        by_text = write_by_text(
            store, _words(store, parts, kept, writers["words"]), n, memory_bytes, rows_per_file
        )
        for table in ("images", "errors"):
            for rows in read_data_files(store, _once(parts, table)):
                writers[table].write(rows)
        fresh = [part for writer in writers.values() for part in writer.finish()]
    except BaseException:
        for writer in writers.values():
            writer.discard()
        delete_files(store, [part.path for part in by_text])
        raise
    return _Built(
        base=(*kept, *fresh),
        by_text=tuple(by_text),
        shards={record.shard: record.generation for record in records},
        live=tuple(ledger.unabsorbed()),
        fresh=tuple(part.path for part in (*fresh, *by_text)),
        replaced=tuple(part.path for part in (*small, *head.by_text)),
    )


def _words(
    store: Store,
    parts: Sequence[DataFile],
    kept: Sequence[DataFile],
    writer: CompactedFileWriter,
) -> Generator[pa.Table, None, None]:
    """Words for the sort; those of ``parts`` are copied on the way, so that they are read once."""
    yield from writer.copy(read_data_files(store, _once(parts, "words"), None, _REPEATED))
    yield from read_data_files(store, _once(kept, "words"), WORDS_BY_TEXT.names, _REPEATED)


def _publish(ledger: Ledger, built: _Built) -> bool:
    """Make the files count by a snapshot; False if the state they were made from is gone."""
    store, rewritten = ledger.store, ledger.snapshot.rewritten
    for _ in range(TRIES):
        head = ledger.snapshot
        if head.rewritten != rewritten or not _still_holds(ledger, built):
            return False
        number = head.compaction + 1
        manifests = tuple(_mark(ledger, head, built, number))
        snapshot = swapped(
            store,
            head,
            manifests,
            built.base,
            built.by_text,
            built.replaced,
            compaction=number,
        )
        if put_snapshot(store, snapshot):
            ledger.refresh()
            return True
        # A running job has folded its records meanwhile: the same files, after its snapshot.
        delete_files(store, [m.path for m in manifests])
        ledger.refresh()
    return False


def _still_holds(ledger: Ledger, built: _Built) -> bool:
    """Whether no fold has absorbed a newer generation of a shard than the files hold.

    A newer generation that is only a record so far does no harm: it stays pending.
    """
    absorbed = ledger.absorbed()
    return all(absorbed.get(shard, held) <= held for shard, held in built.shards.items())


def _mark(ledger: Ledger, head: Snapshot, built: _Built, number: int) -> Iterator[ManifestFile]:
    """Manifests that mark each shard whose rows are in the base files."""
    absorbed = ledger.absorbed()
    in_base = {"base": number, "files": []}
    live = [record for record in built.live if absorbed.get(record.shard, -1) < record.generation]
    newer = {record.shard for record in live}
    for manifest in head.manifests:
        table = read_manifest(ledger.store, manifest)
        rows = list(zip(shard_ids(table), table.column("gen").to_pylist(), strict=True))
        # Rows that a newer generation has replaced are dropped on the way.
        newest = [absorbed[shard] == g and shard not in newer for shard, g in rows]
        held = [built.shards.get(shard) == g for shard, g in rows]
        marked = with_values(table, held, in_base).filter(pa.array(newest, pa.bool_()))
        if marked.num_rows:
            yield write_manifest(ledger.store, marked, head.n + 1)
    if live:
        table = newest_only(to_table(replace(r, compaction=number, files=()) for r in live))
        yield write_manifest(ledger.store, table, head.n + 1)


def _once(parts: Sequence[DataFile], table: str) -> Iterable[DataFile]:
    return {part.path: part for part in parts if part.table == table}.values()


def _report(ledger: Ledger, before: set[str], start: float) -> CompactReport:
    head = ledger.snapshot
    after = ledger.paths()
    return CompactReport(
        shards=head.shards,
        files_before=len(before),
        files_after=len(after),
        replaced=len(before - after),
        words=sum(part.rows for part in head.base if part.table == "words"),
        elapsed_s=time.monotonic() - start,
    )
