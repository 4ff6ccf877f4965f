"""Committed tables as DuckDB views: ``words``, ``images``, ``errors``, ``shards`` and ``runs``.

    with open_views("out") as tables:
        tables.rows("SELECT image_id FROM words WHERE text = 'exit'")

The connection is in memory, sees only the committed files, and cannot be unlocked from SQL: no
other file, no write, no extension, no setting.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import pyarrow as pa

from textspot_ray.errors import AbortedError, DamagedTableError, TableError
from textspot_ray.query.store_filesystem import StoreFileSystem, store_path
from textspot_ray.records import TIMED_STAGES
from textspot_ray.tables.duck import interruptible
from textspot_ray.tables.open import Tables, open_tables
from textspot_ray.tables.schema import BY_TEXT, SCHEMAS, TABLE_VERSION, TABLES, WORDS_BY_TEXT

if TYPE_CHECKING:
    from textspot_ray.storage.stores import Store
    from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile

T = TypeVar("T")
_TRIES = 5
# How DuckDB and the drivers behind it report a missing file; DuckDB then takes the name for that of
# a folder, and is not allowed to look into it.
_GONE = re.compile(
    r"no such file|no files found|cannot open|filenotfound|not found|\.parquet/\*\*/", re.I
)
VIEWS = ("words", "images", "errors", "shards", "runs")
_GLOB_CHARACTERS = frozenset("*?[]{}")
# the columns that words_by_text keeps and a search needs
SLIM = (
    "text_key",
    "text",
    "image_id",
    "word_index",
    "text_confidence",
    "x_min",
    "y_min",
    "x_max",
    "y_max",
    "angle_deg",
)
# files of version 1 have no key: this is `text_key` for the Latin letters that their models read
_OLD_KEY = (
    r"coalesce(text_key, regexp_replace(strip_accents(lower(text)), '[^\p{L}\p{N}]+', '', 'g'))"
    " AS text_key"
)
# the statement's line with a caret below, which is useless on one line
_EXCERPT = re.compile(r"\n+LINE \d+: .*\n *\^+", re.DOTALL)
_COUNTS = ("items", "images", "with_words", "empty", "failed", "words")
_SHARDS = pa.schema(
    [
        ("plan", pa.int32()),
        ("shard", pa.int32()),
        ("gen", pa.int32()),
        ("run_id", pa.string()),
        ("reason", pa.string()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("finished_at", pa.timestamp("us", "UTC")),
        *((name, pa.int64()) for name in _COUNTS),
        *((f"{stage}_s", pa.float64()) for stage in TIMED_STAGES),
        ("node", pa.string()),
    ]
)
_RUNS_SQL = """
    CREATE VIEW runs AS
    SELECT run_id, min(started_at) AS started, max(finished_at) AS finished,
        count(*) AS shards, sum(items)::BIGINT AS items, sum(images)::BIGINT AS images,
        sum(failed)::BIGINT AS failed, sum(words)::BIGINT AS words,
        epoch(max(finished_at) - min(started_at)) AS elapsed_s,
        sum(images) / nullif(epoch(max(finished_at) - min(started_at)), 0) AS images_per_s
    FROM shards GROUP BY run_id ORDER BY started
