"""Results on a terminal or in a file: aligned table, CSV, JSON lines or Parquet, as they stream."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len, set_cell_size

from textspot_ray.errors import UsageError, printable
from textspot_ray.query.destination import open_binary, open_text
from textspot_ray.query.sql import QueryResult

_TABLE_ROWS = 1000  # rows per block; the widths of columns are chosen per block
_MAX_WIDTH = 80
_EXPLAINED = ["explain_key", "explain_value"]


class OutputFormat(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"  # one object per line
    PARQUET = "parquet"


_SUFFIXES = {
    ".csv": OutputFormat.CSV,
    ".json": OutputFormat.JSON,
    ".jsonl": OutputFormat.JSON,
    ".ndjson": OutputFormat.JSON,
    ".parquet": OutputFormat.PARQUET,
    ".pq": OutputFormat.PARQUET,
    ".txt": OutputFormat.TABLE,
}


def format_of(out: str | None) -> OutputFormat:
    """The format that a file's name asks for; a table where it has no suffix.

    Raises:
        UsageError: The suffix is that of another format, which the file would not be.
    """
    suffix = PurePosixPath(out or "").suffix.lower()
    if suffix and suffix not in _SUFFIXES:
        raise UsageError(
            f"--out {out}: {suffix} is not written; give .csv, .jsonl, .parquet, .txt or --format"
        )
    return _SUFFIXES.get(suffix, OutputFormat.TABLE)


def write_result(
    result: QueryResult,
    format: OutputFormat,
    out: str | None,
    options: Mapping[str, Any] | None = None,
) -> int:
    """Write a query's rows to a file, or to standard output.

    Args:
        result: The rows.
        format: How they are written.
        out: Path or fsspec URI; None and ``-`` for standard output.
        options: fsspec options by protocol.

    Returns:
        How many rows there were.

    Raises:
        UsageError: The file cannot be written, or Parquet would go to a terminal.
    """
    if format is OutputFormat.PARQUET:
        return _write_parquet(result, out, options)
    with open_text(out, options) as file:
        if format is OutputFormat.TABLE and result.schema.names == _EXPLAINED:
            return _write_plan(result, file)
        if format is OutputFormat.CSV:
            return _write_csv(result, file)
        if format is OutputFormat.JSON:
            return _write_json(result, file)
        return write_table(result, file)


def text_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as aligned text; numbers to the right, control characters shown as escapes."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        min(_MAX_WIDTH, max([cell_len(name), *(cell_len(row[n]) for row in cells)]))
        for n, name in enumerate(names)
    ]
    right = [bool(rows) and all(_is_number(row[n]) for row in rows) for n in range(len(names))]
    lines = [
        _line(names, widths, [False] * len(names)),
        "  ".join("─" * width for width in widths),
    ]
    lines += [_line(row, widths, right) for row in cells]
    return "\n".join(lines) + "\n"


def write_table(result: QueryResult, file: IO[str]) -> int:
    """Write rows as aligned text, and return how many there were."""
    rows = _rows(result)
    page = list(islice(rows, _TABLE_ROWS))
    file.write(text_table(result.schema.names, page))
    count = len(page)
    while page := list(islice(rows, _TABLE_ROWS)):
        file.write(text_table(result.schema.names, page).split("\n", 2)[2])  # without the head
        count += len(page)
    return count


def _write_csv(result: QueryResult, file: IO[str]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(result.schema.names)
    count = 0
    for row in _rows(result):
        writer.writerow([_flat(value) for value in row])
        count += 1
    return count


def _write_json(result: QueryResult, file: IO[str]) -> int:
    count = 0
    for row in _rows(result):
        record = dict(zip(result.schema.names, map(plain, row), strict=True))
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        count += 1
    return count


def _write_plan(result: QueryResult, file: IO[str]) -> int:
    """Output of EXPLAIN: drawings of many lines, which do not fit into a table's cells."""
    count = 0
    for key, value in _rows(result):
        file.write(f"{key}\n{value.rstrip()}\n")
        count += 1
    return count


def _write_parquet(result: QueryResult, out: str | None, options: Mapping[str, Any] | None) -> int:
    if (out is None or out == "-") and sys.stdout.isatty():
        raise UsageError("Parquet is not text: add --out FILE or redirect the output")
    count = 0
    with (
        open_binary(out, options) as file,
        pq.ParquetWriter(pa.PythonFile(file, mode="w"), result.schema, compression="zstd") as to,
    ):
        for batch in result:
            to.write_batch(batch)
            count += batch.num_rows
    return count


def _rows(result: QueryResult) -> Iterator[tuple[Any, ...]]:
    for batch in result:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def plain(value: Any) -> Any:
    """A value for JSON: no NaN, ISO dates, bytes as hex, sums of integers as integers."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(child) for child in value]
    return str(value)


def _flat(value: Any) -> Any:
    found = plain(value)
    return json.dumps(found, ensure_ascii=False) if isinstance(found, (list, dict)) else found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_cell(child) for child in value) + "]"
    return printable(str(plain(value)))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    line = io.StringIO()
    for n, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        shown = cell if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"
        pad = " " * (width - cell_len(shown))
        line.write(("  " if n else "") + (pad + shown if right[n] else shown + pad))
    return line.getvalue().rstrip()
