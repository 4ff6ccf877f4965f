"""Removing images and their words for good, for erasure requests.

One snapshot replaces every file that holds rows of the images by a copy without them, and names the
hashes of their ids, so that the rows are accounted for. Then the plan's rows about them are
blanked: later runs still know the hash, and neither bring the images back nor list them as lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from textspot_ray.errors import AbortedError
from textspot_ray.records import ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import PAGES, CommitRecord
from textspot_ray.tables.commit.copy_on_write import ImageRow, find_images, sum_images
from textspot_ray.tables.commit.data_files import delete_pages
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.commit.manifest import (
    ManifestFile,
    find_commit_record,
    read_manifest,
    shard_ids,
    to_table,
    write_forgotten,
    write_manifest,
)
from textspot_ray.tables.commit.snapshot import Snapshot
from textspot_ray.tables.ids import hash_ids
from textspot_ray.tables.maintenance.rewrite import TRIES, Rewrite, absorb_pending
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.segment import blank_items
from textspot_ray.tables.schema import item_names


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was removed.

    Attributes:
        items: Items of the plan that were asked for and are now forgotten.
        images: Rows of ``images`` removed (every page of an item is one).
        words: Rows of ``words`` removed.
        unknown: Ids asked for that are not in the plan.
    """

    items: int
    images: int
    words: int
    unknown: tuple[str, ...]


def forget(ledger: Ledger, plan: Plan, image_ids: Iterable[str]) -> ForgetReport:
    """Remove images for good.

    Shards in work leave out what was forgotten meanwhile; rows that they still bring are removed
    again. A busy job changes the table all the time: stop it first.

    An ``image_id`` of one page removes the whole item. The call may be repeated, also after a kill:
    what was done stays done. Old files are deleted at once, so a reader that has them open on an
    object store fails and has to open the table again. Copies kept by the storage itself (bucket
    versioning, backups) are not cleaned.

    Args:
        ledger: Of the output folder.
        plan: Of the same.
        image_ids: Images to remove.

    Raises:
        StorageError: Storage refuses.
        AbortedError: A running job keeps changing the table.
    """
    plan.refresh()
    asked = {image_id: item_names(image_id) for image_id in sorted(set(image_ids))}
    names = sorted({name for several in asked.values() for name in several})
    places = dict(zip(names, plan.locate(names), strict=True))
    known: dict[str, ShardId] = {}
    unknown: list[str] = []
    for image_id, candidates in asked.items():
        # An item with exactly that id comes before the item that it would be a page of.
        planned = ((name, places[name]) for name in candidates)
        name, shard = next((pair for pair in planned if pair[1] is not None), (image_id, None))
        if shard is None:
            unknown.append(image_id)
        else:
            known[name] = shard
    rows: list[ImageRow] = []
    for _ in range(TRIES):
        absorb_pending(ledger)
        ledger.fold(at_least=1)
        ledger.refresh()
        if ledger.unabsorbed() or ledger.pending():
            continue
        taken_out = ledger.on_latest(lambda: _take_out(ledger, known))
        if taken_out is None:
            continue
        rows += taken_out
        ledger.refresh()
        blank_items(plan.store, plan.seqs, sorted(known))
        for shard in set(known.values()):  # finished pages of long files
            kept = plan.store.list(f"{PAGES}{shard}.")
            delete_pages(plan.store, [entry.path for entry in kept])
        plan.reload()
        finish(ledger, grace_s=0.0)
        if not _came_back(ledger, frozenset(known)):
            break
    else:
        raise AbortedError(f"{ledger.store.uri}: a running job keeps changing it; stop it first")
    taken = sum_images(rows)
    return ForgetReport(len(known), taken.images, taken.words, tuple(unknown))


def _came_back(ledger: Ledger, items: frozenset[str]) -> bool:
    """Whether a shard in work has committed rows of the items meanwhile."""
    ledger.refresh()

    def find() -> list[ImageRow]:
        files = [part for record in ledger.unabsorbed() for part in record.files]
        return find_images(ledger.store, files, items)

    return bool(ledger.on_latest(find))


def _take_out(ledger: Ledger, items: dict[str, ShardId]) -> list[ImageRow] | None:
    """Replace files by a snapshot; the removed rows, or None if another snapshot came first."""
    store, head = ledger.store, ledger.snapshot
    found = [find_commit_record(store, head.manifests, shard) for shard in set(items.values())]
    records = [record for record in found if record is not None]
    files = [*head.base, *(file for record in records for file in record.files)]
    rows = find_images(store, files, frozenset(items))
    hashes = _forgotten(ledger, items)
    if not rows and len(hashes[0]) == head.forgotten:
        return rows
    by_shard: dict[ShardId, list[ImageRow]] = {}
    for row in rows:
        by_shard.setdefault(items[row.item_id], []).append(row)
    rewrite = Rewrite(store, head, frozenset(row.image_id for row in rows))
    changed = [
        replace(
            record,
            counts=record.counts - sum_images(by_shard[record.shard]),
            files=rewrite.files(record.files),
        )
        for record in records
        if record.shard in by_shard
    ]
    manifests, fresh = _replace_rows(store, head, changed)
    forgotten_file = write_forgotten(store, head.n + 1, *hashes)
    rewrite.written += [*(manifest.path for manifest in fresh), forgotten_file]
    won = rewrite.publish(manifests, forgotten=len(hashes[0]), forgotten_file=forgotten_file)
    return rows if won else None


def _replace_rows(
    store: Store, head: Snapshot, records: Sequence[CommitRecord]
) -> tuple[tuple[ManifestFile, ...], list[ManifestFile]]:
    """Manifests in which the given records replace those of their shards, and the new ones."""
    shards = {record.shard for record in records}
    kept: list[ManifestFile] = []
    fresh: list[ManifestFile] = []
    for manifest in head.manifests if shards else ():
        table = read_manifest(store, manifest)
        stays = [shard not in shards for shard in shard_ids(table)]
        if all(stays):
            kept.append(manifest)
        elif any(stays):
            fresh.append(write_manifest(store, table.filter(pa.array(stays)), head.n + 1))
    if not shards:
        return head.manifests, []
    fresh.append(write_manifest(store, to_table(records), head.n + 1))
    return (*kept, *fresh), fresh


def _forgotten(ledger: Ledger, items: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of everything forgotten so far and now, each once."""
    before, now = ledger.forgotten(), hash_ids(sorted(items))
    pairs = np.stack([np.concatenate(halves) for halves in zip(before, now, strict=True)])
    unique = np.unique(pairs, axis=1)
    return unique[0], unique[1]
