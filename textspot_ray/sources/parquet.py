"""Parquet tables that hold images, or lists of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from textspot_ray.storage.faults import fault_of

_IMAGE_NAMES = ("image", "image_bytes", "bytes", "img", "jpg", "jpeg", "png", "webp", "content")
_LIST_ROWS = 4096
_IMAGE_ROWS = 8
_BUFFER_BYTES = 4 << 20  # and no pre-buffering: else a whole column chunk is read


class TableFileError(ValueError):
    """A Parquet file cannot be read as what it should be."""


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column with encoded images: binary, or a struct with a binary field ``bytes``."""

    name: str
    is_struct: bool


def find_image_column(schema: Any, wanted: str | None) -> ImageColumn | None:
    """The column that holds image bytes; None if no column can.

    Raises:
        TableFileError: The wanted column is missing or no image column, or there are several.
    """
    found = {}
    for field in schema:
        if _is_binary(field.type):
            found[field.name] = ImageColumn(field.name, is_struct=False)
        elif pa.types.is_struct(field.type):
            inner = {f.name: f.type for f in field.type}
            if "bytes" in inner and _is_binary(inner["bytes"]):
                found[field.name] = ImageColumn(field.name, is_struct=True)
    if wanted is not None:
        if wanted not in found:
            names = ", ".join(schema.names)
            raise TableFileError(f"no image bytes in column {wanted!r} (columns: {names})")
        return found[wanted]
    for name in _IMAGE_NAMES:
        if name in found:
            return found[name]
    if len(found) > 1:
        raise TableFileError(
            f"several binary columns ({', '.join(found)}): choose with --set source.image_column="
        )
    return next(iter(found.values()), None)


def open_parquet(file: IO[bytes]) -> Any:
    """A `pyarrow.parquet.ParquetFile`.

    Raises:
        TableFileError: Not a whole Parquet file.
    """
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as exc:
        if fault_of(exc).passes:
            raise
        raise TableFileError(f"not a whole Parquet file: {_line(exc)}") from exc


def rows(table: Any, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows as dicts, streamed; columns None = all that are not binary."""
    if columns is None:
        columns = [f.name for f in table.schema_arrow if not _has_binary(f.type)]
    try:
        for batch in table.iter_batches(batch_size=_LIST_ROWS, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as exc:
        if fault_of(exc).passes:
            raise
        raise TableFileError(f"Parquet data cannot be read: {_line(exc)}") from exc


def extra_json(values: dict[str, Any]) -> str | None:
    """Pass-through columns as a JSON object; None if there are none."""
    if not values:
        return None
    text = json.dumps(_clean(values), ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode()


class ImageRows:
    """Encoded images of one table by row number; cheap in rising order.

    Rows are decoded a few at a time, so that a row group of gigabytes never sits in memory: no
    more than a data page does, whose size is the writer's (mostly 1 MiB, or 1,024 rows).
    """

    def __init__(self, file: IO[bytes], wanted: str | None) -> None:
        self._table = open_parquet(file)
        column = find_image_column(self._table.schema_arrow, wanted)
        if column is None:
            raise TableFileError("no column of image bytes")
        self._column = column
        metadata = self._table.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        self._next = -1
        self._batches: Iterator[Any] = iter(())
        self._held: list[bytes | None] = []
        self._held_from = 0

    def read(self, row: int) -> bytes | None:
        """The bytes of a row, None for a null.

        Raises:
            TableFileError: No such row, or the data are damaged.
        """
        if not 0 <= row < self._starts[-1]:
            raise TableFileError(f"no row {row} in a table of {self._starts[-1]}")
        held_to = self._held_from + len(self._held)
        if not self._held_from <= row < held_to:
            if self._next < 0 or row < held_to or self._group(row) != self._group(held_to - 1):
                self._start(self._group(row))
            self._forward(row)
        return self._held[row - self._held_from]

    def _group(self, row: int) -> int:
        return next(i for i, stop in enumerate(self._starts[1:]) if row < stop)

    def _start(self, group: int) -> None:
        name = f"{self._column.name}.bytes" if self._column.is_struct else self._column.name
        self._batches = self._table.iter_batches(
            batch_size=_IMAGE_ROWS, row_groups=[group], columns=[name]
        )
        self._next, self._held, self._held_from = self._starts[group], [], self._starts[group]

    def _forward(self, row: int) -> None:
        while row >= self._held_from + len(self._held):
            self._held_from += len(self._held)
            self._held = []
            try:
                batch = next(self._batches)
            except StopIteration:
                raise TableFileError(f"row {row} is missing from its row group") from None
            except (pa.ArrowException, OSError) as exc:
                self._next = -1
                if fault_of(exc).passes:
                    raise
                raise TableFileError(f"Parquet data cannot be read: {_line(exc)}") from exc
            values = batch.column(0)
            if self._column.is_struct:
                values = values.field("bytes")
            self._held = values.to_pylist()


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) or bool(
        pa.types.is_fixed_size_binary(kind)
    )


def _has_binary(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_binary(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_binary(kind.value_type)
    return _is_binary(kind)


def _clean(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows no NaN
    if isinstance(value, dict):
        return {str(key): _clean(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(child) for child in value]
    return value


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200]
