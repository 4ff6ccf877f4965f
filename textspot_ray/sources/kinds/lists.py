"""Lists of URIs: text, CSV, TSV, JSONL, and tables without image bytes.

A row that cannot be used becomes an item with an error; the rows behind it are read.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final

from textspot_ray.errors import SourceError
from textspot_ray.images.formats import NameKind, name_kind
from textspot_ray.records import Item, Skipped
from textspot_ray.sources.identity import id_problem
from textspot_ray.sources.kinds.base import Kind, ListRow, Source
from textspot_ray.sources.uris import file_name
from textspot_ray.storage.faults import reason_of

if TYPE_CHECKING:
    from textspot_ray.sources.listing import Lister

_URI_NAMES: Final = (
    "uri", "url", "image_uri", "image_url", "path", "image_path", "img_path", "file_path",
    "filepath", "file", "filename", "file_name", "image", "img", "key", "s3_uri", "gcs_uri",
    "location", "src", "images", "image_paths", "image_urls", "uris", "urls",
)  # fmt: skip
_MAX_FIELD_BYTES = 1 << 24
_MAX_LINE = 1 << 24  # characters
_MAX_EXTRA = 1 << 20  # characters of the other columns; longer texts in them are cut
_CUT = 1 << 16


class ListKind(Kind):
    """A text file, or a table, of URIs."""

    label = "list"
    suffixes = ("txt", "lst", "list", "csv", "tsv", "jsonl", "ndjson")

    def list(self, source: Source, lister: Lister) -> Iterator[Item | Skipped]:
        name = file_name(source.protocol, source.path)
        file = lister.file(source)
        try:
            with file.unchanged():
                yield from lister.rows(source, _rows(file.open, name, lister))
        except (OSError, TimeoutError) as exc:
            raise SourceError(f"cannot read list {lister.uri(source)}: {reason_of(exc)}") from exc


def table_rows(records: Iterable[dict[str, Any]], name: str, lister: Lister) -> Iterator[ListRow]:
    """Rows of a table that holds URIs, from its records.

    Args:
        records: Rows by column name.
        name: The list's, for messages.
        lister: For the columns that the user named.
    """
    columns = _Columns(name, lister)
    yield from columns.rows((n, record, None) for n, record in enumerate(records, 1))


def extra_json(values: dict[str, Any]) -> str | None:
    """Pass-through columns as a JSON object; None if there are none.

    Of more than a million characters, texts are cut to 65,536, so that a plan of many items fits
    into memory. Of what is still too long, or nested too deeply, only the names are kept.
    """
    if not values:
        return None
    try:
        text = json.dumps(_clean(values), ensure_ascii=False, default=str)
        if len(text) > _MAX_EXTRA:
            text = json.dumps(_clean(_shortened(values)), ensure_ascii=False, default=str)
    except RecursionError:
        text = ""
    if not text or len(text) > _MAX_EXTRA:
        text = json.dumps({"left_out": sorted(map(str, values))[:100]})
    return text.encode("utf-8", "replace").decode()


Record = tuple[int, dict[str, Any] | None, str | None]  # number, columns, or what is wrong


class _Columns:
    """Which columns of a list hold what."""

    def __init__(self, name: str, lister: Lister) -> None:
        self.name = name
        self.uri_column = lister.config.uri_column
        self.id_column = lister.config.id_column
        self._kind_of_name = lister.kind_of_name

    def rows(self, records: Iterable[Record]) -> Iterator[ListRow]:
        """Rows from records; the first good one decides about the columns."""
        column: str | None = None
        for number, record, problem in records:
            if record is None:
                yield ListRow("", number=number, error=problem)
                continue
            if column is None:
                column = self._choose(record)
            yield from self._row(number, record, column)

    def looks_like_uri(self, text: str) -> bool:
        """Whether a text is a URI, or a path of something that is listed."""
        if "\n" in text or not text.strip():
            return False
        if "://" in text[:12]:
            return True
        return name_kind(text) is NameKind.IMAGE or self._kind_of_name(text) is not None

    def _row(self, number: int, record: dict[str, Any], column: str) -> Iterator[ListRow]:
        uris = _uris(record.get(column))
        if not uris:
            yield ListRow("", number=number, error=f"column {column!r} is empty")
            return
        image_id = None
        if self.id_column is not None:
            given = record.get(self.id_column)
            if given in (None, ""):
                missing = f"no value in --id-column {self.id_column!r}"
                yield ListRow("", number=number, error=missing)
                return
            image_id = str(given)
            problem = id_problem(image_id)
            if problem is not None:
                yield ListRow("", number=number, error=problem)
                return
        rest = {k: v for k, v in record.items() if k not in (column, self.id_column)}
        extra = extra_json(rest)
        for place, uri in enumerate(uris, 1):
            own_id = image_id
            if own_id is not None and place > 1:
                own_id = f"{image_id}#image={place}"
            yield ListRow(uri, own_id, extra, number=number)

    def _choose(self, record: dict[str, Any]) -> str:
        names = ", ".join(map(str, record))
        if self.uri_column is not None:
            if self.uri_column not in record:
                raise SourceError(
                    f"{self.name} has no column {self.uri_column!r} (columns: {names})"
                )
            return self.uri_column
        if self.id_column is not None and self.id_column not in record:
            raise SourceError(f"{self.name} has no column {self.id_column!r} (columns: {names})")
        by_lower = {str(key).lower(): str(key) for key in record}
        for candidate in _URI_NAMES:
            if candidate in by_lower and _uris(record[by_lower[candidate]]):
                return by_lower[candidate]
        holds = [
            str(key)
            for key, value in record.items()
            if key != self.id_column and any(map(self.looks_like_uri, _uris(value)))
        ]
        if len(holds) == 1:
            return holds[0]
        texts = [str(k) for k, v in record.items() if isinstance(v, str) and k != self.id_column]
        if len(texts) == 1 and not holds:
            return texts[0]
        empty = [c for c in _URI_NAMES if c in by_lower]
        if empty and not holds:
            return by_lower[empty[0]]  # the first row's is empty: an error row of its own
        raise SourceError(
            f"{self.name}: which column holds the URIs? Say --set source.uri_column=NAME "
            f"(columns: {names})"
        )


def _uris(value: Any, levels: int = 8) -> list[str]:
    """URIs in a cell: a text, Hugging Face's ``{"path": ...}``, or a list (of lists) of them."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, dict):
        for key in ("path", "url", "uri", "image_url", "file_name"):
            if isinstance(value.get(key), str) and value[key].strip():
                return [value[key]]
        return []
    if isinstance(value, (list, tuple)) and levels:
        return [uri for child in value for uri in _uris(child, levels - 1)]
    return []


