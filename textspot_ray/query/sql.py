"""SQL over the tables: checked to be a reading statement, run, and written out as it streams."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from textspot_ray.errors import UsageError
from textspot_ray.query.views import TableViews, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXPLAIN = re.compile(r"^\s*explain(\s+analyze)?\s+", re.IGNORECASE)
_NEEDS_SHARDS = re.compile(r"\b(runs|shards)\b", re.IGNORECASE)
# these are SELECTs to the parser, but no subqueries
_UNLIMITED = re.compile(r"^\s*(explain|describe|desc|show|summarize)\b", re.IGNORECASE)
_PREFIX = "EXPLAIN "
_BATCH_ROWS = 8192


class SqlError(UsageError):
    """A statement that DuckDB or we refuse: one line with its position."""


def run_query(
    tables: TableViews,
    sql: str,
    max_rows: int | None = None,
    *,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> pa.RecordBatchReader:
    """Run one reading statement (SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN).

    Args:
        tables: The opened table.
        sql: One statement.
        max_rows: Stop after so many rows.
        connection: A cursor of the tables to run it on, for who wants to interrupt it.

    Returns:
        The result, streamed. Its batches can raise `SqlError` too: pass them through `batches`.

    Raises:
        SqlError: Not one statement, not a reading one, or DuckDB refuses it.
    """
    check_reads_only(sql)
    if _NEEDS_SHARDS.search(sql):
        tables.add_shards()
    limited = sql
    if max_rows is not None and not _UNLIMITED.match(sql):
        limited = f"SELECT * FROM (\n{_without_end(sql)}\n) LIMIT {max_rows}"
    try:
        if connection is not None:
            return arrow_reader(connection.sql(limited))
        return tables.on_latest(lambda: _begun(arrow_reader(tables.cursor().sql(limited))))
    except duckdb.Error as exc:
        raise _placed(connection or tables.cursor(), sql, exc) from exc
    except (pa.ArrowException, OSError) as exc:
        raise sql_error(sql, exc) from exc


def _begun(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same, with its first batch read: files that are gone are noticed now."""
    first = next(reader, None)
    rest = iter(reader) if first is None else chain([first], reader)
    return pa.RecordBatchReader.from_batches(reader.schema, rest)


def batches(sql: str, reader: pa.RecordBatchReader) -> Iterable[pa.RecordBatch]:
    """The reader's batches; what fails while rows are made becomes a `SqlError` too."""
    try:
        yield from reader
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        raise sql_error(sql, exc) from exc


def check_reads_only(sql: str) -> None:
    """Refuse everything but one statement that only reads.

    The connection is locked as well; this keeps out what works on its own views (DROP, CREATE).

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
    elif kind != "SELECT":
        raise SqlError(f"SQL: tables are read-only, {kind} statements are refused")


def arrow_reader(relation: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
    """A relation as a stream of Arrow batches."""
    make: Any = getattr(relation, "to_arrow_reader", None)  # DuckDB renamed it
    if make is None:
        make = relation.fetch_record_batch
    return make(_BATCH_ROWS)


def sql_error(sql: str, exc: BaseException) -> SqlError:
    """DuckDB's complaint as one line that says where in the statement."""
    return SqlError(f"SQL{_position(sql, str(exc))}: {one_line(exc)}")


def _placed(connection: duckdb.DuckDBPyConnection, sql: str, exc: duckdb.Error) -> SqlError:
    """The error with its place, which relations lose: the statement is bound again, not run."""
    if not _UNLIMITED.match(sql):
        try:
            connection.execute(_PREFIX + sql)
        except duckdb.Error as again:
            return SqlError(
                f"SQL{_position(_PREFIX + sql, str(again), len(_PREFIX))}: {one_line(again)}"
            )
    return sql_error(sql, exc)


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
