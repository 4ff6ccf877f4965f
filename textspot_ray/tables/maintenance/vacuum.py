"""Deleting what does not count: files of lost attempts, replaced files, absorbed records.

A file is deleted only when it can never count again: a shard's data file when its generation or a
newer one is committed and the committed state does not name it; a record when a snapshot has
absorbed it. What might belong to work in progress is left to `clean`, which goes by age.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from textspot_ray.storage.stores import Entry, Store
from textspot_ray.tables.commit.commit_record import (
    DONE,
    FOLDERS,
    PAGES,
    TMP,
    empty_path,
    parse_data_file_path,
    parse_pages_path,
    parse_record_path,
)
from textspot_ray.tables.commit.ledger import Ledger
from textspot_ray.tables.commit.manifest import SNAPSHOTS
from textspot_ray.tables.commit.snapshot import Snapshot, read_snapshot, snapshot_numbers
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.maintenance.readme import describe_table
from textspot_ray.tables.maintenance.rewrite import absorb_pending

GRACE_S = 600.0  # time for readers that opened the state before a compact
SNAPSHOT_AGE_S = 3600.0
CLEAN_AGE_S = 86_400.0  # no attempt at a shard takes a day
_NUMBERED = re.compile(r"(?:manifest|base)-(\d{8,})-[0-9a-f]{12}(?:-\d+)?\.parquet$")
_SNAPSHOT = re.compile(r"/(\d{8,})\.json$")


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """What was deleted, and how many files that no longer count are kept for readers."""

    files: int = 0
    bytes: int = 0
    waiting: int = 0

    def __add__(self, other: VacuumReport) -> VacuumReport:
        return VacuumReport(
            self.files + other.files, self.bytes + other.bytes, self.waiting + other.waiting
        )


def is_numbered(path: str) -> bool:
    """Whether a file was written for a snapshot, by compact, merge, forget or a fold."""
    return _NUMBERED.search(path) is not None


def finish(ledger: Ledger, grace_s: float = GRACE_S) -> VacuumReport:
    """Vacuum after a run that ended cleanly: then ``words/*.parquet`` is the words table.

    Retries and redos of compacted shards become visible (see `absorb_pending`). To keep that
    promise, files that a retry or redo has replaced are deleted at once; files that compact has
    replaced stay for the grace period.
    """
    absorb_pending(ledger)
    ledger.refresh()
    report = ledger.on_latest(
        lambda: vacuum_state(ledger, grace_s) + _vacuum_files(ledger, grace_s, None)
    )
    describe_table(ledger)
    return report


def clean(
    ledger: Ledger, older_than_s: float = CLEAN_AGE_S, grace_s: float = GRACE_S
) -> VacuumReport:
    """Vacuum, and delete litter of killed attempts at shards that are not committed.

    Args:
        ledger: The ledger of the output folder.
        older_than_s: Age from which a file that may belong to an attempt is litter; must be longer
            than any attempt at a shard lasts.
        grace_s: How long files that compact has replaced stay.
    """
    ledger.refresh()
    report = ledger.on_latest(
        lambda: vacuum_state(ledger, grace_s) + _vacuum_files(ledger, grace_s, older_than_s)
    )
    limit = time.time() - older_than_s
    for folder in (TMP, PAGES):
        report += _delete(
            ledger.store, ledger.store.list(folder), lambda entry: 0 < entry.mtime < limit
        )
    return report


def vacuum_state(ledger: Ledger, grace_s: float = GRACE_S) -> VacuumReport:
    """Delete absorbed records, old snapshots and manifests; cheap enough for a running job."""
    store = ledger.store
    report = _delete(store, store.list(PAGES), lambda entry: _pages_are_old(ledger, entry))
    retained = _retained(ledger, grace_s)
    if not retained:
        return report
    try:
        snapshots = [_state(ledger, n) for n in retained]
        # Records absorbed even by the oldest state in use are no longer read.
        absorbed = ledger.absorbed(snapshots[0] if len(snapshots) > 1 else None)
    except FileNotFoundError:  # another driver is vacuuming, with a newer state
        return report
    named = {m.path for snapshot in snapshots for m in snapshot.manifests}
    named.update(s.forgotten_file for s in snapshots if s.forgotten_file is not None)

    def record_is_old(entry: Entry) -> bool:
        found = parse_record_path(entry.path)
        return found is not None and absorbed.get(found[0], -1) >= found[1]

    def state_is_old(entry: Entry) -> bool:
        if match := _SNAPSHOT.search(entry.path):
            # Kept for a while in any case, so that no number is used twice (see `put_snapshot`).
            aged = entry.mtime < time.time() - SNAPSHOT_AGE_S
            return int(match[1]) < retained[0] and aged
        numbered = _NUMBERED.search(entry.path)
        # A manifest with a later number belongs to a fold in progress.
        return (
            numbered is not None
            and int(numbered[1]) <= ledger.snapshot.n
            and entry.path not in named
        )

    report += _delete(store, store.list(SNAPSHOTS), state_is_old)
    return report + _delete(store, store.list(DONE), record_is_old)


def _pages_are_old(ledger: Ledger, entry: Entry) -> bool:
    """Whether these are finished pages of a shard that is committed."""
    found = parse_pages_path(entry.path)
    return found is not None and ledger.settled().get(found[0], -1) >= found[1]


def _retained(ledger: Ledger, grace_s: float) -> list[int]:
    """Numbers of snapshots that readers may be using: not replaced, or within the grace period."""
    if ledger.snapshot.n == 0:
        return []
    retained = [ledger.snapshot.n]
    replaced_at = ledger.snapshot.created_at
    older = [n for n in snapshot_numbers(ledger.store) if n < ledger.snapshot.n]
    # Before the first snapshot there were records only: state 0.
    for n in reversed([0, *older] if 1 in (*older, ledger.snapshot.n) else older):
        if replaced_at <= time.time() - grace_s:
            break
        try:
            replaced_at = _state(ledger, n).created_at
        except FileNotFoundError:
            break
        retained.insert(0, n)
    return retained


def _state(ledger: Ledger, n: int) -> Snapshot:
    if n in (0, ledger.snapshot.n):
        return Snapshot() if n == 0 else ledger.snapshot
    return read_snapshot(ledger.store, n)


def _vacuum_files(ledger: Ledger, grace_s: float, older_than_s: float | None) -> VacuumReport:
    snapshot, settled = ledger.snapshot, ledger.settled()
    named = ledger.paths()
    # Empty files are superfluous once a table has rows.
    empty = {empty_path(path.split("/")[0]) for path in named}
    replaced = frozenset(snapshot.replaced)
    in_use: set[str] = set()  # by readers of older states, as far as is known
    rewritten = False  # whether a reader may still use files that compact or forget replaced
    for n in _retained(ledger, grace_s)[:-1]:
        try:
            older = _state(ledger, n)
        except FileNotFoundError:  # deleted by another driver's vacuum
            continue
        rewritten = rewritten or older.rewritten != snapshot.rewritten
        in_use.update(part.path for part in (*older.base, *older.by_text))
    limit = None if older_than_s is None else time.time() - older_than_s
    waiting = 0

    def is_litter(entry: Entry) -> bool:
        nonlocal waiting
        if entry.path in empty:
            return True
        numbered, part = _NUMBERED.search(entry.path), parse_data_file_path(entry.path)
        if entry.path in named or (numbered is None and part is None):  # not written by us
            return False
        if part is None:  # of a compact, maybe one in progress
            counts_no_more, kept = entry.path in replaced, entry.path in in_use
        else:
            counts_no_more = settled.get(part[0], -1) >= part[1]
            kept = rewritten and part[0] in ledger.absorbed()
        if limit is not None and 0 < entry.mtime < limit and entry.path not in in_use:
            return True
        waiting += counts_no_more and kept
        return counts_no_more and not kept

    report = VacuumReport()
    for folder in FOLDERS:
        report += _delete(ledger.store, ledger.store.list(f"{folder}/"), is_litter)
    return report + VacuumReport(waiting=waiting)


def _delete(
    store: Store, entries: Iterator[Entry], is_litter: Callable[[Entry], bool]
) -> VacuumReport:
    # Listed first: some stores skip entries if files are deleted during a listing.
    litter = [entry for entry in entries if is_litter(entry)]
    for entry in litter:
        fault("before_delete")
        store.delete(entry.path)
    for folder in {e.path.rpartition("/")[0] for e in litter if e.path.startswith(PAGES)}:
        store.prune(folder)
    return VacuumReport(len(litter), sum(entry.size for entry in litter))
