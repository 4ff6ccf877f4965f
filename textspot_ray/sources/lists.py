"""Lists of URIs: text, CSV, TSV, JSONL and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from textspot_ray.errors import SourceError
from textspot_ray.images.formats import NameKind, name_kind
from textspot_ray.sources.parquet import TableFileError, extra_json, open_parquet, rows

_URI_NAMES = (
    "uri url image_uri image_url path image_path file_path filepath file filename file_name "
    "image img key s3_uri gcs_uri location src"
)


@dataclass(frozen=True, slots=True)
class ListRow:
    """One line of a list: the URI as written, the id it gives, its other columns as JSON."""

    uri: str
    image_id: str | None = None
    extra: str | None = None


def read_list(
    file: IO[bytes], name: str, uri_column: str | None, id_column: str | None
) -> Iterator[ListRow]:
    """Rows of a list, streamed; its form is told by its name.

    Raises:
        SourceError: The list is broken or lacks a column; the message names line and fix.
    """
    suffix = name.rpartition(".")[2].lower()
    try:
        if suffix in ("parquet", "pq"):
            table = open_parquet(file)
            yield from _records(rows(table, None), name, uri_column, id_column)
            return
        text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        if suffix in ("csv", "tsv"):
            yield from _csv(text, name, uri_column, id_column)
        elif suffix in ("jsonl", "ndjson"):
            yield from _records(_json_lines(text, name), name, uri_column, id_column)
        else:
            yield from _lines(text, name, id_column)
    except TableFileError as exc:
        raise SourceError(f"{name}: {exc}") from exc


def _lines(text: Iterable[str], name: str, id_column: str | None) -> Iterator[ListRow]:
    if id_column is not None:
        raise SourceError(f"{name}: --id-column needs a list with columns (CSV, JSONL, Parquet)")
    for line in text:
        uri = line.rstrip("\r\n")
        if "\0" in uri:
            raise SourceError(f"{name} is not a text list of URIs: it holds binary data")
        if uri.strip():
            yield ListRow(uri)


def _csv(
    text: io.TextIOWrapper, name: str, uri_column: str | None, id_column: str | None
) -> Iterator[ListRow]:
    first = text.readline()
    delimiter = max(",\t;", key=first.count)
    csv.field_size_limit(2**24)

    def lines() -> Iterator[str]:
        yield first
        yield from text

    reader = csv.reader(lines(), delimiter=delimiter)
    try:
        header = next(reader, None)
        if header is None:
            return
        if len(header) == 1 and uri_column is None and _looks_like_uri(header[0]):
            # One column and no heading: a plain list that happens to be called .csv.
            yield ListRow(header[0])
            yield from (ListRow(row[0]) for row in reader if row and row[0].strip())
            return
        yield from _records(_csv_rows(reader, header, name), name, uri_column, id_column)
    except csv.Error as exc:
        raise SourceError(f"{name} line {reader.line_num}: {exc}") from exc


def _csv_rows(reader: Any, header: list[str], name: str) -> Iterator[dict[str, Any]]:
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise SourceError(
                f"{name} line {reader.line_num}: {len(row)} fields where the heading has "
                f"{len(header)}"
            )
        yield dict(zip(header, row, strict=True))


def _json_lines(text: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise SourceError(f"{name} line {number} is not JSON: {exc}") from exc
        if isinstance(row, str):
            row = {"uri": row}
        if not isinstance(row, dict):
            raise SourceError(f"{name} line {number}: a JSON object is needed")
        yield row


def _records(
    records: Iterable[dict[str, Any]], name: str, uri_column: str | None, id_column: str | None
) -> Iterator[ListRow]:
    column: str | None = None
    for number, row in enumerate(records, 1):
        if column is None:
            column = _choose(row, name, uri_column)
        uri = row.get(column)
        if uri is None or not str(uri).strip():
            raise SourceError(f"{name} row {number}: column {column!r} is empty")
        image_id = None
        if id_column is not None:
            if row.get(id_column) in (None, ""):
                raise SourceError(f"{name} row {number}: no value in --id-column {id_column!r}")
            image_id = str(row[id_column])
        rest = {k: v for k, v in row.items() if k not in (column, id_column)}
        yield ListRow(str(uri), image_id, extra_json(rest))


def _choose(row: dict[str, Any], name: str, wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in row:
            raise SourceError(f"{name} has no column {wanted!r} (columns: {', '.join(row)})")
        return wanted
    by_lower = {str(key).lower(): str(key) for key in row}
    for candidate in _URI_NAMES.split():
        if candidate in by_lower and isinstance(row[by_lower[candidate]], str):
            return by_lower[candidate]
    texts = [str(key) for key, value in row.items() if isinstance(value, str)]
    if len(texts) == 1:
        return texts[0]
    raise SourceError(
        f"{name}: which column holds the URIs? Say --set source.uri_column=NAME "
        f"(columns: {', '.join(map(str, row))})"
    )


def _looks_like_uri(text: str) -> bool:
    kind = name_kind(text)
    return "://" in text or kind not in (NameKind.OTHER, NameKind.UNKNOWN, NameKind.LIST)
