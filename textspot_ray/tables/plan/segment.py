"""Plan segments: Parquet files that list items and say how they are cut into shards.

A segment is put only if absent and then never changed. It lists either items that no earlier
segment lists (kind ``new``), or newer versions of items whose content has changed (kind ``redo``),
ordered by shard. The cuts are in the file's metadata, so that a driver gets the shards of a hundred
thousand items from the footer alone.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textspot_ray.errors import DamagedTableError, TableError
from textspot_ray.records import ErrorKind, ImageError, Item, ShardId, Stage
from textspot_ray.storage.faults import reason_of
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import STATE
from textspot_ray.tables.ids import hash_ids, hash_tags
from textspot_ray.tables.schema import TABLE_VERSION, VERSION_KEY, from_bytes, to_bytes, with_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hashes = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]

PLAN = f"{STATE}/plan/"
ROWS_PER_GROUP = 4096
_HEAD_KEY = b"textspot.segment"
_DIGEST_KEY = b"textspot.segment.sha256"  # of the head, which no page's checksum covers
_NAME = re.compile(r"(\d{6,})\.parquet$")

# Names may hold bytes that are no UTF-8, and must come back exactly: hence binary.
_SCHEMA = pa.schema(
    [
        ("id_hi", pa.uint64()),
        ("id_lo", pa.uint64()),
        ("tag", pa.uint64()),
        ("image_id", pa.binary()),
        ("source", pa.binary()),
        ("container", pa.string()),
        ("member", pa.binary()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("content_tag", pa.binary()),
        ("extra", pa.binary()),
        ("error_stage", pa.string()),
        ("error_kind", pa.string()),
        ("error_message", pa.string()),
    ]
)


_HASH = ("id_hi", "id_lo")
_BLANK = {"image_id": b"", "source": b"", "container": "file", "tag": 0}  # the others are null


@dataclass(frozen=True, slots=True)
class ShardSlice:
    """One shard's range of a segment's rows.

    ``affinity`` is set for members of an archive without random access: the source that one
    reader should stream through, taking the shards in order.
    """

    shard: ShardId
    start: int
    stop: int
    bytes: int
    affinity: str | None


@dataclass(frozen=True)
class Segment:
    """The content of a segment's footer. Cuts are arrays: a billion images have four million."""

    seq: int
    attempt: str
    run_id: str
    kind: str  # new | redo
    created_at: float
    shards: NDArray[np.int64]  # [cuts, 2]: plan, index
    rows: NDArray[np.int64]  # [cuts]
    bytes: NDArray[np.int64]  # [cuts]
    affinity: NDArray[np.int32]  # [cuts]; index into `sources`, -1 for none
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def stops(self) -> NDArray[np.int64]:
        """Row after the last of each cut."""
        return np.cumsum(self.rows)

    def cut(self, i: int) -> ShardSlice:
        """One of the segment's cuts."""
        stop, source = int(self.stops[i]), int(self.affinity[i])
        return ShardSlice(
            shard=ShardId(int(self.shards[i, 0]), int(self.shards[i, 1])),
            start=stop - int(self.rows[i]),
            stop=stop,
            bytes=int(self.bytes[i]),
            affinity=self.sources[source] if source >= 0 else None,
        )


def segment_path(seq: int) -> str:
    """Path of a segment, relative to the output folder."""
    return f"{PLAN}{seq:06d}.parquet"


def segment_seqs(store: Store) -> list[int]:
    """Numbers of all segments there are, in order."""
    names = (_NAME.search(entry.path) for entry in store.list(PLAN))
    return sorted(int(match[1]) for match in names if match)


def build_segment(
    seq: int, attempt: str, run_id: str, kind: str, created_at: float, cuts: Sequence[ShardSlice]
) -> Segment:
    """A segment's head from its cuts.

    Args:
        seq: Number of the segment.
        attempt: Of the writer.
        run_id: The run.
        kind: ``new`` or ``redo``.
        created_at: Unix time, seconds.
        cuts: Its shards' ranges, in order.
    """
    sources = sorted({cut.affinity for cut in cuts if cut.affinity is not None})
    number = {source: i for i, source in enumerate(sources)}
    return Segment(
        seq=seq,
        attempt=attempt,
        run_id=run_id,
        kind=kind,
        created_at=created_at,
        shards=np.array([(c.shard.plan, c.shard.index) for c in cuts], np.int64).reshape(-1, 2),
        rows=np.array([c.stop - c.start for c in cuts], np.int64),
        bytes=np.array([c.bytes for c in cuts], np.int64),
        affinity=np.array(
            [-1 if c.affinity is None else number[c.affinity] for c in cuts], np.int32
        ),
        sources=tuple(sources),
    )


def encode_segment(segment: Segment, items: Sequence[Item]) -> bytes:
    """The file of a segment."""
    return encode_rows(segment, item_rows(items))


def blank_items(store: Store, seqs: Iterable[int], image_ids: Sequence[str]) -> int:
    """Blank the rows of some items in all segments; their hashes stay. Returns how many rows.

    Args:
        store: The output folder.
        seqs: The segments to look through.
        image_ids: Items to blank.
    """
    hashes = set(zip(*(half.tolist() for half in hash_ids(image_ids)), strict=True))
    blanked = 0
    for seq in seqs:
        file = SegmentFile(store, seq)
        rows = file.rows()
        pairs = zip(rows["id_hi"].to_pylist(), rows["id_lo"].to_pylist(), strict=True)
        names = rows["image_id"].to_pylist()
        gone = [bool(name) and pair in hashes for pair, name in zip(pairs, names, strict=True)]
        if any(gone):
            blanked += sum(gone)
            blank = {name: _BLANK.get(name) for name in rows.column_names if name not in _HASH}
            store.put(segment_path(seq), encode_rows(file.head, with_values(rows, gone, blank)))
        file.close()
    return blanked


