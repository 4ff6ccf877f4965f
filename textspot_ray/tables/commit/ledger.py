"""The ledger of an output folder: its fingerprint, and which shards are committed.

``_textspot/table.json`` is put first and never changed. Committed is what the latest snapshot holds
plus the commit records that it has not absorbed; nothing else counts.
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
_SUM = "sha256 "  # prefix of the names of a bundle's checksums
_TELLING = ("bundle", "precision")
_NAMED = 2  # differences named in a message
_READERS = 16  # records are tiny: on object stores latency matters, not bytes


def open_ledger(
    store: Store, fingerprint: Mapping[str, str] | None = None, create: bool = True
) -> Ledger:
    """Open the ledger of an output folder, or create one.

    Args:
        store: The output folder.
        fingerprint: Everything that changes results, by name; None to read whatever is there.
        create: Create a table if there is none (needs a fingerprint).

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
    if fingerprint is not None and (named := differences(found.fingerprint, fingerprint)):
        raise FingerprintError(
            f"{store.uri} holds a table of other settings ({named}): take the same, or another "
            "folder"
        )
    return Ledger(store, found.fingerprint, found.version)


def stored_fingerprint(store: Store) -> Mapping[str, str]:
    """The fingerprint of the table in an output folder; empty where there is no table."""
    found = _read_table(store)
    return {} if found is None else found.fingerprint


def fingerprint_digest(fingerprint: Mapping[str, str]) -> str:
    """Sixteen hex digits that identify a fingerprint in records."""
    text = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


class Ledger:
    """What is committed in one output folder.

    State is as of the last `refresh`, plus what was noted since. Other drivers may work on the same
    folder; refresh to see what they did.

    Args:
        store: The output folder.
        fingerprint: Everything that changes results, by name.
        version: Table version that the folder was created with: no file of it is older.
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

        The result is a consistent state: if anything changes between the reads (a snapshot absorbs
        records, vacuum deletes absorbed ones), they are repeated.

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
        """The state that `refresh` has found, for comparison with a later one."""
        return self.snapshot.n, frozenset((m.shard, m.generation) for m in self._live.values())

    def on_latest(self, action: Callable[[], T]) -> T:
        """Run an action on what is committed; again if files disappeared meanwhile.

        Compact, forget and retries replace files that others may be reading; then the action runs
        again on the new state. If a file named by the latest state is missing, that is an error.

        Args:
            action: Must not change anything before it has read all it needs.

        Raises:
            MissingFileError: A file that counts is not there.
            AbortedError: Files keep disappearing.
        """
        for _ in range(_TRIES):
            state = self.state()
            try:
                return action()
            except (FileNotFoundError, MissingFileError) as exc:
                self.expect_move(state, exc)
        raise AbortedError(f"{self.store.uri}: other drivers keep changing it; run again")

    def expect_move(self, since: State, exc: FileNotFoundError | MissingFileError) -> None:
        """Refresh, and check that a file is missing because others have changed the table.

        Args:
            since: The state that named the missing file.
            exc: What was raised when it was missing.

        Raises:
            MissingFileError: Nothing has changed: the latest state names a file that is missing.
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
        """Refresh; whether others have changed the table since that state."""
        self.refresh()
        return self.state() != state

    def settled(self) -> CommittedShards:
        """Newest generation of every settled shard; live, not a copy."""
        return self._settled

    def is_pending(self, shard: ShardId) -> bool:
        """Whether the shard's newest generation waits for the next snapshot to be seen.

        That is the case after a retry or redo of a compacted shard, whose old rows are still in
        files shared with other shards; until then it gets no further generation.
        """
        return shard in self._live and self._absorbed.is_compacted(shard)

    def note(self, record: CommitRecord) -> bool:
        """Take note of a record that was committed.

        Returns:
            Whether it counts. A record does not if a snapshot had absorbed its generation before it
            was put (and vacuum had deleted the absorbed record).
        """
        if self._absorbed.get(record.shard, -1) >= record.generation:
            return False
        known = self._live.get(record.shard)
        if known is None or known.generation < record.generation:
            self._live[record.shard] = record
        self._settled.add(record.shard, record.generation, record.redo)
        return True

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
        """The record of every settled shard that readers use, streamed.

        Raises:
            FileNotFoundError: A newer snapshot has replaced a manifest; see `on_latest`.
        """
        unabsorbed = self.unabsorbed()  # read now: a fold may come while the caller iterates
        for manifest in self.snapshot.manifests:
            for record in read_commit_records(self.store, manifest):
                shard = record.shard
                replaced = shard in self._live and not self.is_pending(shard)
                if self._absorbed[shard] == record.generation and not replaced:
                    yield record
        yield from unabsorbed

    def unabsorbed(self) -> list[CommitRecord]:
        """Commit records that readers use and that no snapshot has absorbed yet."""
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

    def paths(self) -> set[str]:
        """Paths of all files that count: also of pending records and of the sorted words."""
        pending = (file for record in self.pending() for file in record.files)
        return {file.path for file in chain(self.files(), self.snapshot.by_text, pending)}

    def forgotten(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Hashes of the image_ids that were removed for good."""
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
        except FileNotFoundError:  # another driver was first, and has vacuumed
            snapshot = None
        self.refresh()
        return snapshot is not None

    def record_run(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """Store a run's configuration (without secrets) and report, over an earlier record."""
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
        """Read records in parallel, except known ones; None if one is gone."""
        known = {s: r for s, r in self._live.items() if newest.get(s) == r.generation}
        unread = [shard for shard in newest if shard not in known]

        def fetch(shard: ShardId) -> CommitRecord | None:
            return read_commit_record(self.store, shard, newest[shard])

        with ThreadPoolExecutor(_READERS) as pool:
            read = dict(zip(unread, pool.map(fetch, unread), strict=True))
        found = ((shard, known.get(shard) or read[shard]) for shard in newest)
        records = {shard: record for shard, record in found if record is not None}
        return records if len(records) == len(newest) else None


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


def differences(
    one: Mapping[str, str], other: Mapping[str, str], where: tuple[str, str] = ("there", "now")
) -> str:
    """How two fingerprints differ, in a few words; empty if they do not.

    Args:
        one: The one fingerprint.
        other: The other.
        where: Said after each one's values.
    """
    differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
    sums = [key for key in differing if key.startswith(_SUM)]
    # Another bundle or precision has other files anyway: their checksums add nothing.
    if {"bundle", "precision"} & set(differing):
        differing = [key for key in differing if key not in sums]
    differing.sort(key=lambda key: (key not in _TELLING, key))  # they explain most others
    named = [
        f"{key}: {_short(key, one.get(key))} {where[0]}, {_short(key, other.get(key))} {where[1]}"
        for key in differing[:_NAMED]
    ]
    more = len(differing) - _NAMED
    return "; ".join([*named, f"{more} more"] if more > 0 else named)


def _short(key: str, value: str | None) -> str:
    if value is None:
        return "absent"
    longest = 12 if key.startswith(_SUM) else 40
    return value if len(value) <= longest else f"{value[: longest - 1]}…"