"""


def open_views(
    where: str | Store, options: Mapping[str, Any] | None = None, *, threads: int | None = None
) -> TableViews:
    """Open the committed state of a table, as it is now, for reading.

    Args:
        where: The output folder of a run, as any fsspec URI; or its store.
        options: fsspec options by protocol.
        threads: DuckDB's threads; default: all cores.

    Raises:
        TableError: No table there, or one of a newer version.
    """
    for _ in range(_TRIES):
        tables = open_tables(where, options)
        try:
            return TableViews(tables, threads=threads)
        except TableError:
            if open_tables(tables.store).state == tables.state:
                raise
    raise AbortedError(f"{tables.store.uri}: other drivers keep changing it; run again")


class TableViews:
    """A locked, read-only DuckDB connection over the views of one table."""

    def __init__(self, files: Tables, *, threads: int | None = None) -> None:
        self.files = files
        self._threads = threads
        self._has_shards = False
        self._connection = self._connect()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        # large sorts spill there; DuckDB creates it when needed and deletes it at the end
        spill = Path(tempfile.gettempdir()) / f"textspot-query-{secrets.token_hex(6)}"
        config: dict[str, Any] = {
            "python_enable_replacements": "false",
            "temp_directory": str(spill),
        }
        if self._threads is not None:
            config["threads"] = self._threads
        self._connection = duckdb.connect(":memory:", config=config)
        try:
            self._connection.register_filesystem(StoreFileSystem(self.files.store))
            names = [self._make_view(table, self.files.data_files[table]) for table in TABLES]
            names.append(self._make_lookup())
            self._lock([name for group in names for name in group])
        except BaseException:
            self._connection.close()
            raise
        return self._connection

    def on_latest(self, action: Callable[[], T]) -> T:
        """Read something; if its files were deleted meanwhile, again from the latest state.

        Compact and forget delete the files that they replace. What is read then is another state of
        the table: rows of the two states must not be mixed.
        """
        for _ in range(_TRIES):
            try:
                return action()
            except (duckdb.Error, pa.ArrowException, OSError) as exc:
                if not _GONE.search(str(exc)) or not self._reopen():
                    raise
        raise AbortedError(f"{self.uri}: other drivers keep changing it; run again")

    def _reopen(self) -> bool:
        """Open the latest state; False if it is already open."""
        latest = open_tables(self.files.store)
        if latest.state == self.files.state:
            return False
        self._connection.close()
        self.files = latest
        self._connection = self._connect()
        if self._has_shards:
            self._has_shards = False
            self.add_shards()
        return True

    @property
    def uri(self) -> str:
        """The table's folder."""
        return self.files.store.uri

    def min_confidence(self, asked: float | None) -> float:
        """The confidence below which words are left out: as asked, or the text threshold."""
        return self.files.text_threshold if asked is None else asked

    def execute(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run a statement of this package; users' statements go through `sql.run_query`."""
        return self.on_latest(lambda: self._connection.execute(sql, parameters))

    def rows(
        self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """All rows of a statement of this package; Ctrl-C stops it.

        Raises:
            DamagedTableError: A file of the table cannot be read.
        """

        def work() -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = self._connection.execute(sql, parameters).fetchall()
            return found

        try:
            return interruptible(self._connection, lambda: self.on_latest(work))
        except duckdb.InterruptException:
            raise
        except (duckdb.Error, OSError) as exc:
            raise damaged(self.uri, exc) from exc

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same views, for another thread."""
        return self._connection.cursor()

    def add_shards(self) -> None:
        """Make the views ``shards`` and ``runs``; not made at first, as this reads all records."""
        if self._has_shards:
            return
        rows = self.on_latest(lambda: [_shard_row(r) for r in self.files.commit_records()])
        table = pa.Table.from_pylist(rows, schema=_SHARDS)
        self._connection.register("_shards", table)
        self._connection.execute("CREATE TABLE shards AS SELECT * FROM _shards")
        self._connection.unregister("_shards")
        self._connection.execute(_RUNS_SQL)
        self._has_shards = True

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> TableViews:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_view(self, table: str, files: Sequence[DataFile]) -> list[str]:
        names = [self._name(file.path) for file in files]
        if not names:
            self._connection.execute(f"CREATE VIEW {table} AS {_no_rows(SCHEMAS[table])}")
            return names
        try:
            rows = self._select("*", names, SCHEMAS[table])
            self._connection.execute(f"CREATE VIEW {table} AS {rows}")
        except (duckdb.Error, OSError) as exc:
            raise damaged(self.uri, exc, f"a committed file of {table}") from exc
        return names

    def _make_lookup(self) -> list[str]:
        """``lookup``: the columns that a search needs, from the sorted copy if there is one."""
        columns = ", ".join(SLIM)
        sources = []
        names: list[str] = []
        if by_text := self.files.data_files[BY_TEXT]:
            sorted_names = [self._name(file.path) for file in by_text]
            recent = [self._name(file.path) for file in self.files.recent_words]
            names = sorted_names + recent
            sources = [part for part in (sorted_names, recent) if part]
        if self.files.version < TABLE_VERSION:
            columns = columns.replace("text_key", _OLD_KEY, 1)
        if not sources:
            self._connection.execute(f"CREATE VIEW lookup AS SELECT {columns} FROM words")
            return names
        selects = [self._select(columns, part, WORDS_BY_TEXT) for part in sources]
        try:
            self._connection.execute(f"CREATE VIEW lookup AS {' UNION ALL '.join(selects)}")
        except (duckdb.Error, OSError) as exc:
            raise damaged(self.uri, exc, "a committed file of words_by_text") from exc
        return names

    def _select(self, columns: str, names: Sequence[str], schema: pa.Schema) -> str:
        """Columns of some files. Those of an older version lack columns, which are null then."""
        # DuckDB takes a folder named text=1 for a column that wins over the file's own.
        options = "hive_partitioning = false"
        if self.files.version >= TABLE_VERSION:
            return f"SELECT {columns} FROM read_parquet({_literal(names)}, {options})"
        rows = f"SELECT * FROM read_parquet({_literal(names)}, union_by_name = true, {options})"
        return f"SELECT {columns} FROM ({_no_rows(schema)} UNION ALL BY NAME {rows})"

    def _name(self, path: str) -> str:
        local = self.files.store.local_path(path)
        if local is None or _GLOB_CHARACTERS & set(str(local)):
            return store_path(path)
        return str(local)

    def _lock(self, names: Sequence[str]) -> None:
        for setting in (
            f"SET allowed_paths = {_literal(names)}",
            # data files never change under their name, and footers are a third of a look-up's time
            "SET parquet_metadata_cache = true",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            "SET errors_as_json = true",
            "SET enable_progress_bar = false",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            self._connection.execute(setting)


def sql_reason(exc: BaseException) -> str:
    """An exception's message as one line; DuckDB's JSON form is unpacked."""
    text = str(exc)
    start = text.find("{")
    if start >= 0:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = str(json.loads(text[start:])["exception_message"])
    text = _EXCERPT.sub("", text)
    return " ".join(text.split())


def damaged(uri: str, exc: BaseException, what: str = "a committed file") -> DamagedTableError:
    """An error of reading a table, as one line that says what to do.

    Args:
        uri: The table's folder.
        exc: What was raised.
        what: What could not be read.
    """
    hint = "run textspot verify"
    if _GONE.search(str(exc)):
        hint = "if compact or forget has just replaced it, run again; else run textspot verify"
    return DamagedTableError(f"{uri}: {what} cannot be read ({sql_reason(exc)}); {hint}")


def _literal(names: Sequence[str]) -> str:
    quoted = ("'" + name.replace("'", "''") + "'" for name in names)
    return "[" + ", ".join(quoted) + "]" if names else "[]::VARCHAR[]"


def _no_rows(schema: pa.Schema) -> str:
    columns = ", ".join(f"NULL::{_sql_type(field.type)} AS {field.name}" for field in schema)
    return f"SELECT {columns} WHERE false"


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    names = {
        pa.string(): "VARCHAR",
        pa.int16(): "SMALLINT",
        pa.int32(): "INTEGER",
        pa.int64(): "BIGINT",
        pa.float32(): "FLOAT",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
    }
    return names[kind]


def _shard_row(record: CommitRecord) -> dict[str, Any]:
    return {
        "plan": record.shard.plan,
        "shard": record.shard.index,
        "gen": record.generation,
        "run_id": record.run_id,
        "reason": record.reason,
        "started_at": _microseconds(record.started_at),
        "finished_at": _microseconds(record.finished_at),
        **{name: getattr(record.counts, name) for name in _COUNTS},
        **{f"{stage}_s": _seconds(record.stage_s, stage) for stage in TIMED_STAGES},
        "node": record.environment.get("node"),
    }


def _microseconds(time_s: float) -> int:
    return round(time_s * 1e6)


def _seconds(seconds: Mapping[str, float], stage: str) -> float | None:
    return seconds.get(stage, seconds.get(f"{stage}_s"))
