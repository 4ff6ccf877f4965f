"""The ledger of an output folder: its fingerprint, and which shards are committed.

``_textspot/table.json`` is put before anything else and never changed. What is committed is the
latest snapshot plus the commit records it has not absorbed; nothing else counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from textspot_ray._version import __version__
from textspot_ray.errors import (
    AbortedError,
    FingerprintError,
    MissingFileError,
    NoTableError,
    StorageError,
    TableError,
)
from textspot_ray.records import Counts, ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.codec import decode_record, encode_record
from textspot_ray.tables.commit.commit_record import (
    DONE,
    STATE,
    CommitRecord,
    DataFile,
    parse_record_path,
    read_commit_record,
)
from textspot_ray.tables.commit.committed import CommittedShards
from textspot_ray.tables.commit.manifest import (
    ManifestFile,
    find_commit_record,
    read_commit_records,
    read_forgotten,
    read_manifest_index,
)
from textspot_ray.tables.commit.snapshot import Snapshot, fold, latest_snapshot, snapshot_numbers
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.schema import TABLE_VERSION

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
State = tuple[int, frozenset[tuple[ShardId, int]]]

TABLE_FILE = f"{STATE}/table.json"
RUNS = f"{STATE}/runs/"
FOLD_AT = 1000  # unabsorbed records
_TRIES = 10
_SUM = "sha256 "  # how the names of a bundle's checksums begin
_TELLING = ("bundle", "precision")
_NAMED = 2  # differences that a message names
_READERS = 16  # records are tiny: on object stores their latency counts, not their bytes


def open_ledger(
    store: Store, fingerprint: Mapping[str, str] | None = None, create: bool = True
) -> Ledger:
    """Open the ledger of an output folder, or found one.

    Args:
        store: The output folder.
        fingerprint: Everything that changes results, by name; None to read whatever is there.
        create: Found a table where there is none (needs a fingerprint).

    Raises:
        FingerprintError: The table was made with other settings; the message names them.
        TableError: There is no table, or a newer textspot-ray wrote it.
        StorageError: The folder cannot be written.
    """
    found = _read_table(store)
    if found is None:
        if not create or fingerprint is None:
            raise NoTableError(f"{store.uri} is not a textspot table (no {TABLE_FILE} in it)")
        fault("table")
        new = _TableFile(
            TABLE_VERSION, dict(fingerprint), created_at=time.time(), created_by=__version__
        )
        store.put_if_absent(TABLE_FILE, encode_record(new))
        found = _read_table(store)
        if found is None:
            raise StorageError(f"{store.uri}/{TABLE_FILE} was written but cannot be read back")
    if fingerprint is not None:
        _check_fingerprint(store.uri, found.fingerprint, fingerprint)
    return Ledger(store, found.fingerprint, found.version)


def stored_fingerprint(store: Store) -> Mapping[str, str]:
    """What the table in an output folder was made with; nothing where there is no table."""
    found = _read_table(store)
    return {} if found is None else found.fingerprint


def fingerprint_digest(fingerprint: Mapping[str, str]) -> str:
    """Sixteen hex digits that stand for a fingerprint in records."""
    text = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


class Ledger:
    """What is committed in one output folder.

    State is as of the last `refresh`, plus what was noted since. Everything here survives other
    drivers' work on the same folder; refresh to see it.

    Args:
        store: The output folder.
        fingerprint: Everything that changes results, by name.
        version: Table version that the folder was founded with: no file of it is older.
    """

    def __init__(
        self, store: Store, fingerprint: Mapping[str, str], version: int = TABLE_VERSION
    ) -> None:
        self.store = store
        self.version = version
        self.fingerprint = dict(fingerprint)
        self.digest = fingerprint_digest(fingerprint)
        self.snapshot = Snapshot()
        self._absorbed = CommittedShards()
        self._settled = CommittedShards()
        self._indexed: set[ManifestFile] = set()
        self._live: dict[ShardId, CommitRecord] = {}  # newest generation, where no snapshot has it
        self.refresh()

    def refresh(self) -> None:
        """Read the latest snapshot and the records that it has not absorbed.

        The result is one moment's state: if anything moves between the reads (a snapshot absorbs
        records, vacuum takes absorbed ones away), they are done again.

        Raises:
            TableError: A snapshot or a record is damaged, or a manifest is missing.
            StorageError: The table is gone.
        """
        if not self.store.exists(TABLE_FILE):
            raise StorageError(
                f"{self.store.uri}/{TABLE_FILE} is gone: the output folder was deleted meanwhile"
            )
        missing: Exception | str = "it keeps changing"
        for _ in range(_TRIES):
            try:
                snapshot = latest_snapshot(self.store)
                self._take_snapshot(snapshot)
            except FileNotFoundError as exc:
                missing = exc
                continue
            live = self._fetch(self._list_newest())
            numbers = snapshot_numbers(self.store)
            if live is not None and (not numbers or numbers[-1] == snapshot.n):
                self._live = live
                for record in live.values():
                    self._settled.add(record.shard, record.generation, record.redo)
                return
        raise TableError(f"{self.store.uri} cannot be read in one state ({missing})")

    def state(self) -> State:
        """What `refresh` has found, to be compared with what a later one finds."""
        return self.snapshot.n, frozenset((m.shard, m.generation) for m in self._live.values())

    def on_latest(self, action: Callable[[], T]) -> T:
        """Do something with what is committed; again if files went meanwhile.

        Compact, forget and retries replace files that others are just reading: then the state
        they left is taken instead. A file that the latest state names and that is not there is a
        fault.

        Args:
            action: What to do; changes nothing before it has read all it needs.

        Raises:
            MissingFileError: A file that counts is not there.
            AbortedError: Files keep going away.
        """
        for _ in range(_TRIES):
            state = self.state()
            try:
                return action()
            except (FileNotFoundError, MissingFileError) as exc:
                self.expect_move(state, exc)
        raise AbortedError(f"{self.store.uri}: other drivers keep changing it; run again")

    def expect_move(self, since: State, exc: FileNotFoundError | MissingFileError) -> None:
        """Refresh, and go on if others have changed the table; for what cannot begin anew.

        Args:
            since: The state that the missing file was named by.
            exc: What was raised for want of it.

        Raises:
            MissingFileError: Nobody has: the latest state names a file that is not there.
        """
        if self.has_moved(since):
            return
        if isinstance(exc, MissingFileError):
            raise exc
        raise MissingFileError(
            f"{self.store.uri}: {exc.filename or exc} is missing though it is committed: run "
            "textspot verify"
        ) from exc

    def has_moved(self, state: State) -> bool:
        """Refresh; whether others have changed the table since that state was found."""
        self.refresh()
        return self.state() != state

    def settled(self) -> CommittedShards:
        """Newest generation of every settled shard; live, not a copy."""
        return self._settled

    def is_pending(self, shard: ShardId) -> bool:
        """Whether the shard's newest generation waits for the next snapshot to be seen.

        That is so after a retry or redo of a compacted shard, whose old rows are still in files
        shared with other shards; until then it gets no further generation.
        """
        return shard in self._live and self._absorbed.is_compacted(shard)

    def note(self, record: CommitRecord) -> bool:
        """Take note of a record that some process committed.

        Returns:
            Whether it counts: a record that was put after a snapshot had absorbed its generation
            (and the record in its place was vacuumed) does not.
        """
        if self._absorbed.get(record.shard, -1) >= record.generation:
            return False
        known = self._live.get(record.shard)
        if known is None or known.generation < record.generation:
            self._live[record.shard] = record
        self._settled.add(record.shard, record.generation, record.redo)
        return True

    def is_absorbed(self, shard: ShardId) -> bool:
        """Whether a snapshot has absorbed some generation of the shard."""
        return shard in self._absorbed

    def absorbed(self, older: Snapshot | None = None) -> CommittedShards:
        """What a snapshot has absorbed: the latest, or an older one."""
        if older is None:
            return self._absorbed
        absorbed = CommittedShards()
        for manifest in older.manifests:
            absorbed.absorb(read_manifest_index(self.store, manifest))
        return absorbed

    def commit_record(self, shard: ShardId) -> CommitRecord | None:
        """The newest record of a shard."""
        return self.on_latest(lambda: self._commit_record(shard))

    def _commit_record(self, shard: ShardId) -> CommitRecord | None:
        if shard in self._live:
            return self._live[shard]
        if shard in self._absorbed:
            return find_commit_record(self.store, self.snapshot.manifests, shard)
        return None

    def commit_records(self) -> Iterator[CommitRecord]:
        """The record of every settled shard that readers go by, streamed.

        Raises:
            FileNotFoundError: A newer snapshot has replaced a manifest; see `on_latest`.
        """
        unabsorbed = self.unabsorbed()  # now: a fold may come while the caller iterates
        for manifest in self.snapshot.manifests:
            for record in read_commit_records(self.store, manifest):
                shard = record.shard
                replaced = shard in self._live and not self.is_pending(shard)
                if self._absorbed[shard] == record.generation and not replaced:
                    yield record
        yield from unabsorbed

    def unabsorbed(self) -> list[CommitRecord]:
        """Commit records that readers go by and that no snapshot has absorbed yet."""
        return [m for m in self._live.values() if not self.is_pending(m.shard)]

    def pending(self) -> list[CommitRecord]:
        """Commit records whose rows readers will see with the next snapshot (see `is_pending`)."""
        return [m for m in self._live.values() if self.is_pending(m.shard)]

    def counts(self) -> Counts:
        """Sums over all rows that readers see."""
        return self.on_latest(self._sum_counts)

    def _sum_counts(self) -> Counts:
        total = self.snapshot.counts
        for record in self.unabsorbed():
            total += record.counts
            if record.shard in self._absorbed:
                old = find_commit_record(self.store, self.snapshot.manifests, record.shard)
                total = total - old.counts if old is not None else total
        return total

    def files(self, table: str | None = None) -> Iterator[DataFile]:
        """Every file that holds rows of the table (of all tables if none is named), once."""
        seen: set[str] = set()
        of_records = (file for record in self.commit_records() for file in record.files)
        for file in chain(self.snapshot.base, of_records):
            if (table is None or file.table == table) and file.path not in seen:
                seen.add(file.path)
                yield file

    def forgotten(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Hashes of the image_ids that were taken out for good."""
        if self.snapshot.forgotten_file is None:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        return read_forgotten(self.store, self.snapshot.forgotten_file)

    def fold(self, at_least: int = FOLD_AT) -> bool:
        """Absorb the records into a new snapshot if there are enough of them.

        Returns:
            Whether a snapshot was written. If another driver was first, nothing is lost.
        """
        records = self.unabsorbed()
        if len(records) < max(at_least, 1):
            return False
        try:
            snapshot = fold(self.store, self.snapshot, records)
        except FileNotFoundError:  # another driver has folded and vacuumed: it was first
            snapshot = None
        self.refresh()
        return snapshot is not None

    def record_run(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """Store what a run was asked and what it did (no secrets), over an earlier record."""
        data = json.dumps(dict(facts), indent=1, default=str).encode()
        self.store.put(f"{RUNS}{run_id}.json", data)

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        for manifest in snapshot.manifests:
            if manifest not in self._indexed:
                index = read_manifest_index(self.store, manifest)
                self._absorbed.absorb(index)
                self._settled.absorb(index)
                self._indexed.add(manifest)
        self.snapshot = snapshot

    def _list_newest(self) -> dict[ShardId, int]:
        newest: dict[ShardId, int] = {}
        for entry in self.store.list(DONE):
            found = parse_record_path(entry.path)
            if found is not None and found[1] > self._absorbed.get(found[0], -1):
                newest[found[0]] = max(found[1], newest.get(found[0], -1))
        return newest

    def _fetch(self, newest: Mapping[ShardId, int]) -> dict[ShardId, CommitRecord] | None:
        """Read records, side by side, but for those known; None if one is gone."""
        known = {s: r for s, r in self._live.items() if newest.get(s) == r.generation}
        unread = [shard for shard in newest if shard not in known]

        def fetch(shard: ShardId) -> CommitRecord | None:
            return read_commit_record(self.store, shard, newest[shard])

        if len(unread) > 1:
            with ThreadPoolExecutor(_READERS) as pool:
                fetched = list(pool.map(fetch, unread))
        else:
            fetched = [fetch(shard) for shard in unread]
        read = dict(zip(unread, fetched, strict=True))
        found = {shard: read[shard] if shard in read else known[shard] for shard in newest}
        records = {shard: record for shard, record in found.items() if record is not None}
        return records if len(records) == len(found) else None


class _TableFile(msgspec.Struct):
    """``table.json``."""

    version: int
    fingerprint: dict[str, str]
    format: str = "textspot-table"
    created_at: float = 0.0
    created_by: str = ""


def _read_table(store: Store) -> _TableFile | None:
    try:
        data = store.read(TABLE_FILE)
    except FileNotFoundError:
        return None
    return decode_record(data, _TableFile, f"{store.uri}/{TABLE_FILE}", "table file")


def _check_fingerprint(uri: str, there: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = sorted(key for key in {*there, *now} if there.get(key) != now.get(key))
    if not differing:
        return
    sums = [key for key in differing if key.startswith(_SUM)]
    # another bundle or precision has other files: their checksums say nothing more
    if {"bundle", "precision"} & set(differing):
        differing = [key for key in differing if key not in sums]
    differing.sort(key=lambda key: (key not in _TELLING, key))  # the rest mostly follows from them
    named = "; ".join(
        f"{key}: {_short(key, there.get(key))} there, {_short(key, now.get(key))} now"
        for key in differing[:_NAMED]
    )
    more = len(differing) - _NAMED
    named += f"; {more} more" if more > 0 else ""
    raise FingerprintError(
        f"{uri} holds a table of other settings ({named}): take the same, or another folder"
    )


def _short(key: str, value: str | None) -> str:
    if value is None:
        return "absent"
    longest = 12 if key.startswith(_SUM) else 40
    return value if len(value) <= longest else f"{value[: longest - 1]}…"
