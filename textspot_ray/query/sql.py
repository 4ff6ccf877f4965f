"""SQL over the tables: statements are checked to be read-only, run, and streamed."""

from __future__ import annotations

import difflib
import json
import re
from itertools import islice
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from textspot_ray.errors import DamagedTableError, UsageError
from textspot_ray.query.views import VIEWS, TableViews, damaged, sql_reason
from textspot_ray.tables.duck import arrow_reader, interruptible

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXPLAIN = re.compile(r"^\s*explain(\s+analyze)?\s+", re.IGNORECASE)
_NEEDS_SHARDS = re.compile(
    r"\b(runs|shards|show|describe|desc|information_schema|duckdb_\w+|pg_\w+)\b", re.IGNORECASE
)
_COMMENT = re.compile(r"^(\s|\(|--[^\n]*(\n|$)|/\*.*?\*/)*", re.DOTALL)
_READS = re.compile(r"(select|from|with|pivot|pivot_wider)\b", re.IGNORECASE)
_NO_TABLE = re.compile(r"Table with name (\S+) does not exist!.*", re.DOTALL)
_FILE_FAULTS = re.compile(r"\.parquet|parquet file|snappy|zstd|thrift|page header", re.IGNORECASE)
# these are SELECTs to the parser, but no subqueries
_UNLIMITED = re.compile(r"^\s*(explain|describe|desc|show|summarize)\b", re.IGNORECASE)
_PREFIX = "EXPLAIN "
BATCH_ROWS = 8192


class SqlError(UsageError):
    """A statement that is refused, by us or by DuckDB: one line with the position."""


def run_query(
    tables: TableViews,
    sql: str,
    max_rows: int | None = None,
    *,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> QueryResult:
    """Run one reading statement (SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN).

    Args:
        tables: The opened table.
        sql: One statement.
        max_rows: Stop after so many rows.
        connection: A cursor of the tables to run it on, for callers that interrupt it. The
            statement runs in a transaction that cannot write.

    Returns:
        The result, streamed.

    Raises:
        SqlError: Not one statement, not a reading one, or DuckDB refuses it.
    """
    check_reads_only(sql)
    if _NEEDS_SHARDS.search(sql):
        tables.add_shards()
    limited = sql
    if max_rows is not None and not _UNLIMITED.match(sql):
        limited = f"SELECT * FROM (\n{_without_end(sql)}\n) LIMIT {max_rows}"

    def begin() -> QueryResult:
        cursor = connection or tables.cursor()
        _begin_reading(cursor)
        reader = interruptible(cursor, lambda: arrow_reader(cursor.sql(limited), BATCH_ROWS))
        return QueryResult(sql, reader, cursor, tables.uri)

    try:
        if connection is not None:
            return begin()
        # reads the first batch, so that missing files are noticed now
        return tables.on_latest(lambda: begin().begun())
    except duckdb.Error as exc:
        raise _with_position(connection or tables.cursor(), sql, exc, tables.uri) from exc
    except (pa.ArrowException, OSError) as exc:
        raise _fault(sql, exc, tables.uri) from exc


def query_relation(tables: TableViews, sql: str) -> duckdb.DuckDBPyRelation:
    """As `run_query`, but returns DuckDB's own object with ``.df()``, ``.pl()`` and more.

    Raises:
        SqlError: Not one statement, not a reading one, or DuckDB refuses it.
    """
    check_reads_only(sql)
    if _NEEDS_SHARDS.search(sql):
        tables.add_shards()
    connection = tables.cursor()
    _begin_reading(connection)
    try:
        return connection.sql(_without_end(sql))
    except duckdb.Error as exc:
        raise _with_position(connection, sql, exc, tables.uri) from exc


class QueryResult:
    """A result as record batches, computed in a thread so that Ctrl-C stops the computation.

    Args:
        sql: The statement, for messages.
        reader: Of the batches.
        connection: What they are computed on.
        uri: The table's, for messages.
    """

    def __init__(
        self,
        sql: str,
        reader: pa.RecordBatchReader,
        connection: duckdb.DuckDBPyConnection,
        uri: str,
    ) -> None:
        self._sql = sql
        self._reader = reader
        self._connection = connection
        self._uri = uri
        self.schema: pa.Schema = reader.schema
        self._first: list[pa.RecordBatch] | None = None

    def begun(self) -> QueryResult:
        """The same, with its first batch read."""
        self._first = list(islice(self._rest(), 1))
        return self

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches.

        Raises:
            SqlError: The statement fails on some row.
            DamagedTableError: A file of the table cannot be read.
        """
        try:
            yield from self._first or ()
            if self._first != []:
                yield from self._rest()
        except (duckdb.Error, pa.ArrowException, OSError) as exc:
            raise _fault(self._sql, exc, self._uri) from exc

    def _rest(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = interruptible(self._connection, self._reader.read_next_batch)
            except StopIteration:
                return
            yield batch

    def read_all(self) -> pa.Table:
        """The whole result."""
        return pa.Table.from_batches(list(self), self.schema)


def _begin_reading(connection: duckdb.DuckDBPyConnection) -> None:
    """Let no statement write: a CTE can hold a DELETE that looks like a SELECT."""
    try:
        connection.execute("BEGIN TRANSACTION READ ONLY")
    except duckdb.TransactionException:  # a reused cursor
        connection.execute("ROLLBACK")
        connection.execute("BEGIN TRANSACTION READ ONLY")


def _fault(sql: str, exc: BaseException, uri: str) -> SqlError | DamagedTableError:
    if uri and (isinstance(exc, (duckdb.IOException, OSError)) or _FILE_FAULTS.search(str(exc))):
        return damaged(uri, exc)
    return sql_error(sql, exc)


def check_reads_only(sql: str) -> None:
    """Refuse everything but one statement that only reads.

    The connection is locked as well; this refuses statements on its own views (DROP, CREATE).

    Raises:
        SqlError: Naming the kind of statement.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as exc:  # bytes of the command line that are no UTF-8
        raise SqlError(f"SQL{_place(sql[: exc.start])}: invalid UTF-8") from exc
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as exc:
        raise sql_error(sql, exc) from exc
    if not statements:
        raise SqlError("SQL: no statement given")
    if len(statements) > 1:
        raise SqlError(f"SQL: one statement at a time, not {len(statements)}")
    kind = statements[0].type.name
    if kind == "EXPLAIN":
        rest = _EXPLAIN.sub("", sql, count=1)
        if rest == sql:
            raise SqlError("SQL: write EXPLAIN or EXPLAIN ANALYZE directly before a SELECT")
        check_reads_only(rest)
    elif kind == "MULTI" and _READS.match(sql, _COMMENT.match(sql).end()):  # type: ignore[union-attr]
        return  # PIVOT, which DuckDB rewrites into two statements
    elif kind != "SELECT":
        raise SqlError(f"SQL: tables are read-only, {kind} statements are refused")


def sql_error(sql: str, exc: BaseException) -> SqlError:
    """DuckDB's error as one line with the position in the statement."""
    return SqlError(f"SQL{_position(sql, str(exc))}: {_with_nearest(sql_reason(exc))}")


def _with_nearest(message: str) -> str:
    """Suggest our tables in an unknown table's message; DuckDB suggests its own catalogue."""
    found = _NO_TABLE.search(message)
    if found is None:
        return message
    near = difflib.get_close_matches(found.group(1).lower(), VIEWS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VIEWS)}"
    return f"there is no table {found.group(1)}: {hint}"


