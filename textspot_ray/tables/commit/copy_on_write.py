"""What a new generation of a shard takes over from the one before.

A retry or redo reads only some of a shard's items again. The rows of the others are copied, so
that a generation does not depend on files of an older one.

If compact has merged the shard's rows with others into base files, nothing is copied: the new
generation holds only the new rows, and `absorb_pending` (in `rewrite`) removes the old ones from
the base when it makes the generation visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError, MissingFileError
from textspot_ray.records import Counts, Status
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile, read_commit_record
from textspot_ray.tables.commit.data_files import open_data_file, read_data_file, read_rows
from textspot_ray.tables.commit.manifest import find_commit_record
from textspot_ray.tables.commit.snapshot import Snapshot, latest_snapshot
from textspot_ray.tables.rows import page_counts
from textspot_ray.tables.schema import clean_text, item_id

_TRIES = 10


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What a row of ``images`` and its row of ``errors`` add to the counts."""

    image_id: str
    item_id: str
    page: int
    status: Status
    n_words: int
    damaged: bool
    kind: str | None = None

    @property
    def counts(self) -> Counts:
        """As it was counted when it was written."""
        return page_counts(self.page, self.status, self.n_words, self.damaged, self.kind)


@dataclass(frozen=True, slots=True)
class CarriedRows:
    """What stays of the previous generation; must be closed.

    Attributes:
        compaction: Number of the compaction whose files hold the rows that stay, -1 if none.
        counts: Sums over all rows that stay.
        dropped: ``image_id`` values whose rows are dropped.
    """

    compaction: int
    counts: Counts
    dropped: frozenset[str]
    _store: Store
    _files: tuple[tuple[DataFile, IO[bytes]], ...]
    _stack: ExitStack

    def rows(self) -> Iterator[tuple[str, pa.Table]]:
        """Rows to write again, with their table's name."""
        for part, file in self._files:
            file.seek(0)
            for rows in read_rows(self._store, part, file):
                yield part.table, without(rows, self.dropped)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


def carry_over(store: Store, previous: CommitRecord, item_ids: Iterable[str]) -> CarriedRows | None:
    """Split a generation's rows into those of some items, which go, and the others, which stay.

    All files are opened and checked at once, because others may delete them a moment later.

    Args:
        store: The output folder.
        previous: The generation's commit record.
        item_ids: Items whose rows go.

    Returns:
        What stays; None if the next generation is committed already, so that nothing is needed.

    Raises:
        StorageError: A committed file is missing or damaged.
    """
    ids = frozenset(clean_text(i) for i in item_ids)
    before = -1
    for _ in range(_TRIES):
        try:
            snapshot = latest_snapshot(store)
            now = _as_it_stands(store, snapshot, previous)
            return None if now is None else _carried(store, now, snapshot.base, ids)
        except MissingFileError:
            if snapshot.n == before:
                raise
            before = snapshot.n
        except FileNotFoundError:  # a snapshot or manifest that a newer one has replaced
            continue
    raise AbortedError(f"{store.uri}: other drivers keep rewriting shard {previous.shard}")


def _as_it_stands(store: Store, snapshot: Snapshot, previous: CommitRecord) -> CommitRecord | None:
    """The generation's record now (its rows may have moved); None if a newer one counts."""
    absorbed = find_commit_record(store, snapshot.manifests, previous.shard)
    if absorbed is not None and absorbed.generation > previous.generation:
        return None
    if read_commit_record(store, previous.shard, previous.generation + 1) is not None:
        return None
    if absorbed is not None and absorbed.generation == previous.generation:
        return absorbed
    return previous


def _carried(
    store: Store, now: CommitRecord, base: Sequence[DataFile], ids: frozenset[str]
) -> CarriedRows:
    if now.compaction >= 0:
        gone = sum_images(find_images(store, [*base, *now.files], ids))
        counts = now.counts - gone
        return CarriedRows(now.compaction, counts, frozenset(), store, (), ExitStack())
    with ExitStack() as stack:
        # Words are copied as well, though few change: a file that is only named could be replaced
        # and deleted before the record that names it exists.
        files = [(p, stack.enter_context(open_data_file(store, p, whole=True))) for p in now.files]
        rows = _images_of(store, files, ids)
        return CarriedRows(
            compaction=-1,
            counts=now.counts - sum_images(rows),
            dropped=frozenset(row.image_id for row in rows),
            _store=store,
            _files=tuple(files),
            _stack=stack.pop_all(),
        )


def find_images(
    store: Store, files: Iterable[DataFile], item_ids: frozenset[str]
) -> list[ImageRow]:
    """The rows (of every page) of some items in a set of files.

    Args:
        store: The output folder.
        files: Where to look, of any table.
        item_ids: Names of the items, as the tables have them.
    """
    return _images_of(store, [(part, None) for part in files], item_ids)


def _images_of(
    store: Store, files: Sequence[tuple[DataFile, IO[bytes] | None]], item_ids: frozenset[str]
) -> list[ImageRow]:
    def read(table: str, columns: list[str]) -> Iterator[pa.Table]:
        for part, file in files:
            if part.table != table:
                continue
            if file is None:
                yield from read_data_file(store, part, columns)
            else:
                yield from read_rows(store, part, file, columns)

    firsts = pa.array(sorted(item_ids), pa.string())
    found: list[ImageRow] = []
    for rows in read("images", ["image_id", "page", "status", "n_words", "damage"]):
        # Only first pages have the item's own id; the few others are compared one by one.
        likely = pc.or_(
            pc.is_in(rows.column("image_id"), firsts), pc.greater(rows.column("page"), 0)
        )
        for row in rows.filter(likely).to_pylist():
            item = item_id(row["image_id"], row["page"])
            if item in item_ids:
                found.append(
                    ImageRow(
                        row["image_id"],
                        item,
                        row["page"],
                        Status(row["status"]),
                        row["n_words"],
                        row["damage"] is not None,
                    )
                )
    failed = pa.array((r.image_id for r in found if r.status is Status.FAILED), pa.string())
    kinds: dict[str, str] = {}
    for rows in read("errors", ["image_id", "kind"]) if len(failed) else ():
        chosen = rows.filter(pc.is_in(rows.column("image_id"), failed))
        ids, names = chosen.column("image_id").to_pylist(), chosen.column("kind").to_pylist()
        kinds.update(zip(ids, names, strict=True))
    return [replace(row, kind=kinds.get(row.image_id)) for row in found]


def sum_images(rows: Iterable[ImageRow]) -> Counts:
    """What rows add to the counts."""
    return sum((row.counts for row in rows), Counts())


def without(rows: pa.Table, image_ids: frozenset[str]) -> pa.Table:
    """Rows but for those of some images."""
    if not image_ids:
        return rows
    gone = pc.is_in(rows.column("image_id"), pa.array(sorted(image_ids), pa.string()))
    return rows.filter(pc.invert(gone))
