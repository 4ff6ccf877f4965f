"""What a new generation of a shard takes over from the one before.

A retry or redo reads only some of a shard's items again. The rows of the others are carried over:
words files stay by name where they hold nothing of the items read again, everything else is
rewritten without those items' rows.

Where compact has merged the shard's rows with those of others into base files, nothing is
rewritten here: the new generation holds the new rows alone, and `absorb` (in `strike`) takes the
old ones out of the base when it makes the generation visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.records import Counts, Status
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile
from textspot_ray.tables.commit.data_files import read_part
from textspot_ray.tables.commit.manifest import find_marker
from textspot_ray.tables.commit.snapshot import latest_snapshot
from textspot_ray.tables.counts import subtract
from textspot_ray.tables.schema import clean_text, item_id


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What a row of ``images`` and its row of ``errors`` add to the counts."""

    image_id: str
    item_id: str
    page: int
    status: Status
    n_words: int
    kind: str | None


@dataclass(frozen=True, slots=True)
class CarriedRows:
    """What stays of the previous generation.

    Attributes:
        kept: Files that stay by name.
        counts: Sums over all rows that stay, in kept files and in rewritten ones.
        rewritten: Files whose rows stay but for ``dropped``.
        dropped: ``image_id`` values whose rows go.
    """

    kept: tuple[DataFile, ...]
    counts: Counts
    rewritten: tuple[DataFile, ...] = ()
    dropped: frozenset[str] = field(default_factory=frozenset)
    store: Store | None = None

    def rows(self) -> Iterator[tuple[str, pa.Table]]:
        """Rows to write again, with their table's name."""
        for part in self.rewritten:
            if self.store is not None:
                for rows in read_part(self.store, part):
                    yield part.table, without(rows, self.dropped)


def current_marker(store: Store, previous: CommitRecord) -> CommitRecord:
    """The same generation as it stands now: compact may have moved its rows meanwhile."""
    snapshot = latest_snapshot(store)
    if not snapshot.rewritten:
        return previous
    now = find_marker(store, snapshot.manifests, previous.shard)
    return now if now is not None and now.gen == previous.gen else previous


def carry_over(store: Store, previous: CommitRecord, item_ids: Iterable[str]) -> CarriedRows:
    """Split a generation's rows into those of some items, which go, and the others, which stay.

    Raises:
        StorageError: A committed file is missing or damaged.
    """
    ids = frozenset(clean_text(i) for i in item_ids)
    if previous.base >= 0:
        base = latest_snapshot(store).base
        gone = sum_images(find_images(store, [*base, *previous.files], ids))
        return CarriedRows((), subtract(previous.counts, gone))
    rows = find_images(store, previous.files, ids)
    gone = sum_images(rows)
    kept = tuple(p for p in previous.files if p.table == "words" and not gone.words)
    return CarriedRows(
        kept=kept,
        counts=subtract(previous.counts, gone),
        rewritten=tuple(p for p in previous.files if p not in kept),
        dropped=frozenset(row.image_id for row in rows),
        store=store,
    )


def find_images(
    store: Store, files: Iterable[DataFile], item_ids: frozenset[str]
) -> list[ImageRow]:
    """The rows (of every page) of some items in a set of files."""
    parts = list(files)
    firsts = pa.array(sorted(item_ids), pa.string())
    found: list[ImageRow] = []
    for part in (part for part in parts if part.table == "images"):
        for rows in read_part(store, part, ["image_id", "page", "status", "n_words"]):
            # Only first pages bear the item's own id; the few others are looked at one by one.
            likely = pc.or_(
                pc.is_in(rows.column("image_id"), firsts), pc.greater(rows.column("page"), 0)
            )
            for row in rows.filter(likely).to_pylist():
                item = item_id(row["image_id"], row["page"])
                if item in item_ids:
                    status = Status(row["status"])
                    found.append(
                        ImageRow(row["image_id"], item, row["page"], status, row["n_words"], None)
                    )
    failed = pa.array((r.image_id for r in found if r.status is Status.FAILED), pa.string())
    kinds: dict[str, str] = {}
    for part in (part for part in parts if part.table == "errors" and len(failed)):
        for rows in read_part(store, part, ["image_id", "kind"]):
            chosen = rows.filter(pc.is_in(rows.column("image_id"), failed))
            ids, names = chosen.column("image_id").to_pylist(), chosen.column("kind").to_pylist()
            kinds.update(zip(ids, names, strict=True))
    return [replace(row, kind=kinds.get(row.image_id)) for row in found]


def sum_images(rows: Iterable[ImageRow]) -> Counts:
    """What rows add to the counts."""
    total = {"items": 0, "images": 0, "with_words": 0, "empty": 0, "failed": 0, "words": 0}
    columns = {Status.WORDS: "with_words", Status.EMPTY: "empty", Status.FAILED: "failed"}
    failures: dict[str, int] = {}
    for row in rows:
        total["items"] += row.page == 0
        total["images"] += 1
        total["words"] += row.n_words
        total[columns[row.status]] += 1
        if row.kind is not None:
            failures[row.kind] = failures.get(row.kind, 0) + 1
    return Counts(**total, failures=failures)


def without(rows: pa.Table, image_ids: frozenset[str]) -> pa.Table:
    """Rows but for those of some images."""
    if not image_ids:
        return rows
    gone = pc.is_in(rows.column("image_id"), pa.array(sorted(image_ids), pa.string()))
    return rows.filter(pc.invert(gone))
