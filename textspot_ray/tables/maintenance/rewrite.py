"""Removing the rows of some images from shared files, by copying the other rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile
from textspot_ray.tables.commit.copy_on_write import find_images, without
from textspot_ray.tables.commit.data_files import delete_files, read_data_file
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.commit.manifest import ManifestFile, find_commit_record, to_table
from textspot_ray.tables.commit.snapshot import Snapshot, merge_tiers, put_snapshot, swapped
from textspot_ray.tables.maintenance.compacted_files import CompactedFileWriter
from textspot_ray.tables.schema import item_id

TRIES = 8


class Rewrite:
    """A next snapshot whose files lack the rows of some images; files without them stay.

    Args:
        store: The output folder.
        head: The latest snapshot, whose base and sorted words are rewritten at once.
        image_ids: Images whose rows are removed.
    """

    def __init__(self, store: Store, head: Snapshot, image_ids: frozenset[str]) -> None:
        self._store = store
        self._head = head
        self._image_ids = image_ids
        self._replaced: list[str] = []
        self.written: list[str] = []  # paths that are litter unless `publish` wins
        self._base = self.files(head.base)
        self._by_text = self.files(head.by_text)

    def files(self, files: Iterable[DataFile]) -> tuple[DataFile, ...]:
        """The files to use instead of those given.

        Raises:
            StorageError: Storage refuses or a file is damaged; what was written is deleted.
        """
        wanted = pa.array(sorted(self._image_ids), pa.string())
        result: list[DataFile] = []
        try:
            for file in files:
                if not _holds(self._store, file, wanted):
                    result.append(file)
                    continue
                fresh = self._copied(file)
                result.extend(fresh)
                self.written.extend(f.path for f in fresh)
                self._replaced.append(file.path)
        except BaseException:
            delete_files(self._store, self.written)
            raise
        return tuple(result)

    def publish(self, manifests: tuple[ManifestFile, ...], **more: Any) -> bool:
        """Make it the current state by one put.

        Args:
            manifests: The absorbed records, with their rewritten files.
            more: Further fields of the snapshot.

        Returns:
            Whether it counts; if another snapshot came first, what was written is deleted.
        """
        snapshot = swapped(
            self._store, self._head, manifests, self._base, self._by_text, self._replaced, **more
        )
        if put_snapshot(self._store, snapshot):
            return True
        delete_files(self._store, self.written)
        return False

    def _copied(self, file: DataFile) -> list[DataFile]:
        writer = CompactedFileWriter(self._store, file.table, self._head.n + 1)
        try:
            for rows in read_data_file(self._store, file, whole=True):
                writer.write(without(rows, self._image_ids))
            return writer.finish()
        except BaseException:
            writer.discard()
            raise


def absorb_pending(ledger: Ledger) -> int:
    """Make the retries and redos of compacted shards visible.

    Their new rows are committed, but the old rows of the same images are in base files. These are
    rewritten without them, and one snapshot replaces both. A kill at any moment leaves the state
    before or after it; the next run absorbs what is left.

    Returns:
        How many shards have become visible.
    """
    for _ in range(TRIES):
        ledger.refresh()
        pending = ledger.pending()
        if not pending:
            return 0
        if ledger.on_latest(lambda: _absorb(ledger, ledger.pending())):
            ledger.refresh()
            return len(pending)
    raise AbortedError(f"{ledger.store.uri}: other drivers keep changing it; run again")


def _absorb(ledger: Ledger, pending: Sequence[CommitRecord]) -> bool:
    store, head = ledger.store, ledger.snapshot
    ids = frozenset(_item_ids(store, pending))
    before = {r.shard: find_commit_record(store, head.manifests, r.shard) for r in pending}
    old = {file.path: file for r in before.values() if r is not None for file in r.files}
    found = find_images(store, [*head.base, *old.values()], ids)
    rewrite = Rewrite(store, head, frozenset(row.image_id for row in found))
    records: list[CommitRecord] = []
    for record in pending:
        previous = before[record.shard]
        # Rows of earlier retries that this one did not repeat stay beside its own.
        kept = () if previous is None or record.compaction < 0 else rewrite.files(previous.files)
        number = head.compaction if previous is None else previous.compaction
        records.append(replace(record, compaction=number, files=(*kept, *record.files)))
    manifests = merge_tiers(store, head, to_table(records))
    rewrite.written.append(manifests[-1].path)
    return rewrite.publish(manifests)


def _item_ids(store: Store, records: Sequence[CommitRecord]) -> Iterable[str]:
    for record in records:
        for part in record.files:
            if part.table == "images":
                for rows in read_data_file(store, part, ["image_id", "page"]):
                    pairs = zip(
                        *(rows.column(c).to_pylist() for c in rows.column_names), strict=True
                    )
                    yield from (item_id(image_id, page) for image_id, page in pairs)


def _holds(store: Store, part: DataFile, image_ids: pa.Array) -> bool:
    return any(
        pc.any(pc.is_in(rows.column("image_id"), image_ids)).as_py()
        for rows in read_data_file(store, part, ["image_id"])
    )