def _with_position(
    connection: duckdb.DuckDBPyConnection, sql: str, exc: duckdb.Error, uri: str
) -> SqlError | DamagedTableError:
    """The error with its position, which relations lose: the statement is bound again, not run."""
    if isinstance(exc, duckdb.IOException):
        return damaged(uri, exc)
    _begin_reading(connection)
    if not _UNLIMITED.match(sql):
        try:
            connection.execute(_PREFIX + sql)
        except duckdb.Error as again:
            return SqlError(
                f"SQL{_position(_PREFIX + sql, str(again), len(_PREFIX))}: "
                f"{_with_nearest(sql_reason(again))}"
            )
    return _fault(sql, exc, uri)


def _position(sql: str, message: str, skip: int = 0) -> str:
    start = message.find("{")
    offset: int | None = None
    if start >= 0:
        try:
            offset = int(json.loads(message[start:])["position"])
        except (ValueError, KeyError, TypeError):
            offset = None
    if offset is None:
        offset = _caret(message, sql)
    if offset is None or offset > len(sql.encode()):
        return ""
    return _place(sql.encode()[skip:offset].decode(errors="replace"))


def _place(before: str) -> str:
    return f", line {before.count(chr(10)) + 1}, column {len(before.rpartition(chr(10))[2]) + 1}"


def _caret(message: str, sql: str) -> int | None:
    """Byte offset from the plain form, which shows the line and a caret under the place."""
    match = re.search(r"LINE (\d+): (.*)\n( *)\^", message)
    if match is None or match.group(2).startswith("..."):
        return None
    lines = sql.split("\n")
    number = int(match.group(1)) - 1
    column = len(match.group(3)) - len(f"LINE {match.group(1)}: ")
    if number >= len(lines) or column < 0:
        return None
    return len("\n".join([*lines[:number], lines[number][:column]]).encode())


def _without_end(sql: str) -> str:
    """The statement without the semicolon that ends it; comments may follow that."""
    return str(duckdb.extract_statements(sql)[0].query).strip().rstrip(";")