def _text(file: IO[bytes]) -> io.TextIOWrapper:
    """A list's text: UTF-8, or UTF-16 as its first bytes show."""
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
    head = buffered.peek(4)[:4]
    encoding = "utf-8-sig"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif len(head) == 4 and head[1] == head[3] == 0 and head[0] and head[2]:
        encoding = "utf-16-le"
    elif len(head) == 4 and head[0] == head[2] == 0 and head[1] and head[3]:
        encoding = "utf-16-be"
    return io.TextIOWrapper(buffered, encoding, errors="surrogateescape", newline="")


def _limited(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    """Lines, none longer than is sane."""
    while line := text.readline(_MAX_LINE):
        if len(line) >= _MAX_LINE and not line.endswith("\n"):
            raise SourceError(
                f"{name} is no list of URIs: a line of more than {_MAX_LINE} characters"
            )
        yield line


def _lines(text: io.TextIOWrapper, columns: _Columns) -> Iterator[ListRow]:
    if columns.id_column is not None:
        raise SourceError(
            f"{columns.name}: --id-column needs a list with columns (CSV, JSONL, Parquet)"
        )
    for number, line in enumerate(_limited(text, columns.name), 1):
        uri = line.rstrip("\r\n")
        if "\0" in uri:
            raise SourceError(f"{columns.name} is not a text list of URIs: it holds binary data")
        if not uri.strip():
            continue
        extra = None
        first, tab, rest = uri.partition("\t")
        if tab and columns.looks_like_uri(_unquoted(first)):  # PaddleOCR's label files
            uri, extra = first, extra_json({"label": _json_or_text(rest)})
        yield ListRow(_unquoted(uri), None, extra, number=number)


def _unquoted(text: str) -> str:
    bare = text.strip()
    if len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'":
        return bare[1:-1]
    return text


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json_lines(text: io.TextIOWrapper) -> Iterator[Record]:
    for number, line in enumerate(_limited(text, "the list"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as exc:
            yield number, None, f"not JSON: {exc}"
            continue
        if isinstance(row, str):
            row = {"uri": row}
        if isinstance(row, dict):
            yield number, row, None
        else:
            yield number, None, "a JSON object is needed"


def _rows(open_file: Callable[[], IO[bytes]], name: str, lister: Lister) -> Iterator[ListRow]:
    """Rows of a list, streamed; its format is known by its name.

    It is opened more than once where its quoting has to be found out first.
    """
    suffix = name.rpartition(".")[2].lower()
    columns = _Columns(name, lister)
    if suffix in ("csv", "tsv"):
        yield from _csv(open_file, columns, lister.config.header)
        return
    with open_file() as file:
        if suffix in ("jsonl", "ndjson"):
            yield from columns.rows(_json_lines(_text(file)))
        else:
            yield from _lines(_text(file), columns)


def _csv(open_file: Callable[[], IO[bytes]], columns: _Columns, header: str) -> Iterator[ListRow]:
    with open_file() as file:
        first = _text(file).readline(_MAX_LINE)
    delimiter = max(",\t;", key=first.count)
    quoting = _quoting(open_file) if delimiter == "\t" else csv.QUOTE_MINIMAL
    with open_file() as file:
        yield from _csv_rows(_reader(_text(file), delimiter, quoting), columns, header)


def _csv_rows(reader: Any, columns: _Columns, header: str) -> Iterator[ListRow]:
    try:
        names = next(reader, None)
    except csv.Error as exc:
        raise SourceError(f"{columns.name} line {reader.line_num}: {exc}") from exc
    if names is None:
        return
    if header == "no" or (header == "auto" and _is_data(names, columns)):
        cells = [f"column_{i}" for i in range(1, len(names) + 1)]
        yield from columns.rows(_csv_records(reader, cells, (names, reader.line_num)))
    else:
        yield from columns.rows(_csv_records(reader, names, None))


def _is_data(names: list[str], columns: _Columns) -> bool:
    """Whether the first row of a CSV is a row like the others: it holds a URI, not a name."""
    if columns.uri_column in names or columns.id_column in names:
        return False
    return any(columns.looks_like_uri(cell) for cell in names)


def _csv_records(
    reader: Any, names: list[str], first: tuple[list[str], int] | None
) -> Iterator[Record]:
    if first is not None:
        yield first[1], dict(zip(names, first[0], strict=True)), None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as exc:
            yield reader.line_num, None, str(exc)
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(names):
            problem = f"{len(row)} fields where the heading has {len(names)}"
            yield reader.line_num, None, problem
            continue
        yield reader.line_num, dict(zip(names, row, strict=True)), None


def _reader(text: io.TextIOWrapper, delimiter: str, quoting: int, strict: bool = False) -> Any:
    csv.field_size_limit(_MAX_FIELD_BYTES)
    return csv.reader(
        (line.replace("\0", "\ufffd") for line in _limited(text, "the list")),
        delimiter=delimiter,
        quoting=quoting,  # type: ignore[arg-type]
        strict=strict,
    )


def _quoting(open_file: Callable[[], IO[bytes]]) -> int:
    """Whether a TSV quotes its fields.

    Most do not, and captions begin with a quote all the same. Quotes are taken for quoting only
    if the file parses so to its end, and no row then swallows lines that are rows by themselves.
    """
    with open_file() as file:
        plain_fits, plain_rows, quotes = True, 0, False
        width = None
        for line in _limited(_text(file), "the list"):
            bare = line.rstrip("\r\n")
            if not bare:
                continue
            fields = bare.count("\t") + 1
            width = fields if width is None else width
            plain_fits = plain_fits and fields == width
            plain_rows += 1
            quotes = quotes or bare.startswith('"') or '\t"' in bare
    if not quotes:
        return csv.QUOTE_NONE
    with open_file() as file:
        rows, fits = 0, True
        try:
            for row in _reader(_text(file), "\t", csv.QUOTE_MINIMAL, strict=True):
                if row:
                    rows += 1
                    fits = fits and len(row) == width
        except csv.Error:
            fits = False
    quoted = fits and (rows == plain_rows or not plain_fits)
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _CUT else f"{value[:_CUT]}…"
    if isinstance(value, dict):
        return {key: _shortened(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(child) for child in value]
    return value


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    if isinstance(value, dict):
        return {str(key): _clean(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(child) for child in value]
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    return value
