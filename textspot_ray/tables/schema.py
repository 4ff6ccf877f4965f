"""Columns of the three tables, and how names and texts are made valid for them.

Every data file of a table has exactly the schema of its version, so that any engine can read any
set of files as one table. Files of an older version lack the columns of `ADDED`, which are read as
nulls (`conform`). For the same reason, columns passed through from a source list are stored as one
JSON object in ``images.extra``; query them with ``extra->>'column'`` in DuckDB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from textspot_ray.text_key import text_key

TABLE_VERSION = 2
VERSION_KEY = b"textspot.table_version"
TABLES = ("words", "images", "errors")
MAX_MESSAGE_CHARS = 2_000
_FLOATS = pa.list_(pa.field("element", pa.float32()))  # the name Parquet itself gives


def _schema(table: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema([pa.field(*f) for f in fields], metadata=_metadata(table, TABLE_VERSION))


def _metadata(table: str, version: int) -> dict[bytes, bytes]:
    return {VERSION_KEY: str(version).encode(), b"textspot.table": table.encode()}


WORDS = _schema(
    "words",
    [
        ("image_id", pa.string()),
        ("word_index", pa.int32()),
        ("line_index", pa.int32()),  # of its text line, in reading order within the image
        ("text", pa.string()),
        ("text_key", pa.string()),  # `text_key.text_key` of the text, for look-ups
        ("text_confidence", pa.float32()),
        ("char_confidences", _FLOATS),
        ("detection_confidence", pa.float32()),
        ("x_min", pa.float32()),
        ("y_min", pa.float32()),
        ("x_max", pa.float32()),
        ("y_max", pa.float32()),
        ("polygon", _FLOATS),
        ("angle_deg", pa.float32()),
    ],
)

IMAGES = _schema(
    "images",
    [
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("member", pa.string()),
        ("page", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("content_tag", pa.string()),
        ("exif_orientation", pa.int16()),
        ("tiles", pa.int32()),
        ("n_words", pa.int32()),
        ("n_unread", pa.int32()),
        ("saturated", pa.bool_()),
        ("status", pa.string()),
        ("read_s", pa.float32()),
        ("decode_s", pa.float32()),
        ("detect_s", pa.float32()),
        ("recognise_s", pa.float32()),
        ("extra", pa.string()),
        ("run_id", pa.string()),
        ("shard", pa.string()),  # <plan>-<index>, as commit records are named
        ("damage", pa.string()),  # a decoder's complaint about an image that it read all the same
        ("content_sha256", pa.string()),  # of the encoded bytes
    ],
)

ERRORS = _schema(
    "errors",
    [
        ("image_id", pa.string()),
        ("stage", pa.string()),
        ("kind", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
    ],
)

# A slim copy of words, sorted by text_key and text, that compact makes for look-ups.
BY_TEXT = "words_by_text"
_BY_TEXT_COLUMNS = (
    *("text_key", "text", "text_confidence", "image_id", "word_index"),
    *("x_min", "y_min", "x_max", "y_max", "angle_deg"),
)
WORDS_BY_TEXT = _schema(BY_TEXT, [(name, WORDS.field(name).type) for name in _BY_TEXT_COLUMNS])

SCHEMAS: dict[str, pa.Schema] = {"words": WORDS, "images": IMAGES, "errors": ERRORS}

# Columns by the version that brought them.
ADDED: dict[int, dict[str, tuple[str, ...]]] = {
    2: {
        "words": ("line_index", "text_key"),
        "images": ("run_id", "shard", "damage", "content_sha256"),
        BY_TEXT: ("text_key",),
    }
}

_DICTIONARY = {
    "words": ["image_id", "text", "text_key"],
    "images": ["source", "format", "status", "extra", "run_id", "shard", "damage"],
    "errors": ["stage", "kind", "message"],
    BY_TEXT: ["text_key", "text"],  # its image_ids rarely repeat within a row group
}


def schema_of(table: str, version: int = TABLE_VERSION) -> pa.Schema:
    """Schema of a table, or of the sorted copy of words, as a version of the tables had it."""
    schema = WORDS_BY_TEXT if table == BY_TEXT else SCHEMAS[table]
    if version >= TABLE_VERSION:
        return schema
    later = {
        name
        for since, columns in ADDED.items()
        if since > version
        for name in columns.get(table, ())
    }
    fields = [field for field in schema if field.name not in later]
    return pa.schema(fields, metadata=_metadata(table, version))


def conform(rows: pa.Table, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of any version with the columns of this one, in their order.

    ``text_key`` is made from the text where it is there; other columns that an older version
    lacked are null.

    Args:
        rows: As read from a data file.
        table: Its table.
        columns: Those to return; default: all.
    """
    schema = schema_of(table)
    names = schema.names if columns is None else list(columns)
    if rows.column_names == names:
        return rows
    there = set(rows.column_names)
    arrays = []
    for name in names:
        if name in there:
            arrays.append(rows.column(name))
        elif name == "text_key" and "text" in there:
            arrays.append(_text_keys(rows.column("text")))
        else:
            arrays.append(pa.nulls(rows.num_rows, schema.field(name).type))
    return pa.Table.from_arrays(arrays, names=names)


