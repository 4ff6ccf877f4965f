"""Parquet files that hold images, or lists of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from textspot_ray.records import ErrorKind
from textspot_ray.sources.kinds.base import ContainerError
from textspot_ray.sources.kinds.tables import (
    ImageColumn,
    ImageTable,
    TableAccess,
    TableKind,
    arrow_fault,
)

# Rows decoded at a time: of images one, for a page may repeat a value of 200 MiB; of other
# columns so few that even captions of megabytes stay within some hundred MiB.
_IMAGE_ROWS = 1
_LIST_ROWS = 32
_NEAR_ROWS = 64  # from the start of a row group, where reading begins
# A page is decompressed whole, and a dictionary copied then. Writers make one of up to 1,024 rows,
# however large they are. So much, times the largest image, may a page take; levels come on top.
_PAGE_SHARE = 1.5
_PAGE_OVERHEAD = 1 << 20
_DICTIONARY_PAGE = 2  # parquet.thrift's PageType
_MAX_PAGE_HEADER = 64 << 10  # bytes; statistics in it hold values
_BUFFER_BYTES = 4 << 20  # and no pre-buffering: else a whole column chunk is read


class ParquetKind(TableKind):
    """Parquet."""

    label = "Parquet"
    suffixes = ("parquet", "pq")

    def recognises(self, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def open_table(self, file: IO[bytes], max_bytes: int) -> ImageTable:
        return _ParquetTable(file, max_bytes)


class _ParquetTable(ImageTable):
    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._raw = file
        self._max_bytes = max_bytes
        self._max_page_bytes = int(_PAGE_SHARE * max_bytes) + _PAGE_OVERHEAD
        self._checked: set[tuple[int, int]] = set()
        try:
            with _plain_memory():
                self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            self.schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "not a whole Parquet file") from exc
        metadata = self._file.metadata
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)
        leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        self._leaves: list[str] = [leaf.path for leaf in leaves]

    def records(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        if not columns:  # an iterator over no columns has no rows
            for _ in range(self._starts[-1]):
                yield {}
            return
        for batch in self._batches(None, _LIST_ROWS, columns):
            yield from batch.to_pylist()

    def scalars(self, column: ImageColumn, start: int = 0, bare: bool = False) -> Generator[Any]:
        leaves = self._leaves_of(column, bare)
        if not 0 <= start < self._starts[-1]:
            return
        first = bisect_right(self._starts, start) - 1
        for group in range(first, len(self._starts) - 1):
            at = self._starts[group]
            for batch in self._batches([group], _IMAGE_ROWS, leaves):
                values = deque(batch.column(0))
                del batch  # who lets go of a value frees it
                while values:
                    at += 1
                    if at > start:
                        yield values.popleft()
                    else:
                        values.popleft()

    def is_near(self, row: int) -> bool:
        group = bisect_right(self._starts, row) - 1
        return row - self._starts[group] <= _NEAR_ROWS

    def is_all_null(self, column: ImageColumn) -> bool:
        if column.form != "struct":
            return False
        wanted = set(self._leaves_of(column, False))
        index = [
            i for i, path in enumerate(self._leaves) if path in wanted and path.endswith("bytes")
        ]
        metadata = self._file.metadata
        groups = range(metadata.num_row_groups)
        if not index or not groups:
            return False
        for group in groups:
            chunk = metadata.row_group(group).column(index[0])
            stats = chunk.statistics
            if stats is None or not stats.has_null_count or stats.null_count != chunk.num_values:
                return False
        return True

    def close(self) -> None:
        self._file.close()

    def _batches(self, groups: list[int] | None, rows: int, columns: list[str]) -> Iterator[Any]:
        self._check_pages(groups, columns)
        try:
            yield from self._file.iter_batches(
                batch_size=rows, row_groups=groups, columns=columns, use_threads=False
            )
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "Parquet data cannot be read") from exc

    def _check_pages(self, groups: list[int] | None, columns: list[str]) -> None:
        """Refuse pages that would take more memory than a reader may.

        Raises:
            ContainerError: There is one.
        """
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups) if groups is None else groups:
            for i, path in enumerate(self._leaves):
                if (group, i) in self._checked or not any(
                    path == c or path.startswith(f"{c}.") for c in columns
                ):
                    continue
                self._checked.add((group, i))
                chunk = metadata.row_group(group).column(i)
                if 2 * chunk.total_uncompressed_size <= self._max_page_bytes:
                    continue
                size = _largest_page(self._raw, chunk)
                if size > self._max_page_bytes:
                    raise ContainerError(
                        f"a page in column {path!r} takes {size} bytes to read, more than "
                        f"{_PAGE_SHARE:g} x image.max_bytes = {self._max_bytes}: raise that, or "
                        "write smaller row groups",
                        ErrorKind.TOO_LARGE,
                    )

    def _leaves_of(self, column: ImageColumn, bare: bool) -> list[str]:
        """Physical columns: list levels are named as the writer pleased."""
        found = []
        for path in self._leaves:
            parts = path.split(".")
            if parts[0] != column.path[0] or not _is_subsequence(column.path, parts):
                continue
            if column.form != "struct" or parts[-1] in ("bytes", "path"):
                found.append(path)
        if column.form == "struct":
            paths = [p for p in found if p.endswith(".path")] if column.has_path else []
            if bare and paths:
                return paths
            return [p for p in found if p.endswith(".bytes")] + paths
        if not found:
            raise ContainerError(f"no column {column.name!r} in the file")
        return found


@contextmanager
def _plain_memory() -> Iterator[None]:
    """Have what is made meanwhile take its memory from the system, which gets it back at once.

    Arrow's own allocators keep large buffers that were freed, and copy them where they grow. A
    reader keeps the allocator that it was made with, which can only be chosen for the process.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _largest_page(file: IO[bytes], chunk: Any) -> int:
    """Most bytes that a page of a column chunk takes to read, as the pages' headers say."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    stop, largest = at + chunk.total_compressed_size, 0
    while at < stop:
        file.seek(at)
        header = _PageHeader(file.read(_MAX_PAGE_HEADER))
        if header.compressed < 0 or header.length <= 0:
            break  # damaged: told when the data are read
        copies = 2 if header.kind == _DICTIONARY_PAGE else 1
        largest = max(largest, copies * header.uncompressed)
        at += header.length + header.compressed
    return largest


class _PageHeader:
    """The first fields of parquet.thrift's PageHeader, in Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.kind = self.uncompressed = self.compressed = -1
        try:
            self._struct(top=True)
        except (IndexError, RecursionError):
            self._at = -1
        self.length = self._at

    def _struct(self, top: bool = False) -> None:
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            if top and kind == 5 and field in (1, 2, 3):
                value = self._zigzag()
                if field == 1:
                    self.kind = value
                elif field == 2:
                    self.uncompressed = value
                else:
                    self.compressed = value
            else:
                self._skip(kind)

    def _skip(self, kind: int) -> None:
        if kind in (1, 2):  # true and false have no value
            return
        if kind == 3:
            self._at += 1
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 7:
            self._at += 8
        elif kind == 8:
            self._at += self._varint()
        elif kind == 12:
            self._struct()
        else:  # lists, sets and maps: a page's header has none
            raise IndexError

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _is_subsequence(short: tuple[str, ...], long: list[str]) -> bool:
    parts = iter(long)
    return all(name in parts for name in short)


ParquetKind.access = {"parquet": TableAccess(ParquetKind())}
