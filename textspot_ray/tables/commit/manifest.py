"""Manifests: many commit records in one Parquet file, named by snapshots.

As JSON a record takes some 1.5 KB and is one object to list; in a manifest it is a row of about 150
bytes, and the columns that resuming needs take a few bytes per shard.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textspot_ray.errors import StorageError
from textspot_ray.records import Counts, ShardId
from textspot_ray.storage.faults import reason_of
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import STATE, CommitRecord, DataFile, new_attempt

if TYPE_CHECKING:
    from numpy.typing import NDArray

SNAPSHOTS = f"{STATE}/snap/"
_ROWS_PER_GROUP = 16_384
_INDEX_COLUMNS = ("plan", "shard", "gen", "redo", "base")
_LATER = ("damaged",)  # counts that manifests of earlier versions lack
_COUNTS = ("items", "images", "with_words", "empty", "failed", "words", *_LATER)
# Columns with a field of the record as it is; its name may be newer than the column's.
_PLAIN = {
    "gen": "generation",
    "redo": "redo",
    "base": "compaction",
    "run_id": "run_id",
    "reason": "reason",
    "fingerprint": "fingerprint",
    "started_at": "started_at",
    "finished_at": "finished_at",
}

_FILE = pa.struct(
    [
        ("table", pa.string()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("rows", pa.int64()),
        ("sha256", pa.binary()),
    ]
)
_SCHEMA = pa.schema(
    [
        ("plan", pa.int32()),
        ("shard", pa.int32()),
        ("gen", pa.int32()),
        ("redo", pa.int32()),
        ("base", pa.int32()),
        ("attempt", pa.binary()),
        ("run_id", pa.string()),
        ("reason", pa.string()),
        ("fingerprint", pa.string()),
        *((name, pa.int64()) for name in _COUNTS),
        ("failures", pa.string()),
        ("environment", pa.string()),
        ("started_at", pa.float64()),
        ("finished_at", pa.float64()),
        ("stage_s", pa.string()),
        ("files", pa.list_(_FILE)),
    ]
)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest, as a snapshot names it."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ManifestIndex:
    """Which shards a manifest settles, as columns."""

    plan: NDArray[np.int32]
    shard: NDArray[np.int32]
    generation: NDArray[np.int32]
    redo: NDArray[np.int32]
    compaction: NDArray[np.int32]


def manifest_path(n: int) -> str:
    """A new path for a manifest of snapshot ``n``; by the number vacuum recognises litter."""
    return f"{SNAPSHOTS}manifest-{n:08d}-{new_attempt()}.parquet"


def write_manifest(store: Store, table: pa.Table, n: int) -> ManifestFile:
    """Put rows (see `to_table`) as a new manifest of snapshot ``n``.

    Args:
        store: The output folder.
        table: The rows.
        n: Number of the snapshot.
    """
    sink = io.BytesIO()
    pq.write_table(
        table.sort_by([("plan", "ascending"), ("shard", "ascending")]),
        sink,
        compression="zstd",
        row_group_size=_ROWS_PER_GROUP,
        use_dictionary=["run_id", "reason", "fingerprint", "environment", "failures"],
        write_statistics=["plan", "shard"],
        write_page_checksum=True,
    )
    data = sink.getvalue()
    path = manifest_path(n)
    store.put(path, data)
    return ManifestFile(path, table.num_rows, len(data), sha256(data).hexdigest())


def to_table(records: Iterable[CommitRecord]) -> pa.Table:
    """Commit records as manifest rows."""
    rows = [_row(record) for record in records]
    columns = [pa.array([row[f.name] for row in rows], type=f.type) for f in _SCHEMA]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def read_manifest_index(store: Store, manifest: ManifestFile) -> ManifestIndex:
    """The few columns that resuming needs."""
    with _opened(store, manifest.path) as file:
        table = _read(file, list(_INDEX_COLUMNS))
    return ManifestIndex(*(_numpy(table, name) for name in _INDEX_COLUMNS))


def read_counts(store: Store, manifest: ManifestFile) -> pa.Table:
    """Identity and counts of every row."""
    names = ["plan", "shard", "gen", *_COUNTS, "failures", "started_at", "finished_at"]
    with _opened(store, manifest.path) as file:
        return _with_later(_read(file, names), names)


def read_manifest(store: Store, manifest: ManifestFile) -> pa.Table:
    """A whole manifest, for writing it again.

    Raises:
        StorageError: Its bytes have changed since it was written.
    """
    data = store.read(manifest.path)
    if sha256(data).hexdigest() != manifest.sha256:
        raise StorageError(
            f"{store.uri}/{manifest.path} has changed since it was written (its sha256 differs): "
            "it is not rewritten; restore the file"
        )
    return _with_later(_read(io.BytesIO(data)), _SCHEMA.names)


@contextmanager
def _opened(store: Store, path: str) -> Iterator[IO[bytes]]:
    """A manifest's file; damage found while reading becomes one line."""
    try:
        with store.open_read(path) as file:
            yield file
    except FileNotFoundError:  # a newer snapshot has replaced it
        raise
    except (pa.ArrowException, OSError) as exc:
        raise StorageError(
            f"{store.uri}/{path} is damaged ({reason_of(exc)}): restore the file"
        ) from exc


