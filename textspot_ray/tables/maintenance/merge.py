"""Merging two tables of the same settings: plans are joined, rows copied as by compact.

Nothing counts before the new folder's ``table.json`` exists, which is put last; a merge that was
killed is simply run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256

import numpy as np
import pyarrow as pa

from textspot_ray.errors import (
    AbortedError,
    FingerprintError,
    MissingFileError,
    TableError,
)
from textspot_ray.records import Counts, ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import (
    FOLDERS,
    STATE,
    CommitRecord,
    DataFile,
    new_attempt,
)
from textspot_ray.tables.commit.copy_on_write import ImageRow, find_images, sum_images, without
from textspot_ray.tables.commit.data_files import delete_files, read_data_file
from textspot_ray.tables.commit.ledger import RUNS, TABLE_FILE, Ledger, differences, open_ledger
from textspot_ray.tables.commit.manifest import to_table, write_forgotten, write_manifest
from textspot_ray.tables.commit.snapshot import Snapshot, put_snapshot, successor
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.ids import IdIndex, hash_ids
from textspot_ray.tables.maintenance.compact import MEMORY_BYTES
from textspot_ray.tables.maintenance.compacted_files import (
    ROWS_PER_FILE,
    CompactedFileWriter,
    read_data_files,
    write_by_text,
)
from textspot_ray.tables.maintenance.rewrite import TRIES, absorb_pending
from textspot_ray.tables.maintenance.vacuum import finish, is_numbered
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.segment import (
    SegmentFile,
    build_segment,
    encode_rows,
    segment_path,
)
from textspot_ray.tables.schema import TABLES, WORDS_BY_TEXT

MERGED = f"{STATE}/merged.json"  # sources and report of the merge


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What was merged.

    Attributes:
        counts: Sums of the new table.
        overlap: Items that were in both plans; one of each pair was taken.
        shards_left: Shards of both that are not committed yet.
    """

    counts: Counts
    overlap: int
    shards_left: int


class _Side:
    """One of the two tables, and which of its items are dropped."""

    def __init__(self, ledger: Ledger, offset: int) -> None:
        absorb_pending(ledger)
        ledger.refresh()
        self.ledger = ledger
        self.state = ledger.state()
        self.offset = offset  # added to plan numbers in the new table
        self.plan = Plan(ledger.store)
        self.plan.refresh()
        self.index = self.plan.index()
        self.hashes = self.plan.hashes()
        self.settled = self.plan.settled_rows(ledger.settled())
        self.forgotten = np.zeros(len(self.index), np.bool_)
        at = self.index.find(*ledger.forgotten())
        self.forgotten[at[at >= 0]] = True
        self.dropped = np.zeros(len(self.index), np.bool_)

    def shift(self, shard: ShardId) -> ShardId:
        """A shard's name in the new table."""
        return ShardId(shard.plan + self.offset, shard.index)

    def dropped_index(self) -> IdIndex:
        """The hashes of the dropped items."""
        hi, lo = self.hashes
        index = IdIndex()
        index.add(hi[self.dropped], lo[self.dropped])
        return index

    def dropped_rows(self) -> list[ImageRow]:
        """Their rows in ``images``."""
        if not self.dropped.any():
            return []
        shards = {self.plan.shard_at(int(ordinal)) for ordinal in np.flatnonzero(self.dropped)}
        names = [name for shard in shards for name in self.plan.image_ids(shard)]
        index = self.dropped_index()
        gone = index.find(*hash_ids(names)) >= 0
        chosen = frozenset(name for name, g in zip(names, gone, strict=True) if g)
        return find_images(self.ledger.store, self.ledger.files(), chosen)


def merge(first: Ledger, second: Ledger, out: Store) -> MergeReport:
    """Write a new table with the rows of two.

    An item in both plans is taken once: from the table that has it committed, from the first if
    both or neither do. An item that one of them has forgotten stays forgotten. What neither has
    committed stays planned, and `run` on the new folder continues with it.

    A merge that was killed can be run again at any point, even after its last step.

    Args:
        first: The one table's ledger.
        second: The other's.
        out: The new folder.

    Raises:
        FingerprintError: The two were made with different settings.
        TableError: There is another table at ``out`` already.
        StorageError: Storage refuses, or a committed file is damaged.
    """
    if named := differences(first.fingerprint, second.fingerprint, ("in the one", "in the other")):
        raise FingerprintError(
            f"{first.store.uri} and {second.store.uri} were made with different settings ({named})"
        )
    for _ in range(TRIES):
        states = first.state(), second.state()
        try:
            one = _Side(first, 0)
            two = _Side(second, one.plan.next_seq)
            states = one.state, two.state
            sources = [f"{side.store.uri} {_digest(side)}" for side in (first, second)]
            if out.exists(TABLE_FILE):
                report = _merged_before(out, sources)
                finish(open_ledger(out, create=False))
                return report
            for folder in (STATE, *FOLDERS):  # of a merge that was killed, and nothing else
                old = [e.path for e in out.list(f"{folder}/")]
                delete_files(out, [path for path in old if folder == STATE or is_numbered(path)])
            return _merge(one, two, out, sources)
        except (FileNotFoundError, MissingFileError):
            moved = [side.has_moved(s) for side, s in zip((first, second), states, strict=True)]
            if not any(moved):
                raise
    raise AbortedError("other drivers keep changing the tables; run the merge again")