def encode_rows(segment: Segment, rows: pa.Table) -> bytes:
    """The file of a segment, from its rows as a table."""
    head = {
        "attempt": segment.attempt,
        "run_id": segment.run_id,
        "kind": segment.kind,
        "created_at": segment.created_at,
        "shards": segment.shards.tolist(),
        "rows": segment.rows.tolist(),
        "bytes": segment.bytes.tolist(),
        "affinity": segment.affinity.tolist(),
        "sources": [to_bytes(source).hex() for source in segment.sources],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    digest = sha256(text).hexdigest()
    table = rows.cast(_SCHEMA).replace_schema_metadata(
        {VERSION_KEY: str(TABLE_VERSION), _HEAD_KEY: text, _DIGEST_KEY: digest}
    )
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        row_group_size=ROWS_PER_GROUP,
        use_dictionary=["source", "container", "error_stage", "error_kind", "extra"],
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


def item_rows(items: Sequence[Item]) -> pa.Table:
    """Items as a segment's rows."""
    id_hi, id_lo = hash_ids(item.image_id for item in items)
    errors = [item.error for item in items]
    columns = {
        "id_hi": id_hi,
        "id_lo": id_lo,
        "tag": hash_tags(item.content_tag for item in items),
        "image_id": [to_bytes(item.image_id) for item in items],
        "source": [to_bytes(item.source) for item in items],
        "container": [str(item.container) for item in items],
        "member": [_optional_bytes(item.member) for item in items],
        "offset": [item.offset for item in items],
        "size": [item.size for item in items],
        "content_tag": [_optional_bytes(item.content_tag) for item in items],
        "extra": [_optional_bytes(item.extra) for item in items],
        "error_stage": [None if e is None else str(e.stage) for e in errors],
        "error_kind": [None if e is None else str(e.kind) for e in errors],
        "error_message": [
            None if e is None else to_bytes(e.message).decode("utf-8", "replace") for e in errors
        ],
    }
    arrays = [pa.array(columns[f.name], type=f.type) for f in _SCHEMA]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


class SegmentFile:
    """An open segment: its head at once, its rows on request.

    Raises:
        TableError: It is no segment, or of a newer version.
        DamagedTableError: It is damaged; all methods that read may raise this.
    """

    def __init__(self, store: Store, seq: int) -> None:
        self._path = segment_path(seq)
        self._where = f"{store.uri}/{self._path}"
        with self._damage():
            self._file = pq.ParquetFile(
                store.open_read(self._path), page_checksum_verification=True
            )
            metadata = self._file.schema_arrow.metadata or {}
        if int(metadata.get(VERSION_KEY, 0)) > TABLE_VERSION:
            raise TableError(f"{self._where} was written by a newer textspot-ray: upgrade it")
        if _HEAD_KEY not in metadata:
            raise TableError(f"{self._where} is no plan segment of ours")
        text = metadata[_HEAD_KEY]
        with self._damage():
            if not self._file.schema_arrow.equals(_SCHEMA):
                raise ValueError("its columns are not those of a plan")
            # segments of earlier releases have no digest
            if metadata.get(_DIGEST_KEY, digest := sha256(text).hexdigest().encode()) != digest:
                raise ValueError("its sha256 differs")
            head = json.loads(text)
            self.head = Segment(
                seq=seq,
                attempt=head["attempt"],
                run_id=head["run_id"],
                kind=head["kind"],
                created_at=head["created_at"],
                shards=np.array(head["shards"], np.int64).reshape(-1, 2),
                rows=np.array(head["rows"], np.int64),
                bytes=np.array(head["bytes"], np.int64),
                affinity=np.array(head["affinity"], np.int32),
                sources=tuple(from_bytes(bytes.fromhex(source)) for source in head["sources"]),
            )

    def hashes(self) -> Hashes:
        """High and low half of every id's hash, and the tags' hashes."""
        with self._damage():
            table = self._file.read(columns=["id_hi", "id_lo", "tag"])
            hi, lo, tag = (table.column(name).to_numpy() for name in ("id_hi", "id_lo", "tag"))
        return hi, lo, tag

    def rows(self) -> pa.Table:
        """All rows, as they are stored."""
        with self._damage():
            return self._file.read()

    def items(self, start: int, stop: int) -> list[Item]:
        """The items of rows ``start`` to ``stop``."""
        if start >= stop:
            return []
        first, last = start // ROWS_PER_GROUP, (stop - 1) // ROWS_PER_GROUP
        with self._damage():
            groups = self._file.read_row_groups(list(range(first, last + 1)), use_threads=False)
            offset = first * ROWS_PER_GROUP
            rows = groups.slice(start - offset, stop - start).to_pylist()
            return [_item(row) for row in rows if row["image_id"]]

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Any error while reading becomes one line that names the file."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as exc:
            raise DamagedTableError(
                f"{self._where} cannot be read ({reason_of(exc)}): restore this file of the plan"
            ) from exc


def _item(row: dict[str, Any]) -> Item:
    stage, kind, message = row["error_stage"], row["error_kind"], row["error_message"]
    return Item(
        image_id=from_bytes(row["image_id"]),
        source=from_bytes(row["source"]),
        container=row["container"],
        member=_optional_text(row["member"]),
        offset=row["offset"],
        size=row["size"],
        content_tag=_optional_text(row["content_tag"]),
        extra=_optional_text(row["extra"]),
        error=None if kind is None else ImageError(Stage(stage), ErrorKind(kind), message),
    )


def _optional_text(data: bytes | None) -> str | None:
    return None if data is None else from_bytes(data)


def _optional_bytes(text: str | None) -> bytes | None:
    return None if text is None else to_bytes(text)