def read_commit_records(store: Store, manifest: ManifestFile) -> Iterator[CommitRecord]:
    """A manifest's rows as records, a row group at a time."""
    with _opened(store, manifest.path) as file:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        for group in range(parquet.num_row_groups):
            for row in parquet.read_row_group(group, use_threads=False).to_pylist():
                yield _record(row)


def find_commit_record(
    store: Store, manifests: Sequence[ManifestFile], shard: ShardId
) -> CommitRecord | None:
    """The newest generation of a shard, or None; row groups that cannot hold it are not read.

    Args:
        store: The output folder.
        manifests: Where to look.
        shard: The shard.
    """
    newest: CommitRecord | None = None
    for manifest in manifests:
        with _opened(store, manifest.path) as file:
            table = pq.read_table(
                file,
                filters=[("plan", "=", shard.plan), ("shard", "=", shard.index)],
                page_checksum_verification=True,
            )
        for row in table.to_pylist():
            if newest is None or row["gen"] > newest.generation:
                newest = _record(row)
    return newest


def write_forgotten(store: Store, n: int, hi: NDArray[np.uint64], lo: NDArray[np.uint64]) -> str:
    """Put the hashes of ids that were removed for good, for snapshot ``n``.

    Args:
        store: The output folder.
        n: Number of the snapshot.
        hi: High halves of the hashes.
        lo: Low halves.
    """
    sink = io.BytesIO()
    table = pa.table({"id_hi": hi, "id_lo": lo})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    path = manifest_path(n)
    store.put(path, sink.getvalue())
    return path


def read_forgotten(store: Store, path: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The inverse of `write_forgotten`."""
    with _opened(store, path) as file:
        table = _read(file)
    return _numpy(table, "id_hi"), _numpy(table, "id_lo")


def newest_only(table: pa.Table) -> pa.Table:
    """Drop rows that are replaced by a higher generation of the same shard."""
    plan, shard, generation = (_numpy(table, n) for n in ("plan", "shard", "gen"))
    order = np.lexsort((generation, shard, plan))
    plan, shard = plan[order], shard[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (plan[1:] != plan[:-1]) | (shard[1:] != shard[:-1])
    return table.take(pa.array(np.sort(order[last])))


def shard_ids(table: pa.Table) -> list[ShardId]:
    """The shard of each row."""
    pairs = zip(table["plan"].to_pylist(), table["shard"].to_pylist(), strict=True)
    return [ShardId(plan, index) for plan, index in pairs]


def sum_counts(table: pa.Table) -> Counts:
    """Sums over rows as `read_counts` gives them."""
    sums = {name: int(pc.sum(table.column(name)).as_py() or 0) for name in _COUNTS}
    failures: dict[str, int] = {}
    for entry in pc.value_counts(table.column("failures")).to_pylist():
        for kind, n in json.loads(entry["values"]).items():
            failures[kind] = failures.get(kind, 0) + n * entry["counts"]
    return Counts(**sums, failures=failures)


def _read(file: IO[bytes], columns: list[str] | None = None) -> pa.Table:
    # Most manifests are small: starting threads would cost more than reading them.
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    return parquet.read(columns=columns, use_threads=False)


def _with_later(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Rows with counts that older manifests lack, as zeros."""
    for name in set(_LATER) - set(table.column_names):
        table = table.append_column(name, pa.array(np.zeros(table.num_rows, np.int64)))
    return table.select(columns)


def _numpy(table: pa.Table, name: str) -> NDArray[Any]:
    """A column of numbers without nulls. Arrow's ``to_numpy`` would import pandas: 0.3 s."""
    return np.from_dlpack(table.column(name).combine_chunks())


def _row(record: CommitRecord) -> dict[str, Any]:
    counts = record.counts
    return {
        **{column: getattr(record, name) for column, name in _PLAIN.items()},
        **{name: getattr(counts, name) for name in _COUNTS},
        "plan": record.shard.plan,
        "shard": record.shard.index,
        "attempt": bytes.fromhex(record.attempt),
        "failures": json.dumps(counts.failures, sort_keys=True),
        "environment": json.dumps(dict(record.environment), sort_keys=True),
        "stage_s": json.dumps({name: round(s, 3) for name, s in record.stage_s.items()}),
        "files": [{**asdict(file), "sha256": bytes.fromhex(file.sha256)} for file in record.files],
    }


def _record(row: dict[str, Any]) -> CommitRecord:
    counts = {name: row.get(name, 0) for name in _COUNTS}
    return CommitRecord(
        **{name: row[column] for column, name in _PLAIN.items()},
        shard=ShardId(row["plan"], row["shard"]),
        attempt=row["attempt"].hex(),
        counts=Counts(**counts, failures=dict(_parse(row["failures"]))),
        files=tuple(DataFile(**{**file, "sha256": file["sha256"].hex()}) for file in row["files"]),
        environment=_parse(row["environment"]),
        stage_s=json.loads(row["stage_s"]),
    )


@lru_cache(maxsize=256)
def _parse(text: str) -> dict[str, Any]:
    # Environments repeat; records share one parsed copy, which is never changed.
    data: dict[str, Any] = json.loads(text)
    return data