def _merge(one: _Side, two: _Side, out: Store, sources: Sequence[str]) -> MergeReport:
    overlap = _choose(one, two)
    records: list[CommitRecord] = []
    writers = {table: CompactedFileWriter(out, table, 1) for table in TABLES}
    base: list[DataFile] = []
    try:
        for side in (one, two):
            records += _copy(side, out, writers)
        for table in TABLES:
            base += writers[table].finish()
    except BaseException:
        for writer in writers.values():
            writer.discard()
        raise
    words = [part for part in base if part.table == "words"]
    counts = sum((record.counts for record in records), Counts())
    forgotten = [
        np.concatenate([side.hashes[half][side.forgotten & ~side.dropped] for side in (one, two)])
        for half in (0, 1)
    ]
    by_text = write_by_text(
        out, read_data_files(out, words, WORDS_BY_TEXT.names), 1, MEMORY_BYTES, ROWS_PER_FILE
    )
    hashes = forgotten[0], forgotten[1]
    snapshot = successor(
        Snapshot(),
        manifests=(write_manifest(out, to_table(records), 1),) if records else (),
        base=tuple(base),
        by_text=tuple(by_text),
        compaction=0,
        rewritten=1,
        counts=counts,
        shards=len(records),
        forgotten=len(hashes[0]),
        forgotten_file=write_forgotten(out, 1, *hashes) if len(hashes[0]) else None,
    )
    put_snapshot(out, snapshot)
    left = one.plan.n_shards + two.plan.n_shards - len(records)
    facts = {"sources": sources, "counts": asdict(counts), "overlap": overlap, "shards_left": left}
    out.put(MERGED, json.dumps(facts, indent=1).encode())
    fault("table")
    finish(open_ledger(out, one.ledger.fingerprint))
    return MergeReport(counts, overlap, left)


def _merged_before(out: Store, sources: Sequence[str]) -> MergeReport:
    """The report of an earlier merge of the same states of the same tables."""
    try:
        facts = json.loads(out.read(MERGED))
        if facts["sources"] == list(sources):
            return MergeReport(Counts(**facts["counts"]), facts["overlap"], facts["shards_left"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    raise TableError(f"{out.uri} holds a table already: choose an empty folder for the merge")


def _digest(ledger: Ledger) -> str:
    """Sixteen hex digits that identify a table's content."""
    files = sorted(part.sha256 for part in ledger.on_latest(lambda: list(ledger.files())))
    return sha256("".join(files).encode()).hexdigest()[:16]


def _choose(one: _Side, two: _Side) -> int:
    """Decide for each item in both plans which side drops it; returns how many there are."""
    at = one.index.find(*two.hashes)
    in_two = np.flatnonzero(at >= 0)
    in_one = at[in_two]
    keep_one = one.forgotten[in_one] | (
        ~two.forgotten[in_two] & (one.settled[in_one] | ~two.settled[in_two])
    )
    two.dropped[in_two[keep_one]] = True
    one.dropped[in_one[~keep_one]] = True
    return len(in_two)


def _copy(side: _Side, out: Store, writers: dict[str, CompactedFileWriter]) -> list[CommitRecord]:
    """Copy a side's plan, rows and run records; its records as the new table has them."""
    store = side.ledger.store
    _copy_plan(side, out)
    gone = side.dropped_rows()
    image_ids = frozenset(row.image_id for row in gone)
    records = sorted(side.ledger.commit_records(), key=lambda m: (m.shard.plan, m.shard.index))
    parts = [*side.ledger.snapshot.base, *(part for record in records for part in record.files)]
    for part in {part.path: part for part in parts}.values():
        for rows in read_data_file(store, part, whole=True):
            writers[part.table].write(_moved(without(rows, image_ids), side))
    for entry in store.list(RUNS):
        out.put(entry.path, store.read(entry.path))
    by_shard: dict[ShardId, list[ImageRow]] = {}
    places = side.plan.locate(row.item_id for row in gone)
    for row, shard in zip(gone, places, strict=True):
        if shard is not None:
            by_shard.setdefault(shard, []).append(row)
    return [
        replace(
            record,
            shard=side.shift(record.shard),
            counts=record.counts - sum_images(by_shard.get(record.shard, [])),
            files=(),
            compaction=0,
            redo=record.redo + side.offset if record.redo >= 0 else -1,
        )
        for record in records
    ]


def _moved(rows: pa.Table, side: _Side) -> pa.Table:
    """Rows with the names that their shards have in the new table."""
    if not side.offset or "shard" not in rows.column_names:
        return rows
    shards = rows.column("shard").combine_chunks().dictionary_encode()
    names = [
        str(side.shift(ShardId(*map(int, n.split("-"))))) for n in shards.dictionary.to_pylist()
    ]
    moved = pa.array(names, pa.string()).take(shards.indices)
    return rows.set_column(rows.column_names.index("shard"), "shard", moved)


def _copy_plan(side: _Side, out: Store) -> None:
    gone = side.dropped_index()
    for seq in side.plan.seqs:
        file = SegmentFile(side.ledger.store, seq)
        rows = file.rows()
        hashes = (rows["id_hi"].to_numpy(), rows["id_lo"].to_numpy())
        stays = gone.find(*hashes) < 0
        head = file.head
        cuts = [head.cut(i) for i in range(len(head))]
        before = np.concatenate([[0], np.cumsum(stays)])
        moved = [
            replace(
                cut,
                shard=side.shift(cut.shard),
                start=int(before[cut.start]),
                stop=int(before[cut.stop]),
            )
            for cut in cuts
        ]
        fresh = build_segment(
            seq + side.offset, new_attempt(), head.run_id, head.kind, head.created_at, moved
        )
        kept = rows.filter(pa.array(stays))
        out.put(segment_path(fresh.seq), encode_rows(fresh, kept))
        file.close()
