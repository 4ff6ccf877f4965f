"""Parquet files that hold images, or lists of them."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from textspot_ray.records import ErrorKind
from textspot_ray.sources.kinds.base import ContainerError
from textspot_ray.sources.kinds.parquet_pages import LargeColumn, Oversized, Value, pages
from textspot_ray.sources.kinds.tables import (
    ImageColumn,
    ImageTable,
    TableAccess,
    TableKind,
    arrow_fault,
)

# Rows decoded at a time: one image, since a page may repeat a value of 200 MiB; of other columns
# so few that even captions of megabytes take no more than some hundred MiB.
_IMAGE_ROWS = 1
_LIST_ROWS = 32
_NEAR_ROWS = 64  # from the start of a row group, where reading begins
# A page is decompressed whole, beside what is stored, and a dictionary is then copied. Writers put
# 1,024 rows into one, however large they are. Large pages of images are unpacked to disk; a page of
# other columns may take this many times the largest image.
_BY_DISK_BYTES = 64 << 20
_PAGE_SHARE = 1.5
_VALUE_SHARE = 1.5  # of a value; base64 of the largest image takes 1.33
_PAGE_OVERHEAD = 1 << 20
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
        self._by_disk: dict[int, bool] = {}  # row groups
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
            large = self._large(group, leaves)
            if large is not None:
                yield from self._large_scalars(group, large, column, leaves, max(0, start - at))
                continue
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
        is_open = self._by_disk.get(group, False)  # unpacked, and no page is in memory
        return row - self._starts[group] <= _NEAR_ROWS and not is_open

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

    def _large(self, group: int, leaves: list[str]) -> LargeColumn | None:
        """The bytes of a row group, where a page of them is better not unpacked in memory."""
        wanted = [path for path in leaves if len(leaves) == 1 or path.endswith("bytes")]
        if len(wanted) != 1 or self._by_disk.get(group) is False:
            return None
        i = self._leaves.index(wanted[0])
        chunk = self._file.metadata.row_group(group).column(i)
        found: LargeColumn | None = None
        if self._largest_page(chunk) > _BY_DISK_BYTES:
            schema = self._file.metadata.schema.column(i)
            large = LargeColumn(self._raw, chunk, schema, int(_VALUE_SHARE * self._max_bytes))
            found = large if large.can_read() else None
        self._by_disk[group] = found is not None
        return found

    def _large_scalars(
        self, group: int, large: LargeColumn, column: ImageColumn, leaves: list[str], start: int
    ) -> Iterator[Any]:
        """As `scalars`, from a row of a row group on."""
        paths = [path for path in leaves if path.endswith(".path")] if len(leaves) > 1 else []
        named: Iterator[Any] = iter(())
        if paths:
            batches = self._batches([group], _LIST_ROWS, paths)
            named = (value for batch in batches for value in batch.column(0))
            for _ in range(start):
                next(named, None)
        for data in large.values(start):
            held = [_scalar(data, column, next(named, None) if paths else None)]
            del data  # who lets go of a value frees it
            yield held.pop()

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
                size = self._largest_page(metadata.row_group(group).column(i))
                if size > self._max_page_bytes:
                    raise ContainerError(
                        f"a page in column {path!r} takes {size} bytes to read, more than "
                        f"{_PAGE_SHARE:g} x image.max_bytes = {self._max_bytes}: raise that, or "
                        "write smaller row groups",
                        ErrorKind.TOO_LARGE,
                    )

    def _largest_page(self, chunk: Any) -> int:
        """Bytes in memory of a column chunk's largest page; 0 where none can be too large."""
        if 2 * chunk.total_uncompressed_size <= self._max_page_bytes:
            return 0
        return max((page.in_memory for page in pages(self._raw, chunk)), default=0)

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


def _scalar(data: Value | None, column: ImageColumn, named: Any) -> Any:
    """A value as Arrow would give it: inside the structs of its column, beside its path.

    Args:
        data: The image, None for a null, or what stands for one that is too large.
        column: Where it is.
        named: The topmost field with the path alone, or None.
    """
    if data is None:
        made = pa.array([None], pa.large_binary())
    else:  # no copy
        # memory that is never touched, for its size is looked at before
        held = mmap.mmap(-1, data.size) if isinstance(data, Oversized) else data
        offsets = np.array([0, len(held)], np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(held)]
        made = pa.Array.from_buffers(pa.large_binary(), 1, buffers)
    if column.form == "struct":
        for name in column.path[1:]:
            named = named[name] if named is not None and named.is_valid else None
        path = named["path"].as_py() if named is not None and named.is_valid else None
        made = pa.StructArray.from_arrays([made, pa.array([path], pa.string())], ["bytes", "path"])
    for name in reversed(column.path[1:]):
        made = pa.StructArray.from_arrays([made], [name])
    return made[0]


def _is_subsequence(short: tuple[str, ...], long: list[str]) -> bool:
    parts = iter(long)
    return all(name in parts for name in short)


ParquetKind.access = {"parquet": TableAccess(ParquetKind())}
