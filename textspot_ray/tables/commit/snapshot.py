"""Snapshots: the state of a table as one small file that names manifests and base files.

The next snapshot, ``_textspot/snap/<n>.json``, is put only if absent: of two drivers that fold at
once one wins, and the other discards its work. Manifests of similar size are merged, so that a
record is rewritten once per tier and not once per fold, and a snapshot names a few dozen manifests
at most, however many shards there are.

A reader uses the latest snapshot and the records that it has not absorbed. What a snapshot has
replaced stays for a grace period, for readers that opened the one before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from textspot_ray.errors import StorageError
from textspot_ray.records import Counts
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.codec import decode_record, encode_record, put_once
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile, new_attempt
from textspot_ray.tables.commit.manifest import (
    SNAPSHOTS,
    ManifestFile,
    newest_only,
    read_counts,
    read_manifest,
    sum_counts,
    to_table,
    write_manifest,
)
from textspot_ray.tables.failpoints import fault

MERGE_FACTOR = 8  # manifests of one tier before they are merged
MAX_MERGED_ROWS = 250_000  # some 150 MB in memory; a billion images end in 16 such manifests
_TRIES = 10
_NAME = re.compile(r"(\d{8,})\.json$")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The table's state, without the records put since.

    Attributes:
        n: Its number; the highest counts.
        attempt: Random name of the writing attempt; no other snapshot has it.
        created_at: Unix time, seconds.
        manifests: The absorbed records.
        base: Files of the tables that hold rows of many shards, made by compact.
        by_text: Files of ``words_by_text``: the base's words with fewer columns, sorted by text.
        compaction: Number of the compaction that made the base, -1 before the first.
        replaced: Base files of older snapshots that wait to be deleted.
        rewritten: How often compact, forget or a retry after compact has replaced files.
        counts: Sums over the absorbed records.
        shards: How many shards are absorbed.
        forgotten: How many items were removed for good.
        forgotten_file: Path of the file with the hashes of their ids.
    """

    n: int = 0
    attempt: str = ""
    created_at: float = 0.0
    manifests: tuple[ManifestFile, ...] = ()
    base: tuple[DataFile, ...] = ()
    by_text: tuple[DataFile, ...] = ()
    compaction: int = -1
    replaced: tuple[str, ...] = ()
    rewritten: int = 0
    counts: Counts = field(default_factory=Counts)
    shards: int = 0
    forgotten: int = 0
    forgotten_file: str | None = None


def snapshot_path(n: int) -> str:
    """Path of a snapshot."""
    return f"{SNAPSHOTS}{n:08d}.json"


def snapshot_numbers(store: Store) -> list[int]:
    """Numbers of the existing snapshots, in order."""
    names = (_NAME.search(entry.path) for entry in store.list(SNAPSHOTS))
    return sorted(int(match[1]) for match in names if match)


def latest_snapshot(store: Store) -> Snapshot:
    """The snapshot that counts; an empty one with number 0 before the first."""
    for _ in range(_TRIES):
        numbers = snapshot_numbers(store)
        try:
            return read_snapshot(store, numbers[-1]) if numbers else Snapshot()
        except FileNotFoundError:  # vacuumed since a newer one has come
            continue
    raise StorageError(f"{store.uri}: snapshots come and go: is it being deleted?")


def read_snapshot(store: Store, n: int) -> Snapshot:
    """Read one snapshot.

    Raises:
        TableError: It is damaged or of a newer version.
    """
    path = snapshot_path(n)
    return decode_record(store.read(path), Snapshot, f"{store.uri}/{path}", "snapshot")


def put_snapshot(store: Store, snapshot: Snapshot) -> bool:
    """Make a snapshot the current one, unless another has its number already."""
    fault("before_snapshot")
    # Old snapshots are deleted, so a free number may have been used before.
    numbers = snapshot_numbers(store)
    if numbers and numbers[-1] >= snapshot.n:
        return False
    won = put_once(store, snapshot_path(snapshot.n), encode_record(snapshot))
    fault("after_snapshot")
    return won


def fold(store: Store, head: Snapshot, records: Sequence[CommitRecord]) -> Snapshot | None:
    """Absorb records into the next snapshot.

    Args:
        store: The output folder.
        head: The latest snapshot.
        records: Commit records that ``head`` has not absorbed.

    Returns:
        The new snapshot, or None if another one was first; then nothing has changed.
    """
    new = newest_only(to_table(records))
    manifests = merge_tiers(store, head, new)
    if any(record.generation for record in records):
        # Some may replace rows that are counted already.
        counts, shards = count_rows(store, manifests)
    else:
        counts = sum((record.counts for record in records), head.counts)
        shards = head.shards + new.num_rows
    snapshot = successor(head, manifests=manifests, counts=counts, shards=shards)
    if put_snapshot(store, snapshot):
        return snapshot
    store.delete(manifests[-1].path)
    return None


def successor(head: Snapshot, **changes: Any) -> Snapshot:
    """The snapshot after ``head``, with other values in some fields."""
    return replace(head, n=head.n + 1, attempt=new_attempt(), created_at=time.time(), **changes)


def swapped(
    store: Store,
    head: Snapshot,
    manifests: tuple[ManifestFile, ...],
    base: tuple[DataFile, ...],
    by_text: tuple[DataFile, ...],
    replaced: Iterable[str],
    **more: Any,
) -> Snapshot:
    """The next snapshot after compact, forget or a retry has replaced files.

    Args:
        store: The output folder.
        head: The latest snapshot.
        manifests: The absorbed records.
        base: Files with rows of many shards.
        by_text: The sorted copy of their words.
        replaced: Paths that no longer count; older ones stay listed until they are deleted.
        more: Further fields.
    """
    counts, shards = count_rows(store, manifests)
    return successor(
        head,
        manifests=manifests,
        base=base,
        by_text=by_text,
        replaced=(*(path for path in head.replaced if store.exists(path)), *replaced),
        rewritten=head.rewritten + 1,
        counts=counts,
        shards=shards,
        **more,
    )


def count_rows(store: Store, manifests: Sequence[ManifestFile]) -> tuple[Counts, int]:
    """Sums over manifests and their number of shards, each by its newest generation."""
    tables = [read_counts(store, manifest) for manifest in manifests]
    if not tables:
        return Counts(), 0
    table = newest_only(pa.concat_tables(tables))
    return sum_counts(table), table.num_rows


def merge_tiers(store: Store, head: Snapshot, new: pa.Table) -> tuple[ManifestFile, ...]:
    """The manifests after ``head``; the last one is written now, all others are its own.

    It has the new rows, and those of older manifests of its size and smaller.

    Args:
        store: The output folder.
        head: The latest snapshot.
        new: Rows to add.
    """
    kept = sorted(head.manifests, key=lambda manifest: -manifest.rows)
    rows = new.num_rows
    merged = [new]
    while True:
        tier = [m for m in kept if m.rows <= 2 * rows]
        if len(tier) < MERGE_FACTOR - 1 or rows + sum(m.rows for m in tier) > MAX_MERGED_ROWS:
            break
        for manifest in tier:
            kept.remove(manifest)
            merged.append(read_manifest(store, manifest))
            rows += manifest.rows
    table = newest_only(pa.concat_tables(merged))
    return (*kept, write_manifest(store, table, head.n + 1))
