"""Taking the rows of some images out of files that hold others too, by copying the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile, new_attempt
from textspot_ray.tables.commit.copy_on_write import find_images, without
from textspot_ray.tables.commit.data_files import delete_files, read_data_file
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.commit.manifest import find_commit_record, to_table
from textspot_ray.tables.commit.snapshot import Snapshot, count_rows, merge_tiers, put_snapshot
from textspot_ray.tables.maintenance.compacted_files import CompactedFileWriter
from textspot_ray.tables.schema import item_id

TRIES = 8


@dataclass(frozen=True, slots=True)
class RewriteResult:
    """Files without the rows of some images.

    Attributes:
        parts: The files to use instead: untouched ones by name, others rewritten.
        written: Paths of the rewritten ones.
        replaced: Paths of those they replace.
    """

    parts: tuple[DataFile, ...]
    written: tuple[str, ...]
    replaced: tuple[str, ...]


def rewrite_without(
    store: Store, parts: Sequence[DataFile], image_ids: frozenset[str], n: int
) -> RewriteResult:
    """Rewrite those files that hold rows of the images, for snapshot ``n``."""
    wanted = pa.array(sorted(image_ids), pa.string())
    result: list[DataFile] = []
    written: list[str] = []
    replaced: list[str] = []
    for part in parts:
        if not _holds(store, part, wanted):
            result.append(part)
            continue
        writer = CompactedFileWriter(store, part.table, n)
        try:
            for rows in read_data_file(store, part, whole=True):
                writer.write(without(rows, image_ids))
            fresh = writer.finish()
        except BaseException:
            writer.discard()
            delete_files(store, written)
            raise
        result.extend(fresh)
        written.extend(p.path for p in fresh)
        replaced.append(part.path)
    return RewriteResult(tuple(result), tuple(written), tuple(replaced))


def absorb_pending(ledger: Ledger) -> int:
    """Make the retries and redos of compacted shards visible.

    Their new rows are committed, but the old rows of the same images are in base files: these are
    rewritten without them, and one snapshot swaps both. A kill at any moment leaves the state
    before or after; the next run absorbs again what is left.

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
    n = head.n + 1
    ids = frozenset(_item_ids(store, pending))
    rows: list[CommitRecord] = []
    written: list[str] = []
    old: dict[str, DataFile] = {}
    before = {m.shard: find_commit_record(store, head.manifests, m.shard) for m in pending}
    for record in before.values():
        if record is not None:
            old.update((part.path, part) for part in record.files)
    found = find_images(store, [*head.base, *old.values()], ids)
    image_ids = frozenset(row.image_id for row in found)
    base = rewrite_without(store, head.base, image_ids, n)
    by_text = rewrite_without(store, head.by_text, image_ids, n)
    written += [*base.written, *by_text.written]
    replaced = [*base.replaced, *by_text.replaced]
    for record in pending:
        previous = before[record.shard]
        # Rows of earlier retries that this one has not repeated stay beside its own.
        kept = () if previous is None or record.base < 0 else previous.files
        own = rewrite_without(store, kept, image_ids, n)
        written += own.written
        replaced += own.replaced
        number = head.compaction if previous is None else previous.base
        rows.append(replace(record, base=number, files=(*own.parts, *record.files)))
    manifests, manifest = merge_tiers(store, head, to_table(rows))
    counts, shards = count_rows(store, manifests)
    snapshot = replace(
        head,
        n=n,
        attempt=new_attempt(),
        created_at=time.time(),
        manifests=manifests,
        base=base.parts,
        by_text=by_text.parts,
        replaced=still_there(store, head, replaced),
        rewritten=head.rewritten + 1,
        counts=counts,
        shards=shards,
    )
    if put_snapshot(store, snapshot):
        return True
    delete_files(store, [*written, manifest.path])
    return False


def still_there(store: Store, head: Snapshot, more: Iterable[str]) -> tuple[str, ...]:
    """Replaced files that still have to be deleted, older ones included."""
    return (*(path for path in head.replaced if store.exists(path)), *more)


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
