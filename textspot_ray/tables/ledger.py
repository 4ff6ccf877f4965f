"""The ledger of an output folder: its fingerprint, and which shards are committed.

``_textspot/table.json`` is put before anything else and never changed. What is committed is the
latest snapshot plus the done markers it has not absorbed; nothing else counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from textspot_ray import __version__
from textspot_ray.archive.storage import Store
from textspot_ray.errors import FingerprintError, StorageError, TableError
from textspot_ray.records import Counts, ShardId
from textspot_ray.tables.counts import subtract
from textspot_ray.tables.faultpoints import fault
from textspot_ray.tables.manifest import ManifestFile, find_marker, read_markers, read_settlings
from textspot_ray.tables.marker import (
    DONE,
    STATE,
    Marker,
    PartFile,
    commit_marker,
    parse_marker_path,
    read_marker,
)
from textspot_ray.tables.schema import TABLE_VERSION
from textspot_ray.tables.settled import Settled
from textspot_ray.tables.snapshot import Snapshot, fold, latest_snapshot, snapshot_numbers

TABLE_FILE = f"{STATE}/table.json"
RUNS = f"{STATE}/runs/"
FOLD_AT = 1000  # unabsorbed markers
_READERS = 16  # markers are tiny: on object stores their latency counts, not their bytes


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
            raise TableError(f"{store.uri} is not a textspot table (no {TABLE_FILE} in it)")
        fault("table")
        data = {
            "format": "textspot-table",
            "version": TABLE_VERSION,
            "fingerprint": dict(fingerprint),
            "created_at": time.time(),
            "created_by": __version__,
        }
        store.put_if_absent(TABLE_FILE, json.dumps(data, indent=1, sort_keys=True).encode())
        found = _read_table(store)
        if found is None:
            raise StorageError(f"{store.uri}/{TABLE_FILE} was written but cannot be read back")
    if fingerprint is not None:
        _check_fingerprint(store.uri, found, fingerprint)
    return Ledger(store, found)


def fingerprint_digest(fingerprint: Mapping[str, str]) -> str:
    """Sixteen hex digits that stand for a fingerprint in markers."""
    text = json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:16]


class Ledger:
    """What is committed in one output folder.

    State is as of the last `refresh`, plus what was noted since. Everything here survives other
    drivers' work on the same folder; refresh to see it.
    """

    def __init__(self, store: Store, fingerprint: Mapping[str, str]) -> None:
        self.store = store
        self.fingerprint = dict(fingerprint)
        self.digest = fingerprint_digest(fingerprint)
        self.snapshot = Snapshot()
        self._absorbed = Settled()
        self._settled = Settled()
        self._settlings_of: set[ManifestFile] = set()
        self._live: dict[ShardId, dict[int, Marker | None]] = {}  # None: there, not read yet
        self.refresh()

    def refresh(self) -> None:
        """Read the latest snapshot and list the markers that it has not absorbed."""
        while True:
            snapshot = latest_snapshot(self.store)
            try:
                self._take_snapshot(snapshot)
                listed = [parse_marker_path(entry.path) for entry in self.store.list(DONE)]
            except FileNotFoundError:  # a manifest went with its snapshot: there is a newer one
                listed = None
            # Absorbed markers may go once a newer snapshot is there: look again if one came.
            numbers = snapshot_numbers(self.store)
            if listed is not None and (not numbers or numbers[-1] == snapshot.n):
                break
            if listed is None and numbers and numbers[-1] == snapshot.n:
                raise TableError(
                    f"{self.store.uri}: snapshot {snapshot.n} names a manifest that is missing"
                )
        live: dict[ShardId, dict[int, Marker | None]] = {}
        for found in listed:
            if found is not None and self._absorbed.get(found[0], -1) < found[1]:
                known = self._live.get(found[0], {}).get(found[1])
                live.setdefault(found[0], {})[found[1]] = known
        self._live = live
        for shard, gens in live.items():
            self._settled.add(shard, max(gens))

    def settled(self) -> Settled:
        """Newest generation of every settled shard; live, not a copy."""
        return self._settled

    def is_settled(self, shard: ShardId, gen: int = 0) -> bool:
        """Ask storage whether this generation (or a newer one) of a shard is committed by now."""
        if self._settled.get(shard, -1) >= gen:
            return True
        marker = read_marker(self.store, shard, gen)
        if marker is None:
            return False
        self.note(marker)
        return True

    def is_pending(self, shard: ShardId) -> bool:
        """Whether the shard's newest generation waits for the next snapshot to be seen.

        That is so after a retry or redo of a compacted shard; until then it gets no further one.
        """
        return any(m.base >= 0 for m in self._read_live([shard] if shard in self._live else []))

    def commit(self, marker: Marker) -> bool:
        """Put a marker; True if it is now the one that settles its shard and generation."""
        if not commit_marker(self.store, marker):
            return False
        return self.note(marker)

    def note(self, marker: Marker) -> bool:
        """Take note of a marker that some process committed.

        Returns:
            Whether it counts: a marker that was put after a snapshot had absorbed its generation
            (and the marker in its place was swept) does not.
        """
        if self._absorbed.get(marker.shard, -1) >= marker.gen:
            return False
        self._live.setdefault(marker.shard, {})[marker.gen] = marker
        self._settled.add(marker.shard, marker.gen, marker.redo)
        return True

    def marker(self, shard: ShardId) -> Marker | None:
        """The newest marker of a shard."""
        for marker in self._read_live([shard] if shard in self._live else []):
            return marker
        if shard in self._absorbed:
            return find_marker(self.store, self.snapshot.manifests, shard)
        return None

    def markers(self) -> Iterator[Marker]:
        """The newest marker of every settled shard, streamed."""
        for manifest in self.snapshot.manifests:
            for marker in read_markers(self.store, manifest):
                if self._absorbed[marker.shard] == marker.gen and marker.shard not in self._live:
                    yield marker
        yield from self._read_live(list(self._live))

    def counts(self) -> Counts:
        """Sums over all settled shards."""
        total = self.snapshot.counts
        for marker in self._read_live(list(self._live)):
            total += marker.counts
            if marker.shard in self._absorbed:
                old = find_marker(self.store, self.snapshot.manifests, marker.shard)
                total = subtract(total, old.counts) if old is not None else total
        return total

    def files(self, table: str | None = None) -> Iterator[PartFile]:
        """Every file that holds rows of the table (of all tables if none is named), once."""
        seen: set[str] = set()
        for part in self._all_files():
            if (table is None or part.table == table) and part.path not in seen:
                seen.add(part.path)
                yield part

    def fold(self, at_least: int = FOLD_AT) -> bool:
        """Absorb the markers into a new snapshot if there are enough of them.

        Returns:
            Whether a snapshot was written. If another driver was first, nothing is lost.
        """
        if len(self._live) < at_least:
            return False
        markers = [m for m in self._read_live(list(self._live)) if m.base < 0]
        if not markers:
            return False
        snapshot = fold(self.store, self.snapshot, markers)
        self.refresh()
        return snapshot is not None

    def record_run(self, run_id: str, facts: Mapping[str, Any]) -> None:
        """Store what a run was asked and what it did (no secrets), over an earlier record."""
        data = json.dumps(dict(facts), indent=1, default=str).encode()
        self.store.put(f"{RUNS}{run_id}.json", data)

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        for manifest in snapshot.manifests:
            if manifest not in self._settlings_of:
                settlings = read_settlings(self.store, manifest)
                self._absorbed.absorb(settlings)
                self._settled.absorb(settlings)
                self._settlings_of.add(manifest)
        self.snapshot = snapshot

    def _read_live(self, shards: list[ShardId]) -> Iterator[Marker]:
        """Newest unabsorbed marker of each shard; unread ones are fetched side by side."""
        newest = [(shard, max(self._live[shard])) for shard in shards]
        unread = [key for key in newest if self._live[key[0]][key[1]] is None]
        if len(unread) > 1:
            with ThreadPoolExecutor(_READERS) as pool:
                fetched = list(pool.map(lambda key: read_marker(self.store, *key), unread))
        else:
            fetched = [read_marker(self.store, *key) for key in unread]
        for (shard, gen), marker in zip(unread, fetched, strict=True):
            self._live[shard][gen] = marker
        for shard, gen in newest:
            marker = self._live[shard][gen]
            if marker is not None:
                yield marker

    def _all_files(self) -> Iterator[PartFile]:
        yield from self.snapshot.base
        for marker in self.markers():
            yield from marker.files


def _read_table(store: Store) -> dict[str, str] | None:
    where = f"{store.uri}/{TABLE_FILE}"
    try:
        raw = json.loads(store.read(TABLE_FILE))
        version, fingerprint = raw["version"], raw["fingerprint"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise TableError(f"{where} is damaged: restore it or choose another folder") from exc
    if version > TABLE_VERSION:
        raise TableError(
            f"{where} is of table version {version}, this textspot-ray reads up to "
            f"{TABLE_VERSION}: upgrade textspot-ray"
        )
    return {str(key): str(value) for key, value in fingerprint.items()}


def _check_fingerprint(uri: str, there: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = sorted(key for key in {*there, *now} if there.get(key) != now.get(key))
    if differing:
        named = "; ".join(
            f"{key}: {there.get(key, 'absent')} there, {now.get(key, 'absent')} now"
            for key in differing
        )
        raise FingerprintError(
            f"{uri} holds a table made with other settings ({named}); "
            "use the same settings or another output folder"
        )