def with_values(rows: pa.Table, chosen: Sequence[bool], values: Mapping[str, Any]) -> pa.Table:
    """Rows with other values in some columns, where they are chosen.

    Args:
        rows: Of any schema.
        chosen: Which rows.
        values: By column.
    """
    import pyarrow.compute as pc  # few of those who need a schema need it

    mask = pa.array(chosen, pa.bool_())
    for name, value in values.items():
        at = rows.schema.get_field_index(name)
        field = rows.schema.field(at)
        column = pc.if_else(mask, pa.scalar(value, field.type), rows.column(at))
        rows = rows.set_column(at, field, column)
    return rows


def _text_keys(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keys of texts, each distinct one looked at once."""
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    chunks = []
    for chunk in texts.chunks:
        keys = [None if text is None else text_key(text) for text in chunk.dictionary.to_pylist()]
        chunks.append(pa.array(keys, pa.string()).take(chunk.indices))
    return pa.chunked_array(chunks, pa.string())


def parquet_options(table: str) -> dict[str, Any]:
    """Arguments of `pyarrow.parquet.ParquetWriter` that all files of a table share."""
    statistics = [f.name for f in schema_of(table) if not pa.types.is_list(f.type)]
    return {
        "compression": "zstd",
        "use_dictionary": _DICTIONARY[table],
        "write_statistics": statistics,
        "write_page_checksum": True,
    }


def page_id(image_id: str, page: int) -> str:
    """The ``image_id`` of a page: the item's own for the first, ``#page=N`` (from 0) for others."""
    return image_id if page == 0 else f"{image_id}#page={page}"


def item_id(image_id: str, page: int) -> str:
    """The planned item's id of a row in ``images``: the inverse of `page_id`."""
    return image_id if page == 0 else image_id.removesuffix(f"#page={page}")


def item_names(image_id: str) -> tuple[str, ...]:
    """The possible ids of the item with this ``image_id`` for one of its pages.

    An id that ends in ``#page=N`` mostly means a later page, but ids from users (``--id-column``)
    may end like that as well.
    """
    head, mark, page = image_id.rpartition("#page=")
    return (image_id, head) if mark and head and page.isdigit() else (image_id,)


def to_bytes(text: str) -> bytes:
    """Exact bytes of a name that may hold invalid UTF-8 (as surrogate escapes)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """The inverse of `to_bytes` for names that came from a file system or an archive."""
    return data.decode("utf-8", "surrogateescape")


def clean_text(text: str) -> str:
    """Valid UTF-8 for a text column: every invalid byte becomes ``%XX``."""
    if text.isascii():
        return text
    decoded = from_bytes(to_bytes(text))
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in decoded)


def clean_message(text: str) -> str:
    """An error message as one line of bounded length."""
    line = " ".join(clean_text(text).split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[: MAX_MESSAGE_CHARS - 1] + "…"


def clean_extra(extra: str | None) -> str | None:
    """Pass-through columns as JSON that every engine can parse: no lone surrogates, no NaN."""
    if extra is None:
        return None
    if extra.isascii() and "\\ud" not in extra and "NaN" not in extra and "Infinity" not in extra:
        return extra
    try:
        return json.dumps(_clean_json(json.loads(extra)), ensure_ascii=False)
    except ValueError:
        return json.dumps({"_raw": clean_text(extra)}, ensure_ascii=False)


def _clean_json(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): _clean_json(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_clean_json(child) for child in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
