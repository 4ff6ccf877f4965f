"""Commit records: the small JSON files that make a shard's data files part of the table.

Readers see a shard's rows as soon as its record exists. Records are put only if absent, one per
shard and generation, and never changed; the highest generation counts.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from textspot_ray.errors import TableError
from textspot_ray.records import Counts, ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.codec import decode_record, encode_record, put_once
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.schema import BY_TEXT, TABLES

STATE = "_textspot"
DONE = f"{STATE}/done/"
TMP = f"{STATE}/tmp/"
PAGES = f"{STATE}/pages/"  # of long files that are not done; see `engine.slot.done_pages`
EMPTY_NAME = "empty.parquet"  # in the folder of a table without rows

FOLDERS = (*TABLES, BY_TEXT)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.parquet")
_RECORD_NAME = re.compile(r"(\d{6,})-(\d{6,})\.(\d{2,})\.json$")
_PAGES_NAME = re.compile(rf"{PAGES}(\d{{6,}})-(\d{{6,}})\.(\d{{2,}})/")
_DATA_FILE_NAME = re.compile(r"(\d{6,})-(\d{6,})-(\d{2,})-([0-9a-f]{12})(?:-\d+)?\.parquet$")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table, as a record or snapshot names it."""

    table: str
    path: str  # relative to the output folder
    bytes: int
    rows: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse paths outside the table: records may be damaged or forged.

        Raises:
            TableError: It is no file of the table.
        """
        folder, _, name = self.path.partition("/")
        if folder != self.table or folder not in FOLDERS or not _FILE_NAME.fullmatch(name):
            raise TableError(f"{self.path!r} is no file of a table: the record is damaged")


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """What was committed for one generation of a shard.

    Attributes:
        shard: The shard.
        generation: Generation: 0 for the first run, one more for each retry or redo.
        attempt: Random name of the writing attempt; no other record has it.
        run_id: The run that wrote it.
        reason: ``run``, ``retry`` or ``redo``.
        fingerprint: Digest of the table's fingerprint.
        counts: Sums over the whole shard, rows kept from older generations included.
        files: Every file that holds rows of the shard, those kept from older generations included.
        redo: The newest redo segment of the plan whose items this generation holds, else -1.
        compaction: Number of the compaction whose files hold the shard's other rows, else -1.
        environment: Versions, CPU flags, node.
        started_at: Unix time, seconds.
        finished_at: Unix time, seconds.
        stage_s: Seconds per stage, summed over images.
    """

    shard: ShardId
    generation: int
    attempt: str
    run_id: str
    reason: str
    fingerprint: str
    counts: Counts
    files: tuple[DataFile, ...]
    redo: int = -1
    compaction: int = -1
    environment: Mapping[str, str] = field(default_factory=dict)
    started_at: float = 0.0
    finished_at: float = 0.0
    stage_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where the record lies, relative to the output folder."""
        return record_path(self.shard, self.generation)


def new_attempt() -> str:
    """Twelve random hex digits: the name of one attempt at writing something."""
    return secrets.token_hex(6)


def record_path(shard: ShardId, generation: int) -> str:
    """Path of a shard's record of one generation."""
    return f"{DONE}{shard}.{generation:02d}.json"


def data_file_path(table: str, shard: ShardId, generation: int, attempt: str) -> str:
    """Path of a data file.

    Args:
        table: Its table.
        shard: The shard whose rows it holds.
        generation: Of the shard.
        attempt: Of the writer.
    """
    return f"{table}/{shard}-{generation:02d}-{attempt}.parquet"


def empty_path(table: str) -> str:
    """Path of the empty file that a table without rows gets, so that a pattern matches it."""
    return f"{table}/{EMPTY_NAME}"


def pages_prefix(shard: ShardId, gen: int) -> str:
    """Folder of the finished pages of a shard's long files, until it is committed."""
    return f"{PAGES}{shard}.{gen:02d}/"


def parse_pages_path(path: str) -> tuple[ShardId, int] | None:
    """Shard and generation of finished pages, or None if a path is of something else."""
    match = _PAGES_NAME.match(path)
    return (ShardId(int(match[1]), int(match[2])), int(match[3])) if match else None


def parse_record_path(path: str) -> tuple[ShardId, int] | None:
    """Shard and generation of a record's path, or None if it is no record's."""
    match = _RECORD_NAME.search(path)
    return (ShardId(int(match[1]), int(match[2])), int(match[3])) if match else None


def parse_data_file_path(path: str) -> tuple[ShardId, int, str] | None:
    """Shard, generation and attempt of a data file's path, or None if it is no shard's."""
    match = _DATA_FILE_NAME.search(path)
    return (ShardId(int(match[1]), int(match[2])), int(match[3]), match[4]) if match else None


# Keys in the file that are older than the names used here.
_STORED_KEYS = {"generation": "gen", "compaction": "base"}


class _Stored(msgspec.Struct, rename=_STORED_KEYS):
    """The content of a commit record's file."""

    plan: int
    shard: int
    generation: int
    attempt: str
    run_id: str
    reason: str
    fingerprint: str
    counts: dict[str, int | dict[str, int]]
    files: tuple[DataFile, ...]
    redo: int
    compaction: int
    environment: dict[str, str]
    started_at: float
    finished_at: float
    stage_s: dict[str, float]


def commit_record_to_json(record: CommitRecord) -> bytes:
    """The stored form of a record."""
    facts = msgspec.to_builtins(record)
    facts |= {"plan": record.shard.plan, "shard": record.shard.index}
    facts["counts"] = record.counts.stored()
    return encode_record({_STORED_KEYS.get(name, name): value for name, value in facts.items()})


def commit_record_from_json(data: bytes, where: str) -> CommitRecord:
    """Read a record.

    Raises:
        TableError: It is damaged, or of a newer version.
    """
    what = "commit record"
    raw = decode_record(data, _Stored, where, what)
    try:
        counts = msgspec.convert({**raw.counts, "empty": raw.counts["none"]}, Counts)
    except (msgspec.MsgspecError, KeyError) as exc:
        raise TableError(f"{where} is a damaged {what} ({exc!r}); run textspot verify") from exc
    facts = {name: getattr(raw, name) for name in raw.__struct_fields__ if name != "plan"}
    return CommitRecord(**{**facts, "shard": ShardId(raw.plan, raw.shard), "counts": counts})


def read_commit_record(store: Store, shard: ShardId, generation: int) -> CommitRecord | None:
    """The record of one generation, or None if there is none (or a snapshot has absorbed it).

    Args:
        store: The output folder.
        shard: The shard.
        generation: Its generation.
    """
    path = record_path(shard, generation)
    try:
        return commit_record_from_json(store.read(path), f"{store.uri}/{path}")
    except FileNotFoundError:
        return None


def put_commit_record(store: Store, record: CommitRecord) -> bool:
    """Put a record if it is absent: the single act that makes a shard's data files count.

    Returns:
        Whether the record that lies there now is this one.

    Raises:
        StorageError: Storage refuses, and no record is there.
    """
    fault("before_marker")
    won = put_once(store, record.path, commit_record_to_json(record))
    fault("after_marker")
    return won
