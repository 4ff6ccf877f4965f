"""The writer of one shard: it takes results, writes data files, and finally the commit record.

The record is put by `commit_record.put_commit_record` once all data files are stored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from types import TracebackType

from textspot_ray.records import TIMED_STAGES, Counts, ImageResult, Shard
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import (
    CommitRecord,
    DataFile,
    data_file_path,
    new_attempt,
    put_commit_record,
)
from textspot_ray.tables.commit.copy_on_write import (
    carry_over,
    find_images,
    sum_images,
    without,
)
from textspot_ray.tables.commit.data_files import DataFileWriter, delete_files, read_data_file
from textspot_ray.tables.commit.manifest import read_forgotten
from textspot_ray.tables.commit.snapshot import latest_snapshot
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.ids import IdIndex, hash_ids
from textspot_ray.tables.rows import RowBuffer, counts_of, sound
from textspot_ray.tables.schema import TABLES, clean_text

ROWS_PER_GROUP = 20_000  # words and images held before they go to disk: some 10 MB
MAX_HELD_RESULTS = 4_096  # results waiting for an earlier image of the shard


class ShardWriter:
    """Collects the results of one shard and commits them.

    Results may come in any order; rows are written in the order of the shard's items, as far as
    `MAX_HELD_RESULTS` allows. Use it as a context manager: leaving it without a commit discards
    what was written.

    Args:
        store: The output folder.
        shard: The items to expect, the generation and the reason.
        run_id: Name of the run.
        fingerprint: Digest of the table's fingerprint (`Ledger.digest`).
        previous: Commit record of the generation before; needed for generations above 0.
        redo: The newest redo segment of the plan that the items come from, else -1.
        environment: Versions, CPU flags, node; stored in the record.
    """

    def __init__(
        self,
        store: Store,
        shard: Shard,
        *,
        run_id: str,
        fingerprint: str,
        previous: CommitRecord | None = None,
        redo: int = -1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if (shard.generation > 0) != (previous is not None):
            raise ValueError("generations above 0, and only they, need the previous record")
        self._store = store
        self._shard = shard
        self._run_id = run_id
        self._fingerprint = fingerprint
        self._previous = previous
        self._redo = redo
        self._environment = dict(environment or {})
        self._started_at = time.time()
        self.attempt = new_attempt()
        self._index = {item.image_id: i for i, item in enumerate(shard.items)}
        self._order = _ItemOrder(len(shard.items))
        self._rows = RowBuffer(run_id, str(shard.id))
        self._counts = Counts()
        self._stage_s = dict.fromkeys(TIMED_STAGES, 0.0)
        self._parts = {
            table: DataFileWriter(
                store, table, data_file_path(table, shard.id, shard.generation, self.attempt)
            )
            for table in TABLES
        }
        self._uploaded: list[DataFile] = []
        self._closed = False

    def add(self, result: ImageResult) -> Counts:
        """Take a finished page.

        Returns:
            What it adds to the counts. A result that cannot be stored counts as failed here as in
            the tables.

        Raises:
            StorageError: The local or the output disk is full or broken.
            ValueError: The page is not of this shard, or was added before.
        """
        index = self._index.get(result.item.image_id)
        if index is None:
            raise ValueError(f"{result.item.image_id} is not in shard {self._shard.id}")
        result = sound(result)
        for ready in self._order.add(index, result):
            self._rows.add(ready)
        if self._rows.n_rows >= ROWS_PER_GROUP:
            self._flush()
        for stage in TIMED_STAGES:
            self._stage_s[stage] += getattr(result, f"{stage}_s")
        counts = counts_of(result)
        self._counts += counts
        return counts

    def commit(self) -> CommitRecord | None:
        """Write the data files, then the record: from then on the shard counts.

        Returns:
            The record; None if another attempt has committed this generation (its rows count, this
            writer's files are deleted).

        Raises:
            StorageError: Storage refuses; nothing of this attempt counts.
            ValueError: An item of the shard has no result.
        """
        missing = self._order.missing()
        if missing:
            names = ", ".join(self._shard.items[i].image_id for i in missing[:3])
            raise ValueError(f"shard {self._shard.id} lacks {len(missing)} items: {names}")
        try:
            record = self._write_parts()
            if record is not None:
                record = self._without_forgotten(record)
        except BaseException:
            self.discard()
            raise
        if record is None:
            self.discard()
            return None
        # If the put fails, the record may still be there: files that it may name must stay.
        self._closed = True
        if put_commit_record(self._store, record):
            return record
        delete_files(self._store, [part.path for part in self._uploaded])
        return None

    def discard(self) -> None:
        """Discard what was written; none of it ever counted."""
        if self._closed:
            return
        self._closed = True
        for part in self._parts.values():
            part.discard()
        with suppress(Exception):
            delete_files(self._store, [part.path for part in self._uploaded])

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()

    def _write_parts(self) -> CommitRecord | None:
        """Upload the data files; None if another attempt has committed this generation."""
        for ready in self._order.rest():
            self._rows.add(ready)
        self._flush()
        counts, compaction = self._counts, -1
        if self._previous is not None:
            ids = [item.image_id for item in self._shard.items]
            carried = carry_over(self._store, self._previous, ids)
            if carried is None:
                return None
            with closing(carried):
                for table, rows in carried.rows():
                    self._parts[table].write(rows)
            compaction, counts = carried.compaction, carried.counts + counts
        fault("before_parts")
        for table in TABLES:
            part = self._parts[table].finish()
            if part is not None:
                self._uploaded.append(part)
                fault("between_parts")
        return CommitRecord(
            shard=self._shard.id,
            generation=self._shard.generation,
            attempt=self.attempt,
            run_id=self._run_id,
            reason=self._shard.reason,
            fingerprint=self._fingerprint,
            counts=counts,
            files=tuple(self._uploaded),
            redo=self._redo,
            compaction=compaction,
            environment=self._environment,
            started_at=self._started_at,
            finished_at=time.time(),
            stage_s=self._stage_s,
        )

    def _without_forgotten(self, record: CommitRecord) -> CommitRecord:
        """The record without rows of images that were forgotten while the shard was in work."""
        names = [item.image_id for item in self._shard.items]
        gone = self._forgotten().find(*hash_ids(names)) >= 0
        items = frozenset(clean_text(n) for n, g in zip(names, gone, strict=True) if g)
        rows = find_images(self._store, self._uploaded, items) if items else []
        if not rows:
            return record
        image_ids = frozenset(row.image_id for row in rows)
        old, self._uploaded = self._uploaded, []
        for part in old:
            path = part.path.replace(self.attempt, f"{self.attempt}-1")
            writer = DataFileWriter(self._store, part.table, path)
            try:
                for some in read_data_file(self._store, part, whole=True):
                    writer.write(without(some, image_ids))
                kept = writer.finish()
            finally:
                writer.discard()
            if kept is not None:
                self._uploaded.append(kept)
        delete_files(self._store, [part.path for part in old])
        counts = record.counts - sum_images(rows)
        return replace(record, counts=counts, files=tuple(self._uploaded))

    def _forgotten(self) -> IdIndex:
        """Hashes of all items that were ever removed for good."""
        index = IdIndex()
        while (file := latest_snapshot(self._store).forgotten_file) is not None:
            try:
                hi, lo = read_forgotten(self._store, file)
            except FileNotFoundError:  # more were forgotten
                continue
            index.add(hi, lo)
            break
        return index

    def _flush(self) -> None:
        for table in TABLES:
            self._parts[table].write(self._rows.take(table))


class _ItemOrder:
    """Passes results on in the order of items and pages, holding back those that come early.

    Each page says how many its item has; if that is too few, the others are not waited for.
    """

    def __init__(self, n_items: int) -> None:
        self._pages = [0] * n_items  # bit mask of the pages that came
        self._expected = [1] * n_items
        self._held: dict[int, dict[int, ImageResult]] = {}
        self._n_held = 0
        self._item = 0
        self._page = 0

    def add(self, index: int, result: ImageResult) -> list[ImageResult]:
        """Results that can be written now."""
        bit = 1 << result.page
        if self._pages[index] & bit:
            raise ValueError(f"page {result.page} of {result.item.image_id} was added before")
        self._pages[index] |= bit
        if result.info is not None:
            self._expected[index] = max(self._expected[index], result.info.pages)
        if index < self._item:
            return [result]
        self._held.setdefault(index, {})[result.page] = result
        self._n_held += 1
        ready = self._ready()
        return ready if self._n_held < MAX_HELD_RESULTS else [*ready, *self.rest()]

    def rest(self) -> list[ImageResult]:
        """All that is held, in order."""
        held = [
            self._held[index][page]
            for index in sorted(self._held)
            for page in sorted(self._held[index])
        ]
        self._held.clear()
        self._n_held = 0
        return held

    def missing(self) -> list[int]:
        """Items whose first page never came."""
        return [index for index, pages in enumerate(self._pages) if not pages & 1]

    def _ready(self) -> list[ImageResult]:
        ready: list[ImageResult] = []
        while self._item < len(self._pages):
            pages = self._held.get(self._item, {})
            while self._page in pages:
                ready.append(pages.pop(self._page))
                self._page += 1
            if self._pages[self._item].bit_count() < self._expected[self._item]:
                break
            ready.extend(pages[page] for page in sorted(pages))
            self._held.pop(self._item, None)
            self._item += 1
            self._page = 0
        self._n_held -= len(ready)
        return ready
