"""Arrow IPC files, streams and random-access, as Hugging Face's ``save_to_disk`` writes them.

A record batch may hold a gigabyte of images. Small ones are read whole; of others only the rows
that are asked for, so that memory is bounded by a row, not by the size of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import IO, Any

import pyarrow as pa

from textspot_ray.records import ErrorKind
from textspot_ray.sources.kinds.arrow_messages import (
    BATCH,
    DICTIONARY,
    MAGIC,
    Message,
    messages,
)
from textspot_ray.sources.kinds.arrow_rows import BatchRows, Layout, OversizedRows
from textspot_ray.sources.kinds.base import ContainerError, MemberError
from textspot_ray.sources.kinds.file_part import read_through
from textspot_ray.sources.kinds.tables import (
    ImageColumn,
    ImageTable,
    TableAccess,
    TableKind,
    arrow_fault,
)

_WHOLE_BYTES = 16 << 20  # of a batch's body that is read at once
_ROWS_BYTES = 4 << 20  # of the rows of a larger one that are
_MAX_ROWS = 1024
_FEW_BYTES = 1 << 17  # rows of nulls take none
_MAX_PACKED = 8 << 15  # rows per byte: Zstandard packs some 32,000 zero bytes into one
_ROW_SHARE = 1.5  # of the largest image is what a row may take; base64 takes 1.33


class ArrowKind(TableKind):
    """Arrow and Feather (version 2) files."""

    label = "Arrow"
    suffixes = ("arrow", "feather")

    def recognises(self, head: bytes) -> bool:
        return head.startswith(MAGIC)

    def open_table(self, file: IO[bytes], max_bytes: int) -> ImageTable:
        return _ArrowTable(file, max_bytes)


class _ArrowTable(ImageTable):
    """Batches in order; of one that is large, some rows are in memory at a time."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._max_row_bytes = int(_ROW_SHARE * max_bytes)
        file.seek(0)
        self._is_random = file.read(len(MAGIC)) == MAGIC
        self._found: list[Message] = []  # as far as they have been asked for
        self._rest = messages(file, self._is_random)
        self._broken: ContainerError | None = None  # what comes behind them
        with self._opened() as reader:
            self.schema = reader.schema
        self._layout = Layout(self.schema)

    def records(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        for batch in self._rows(columns, 0, False):
            for i in range(batch.num_rows):
                yield {name: batch.column(n)[i].as_py() for n, name in enumerate(columns)}

    def scalars(self, column: ImageColumn, start: int = 0, bare: bool = False) -> Generator[Any]:
        for batch in self._rows([column.path[0]], start, bare):
            values = deque(batch.column(0))
            del batch
            while values:
                yield values.popleft()  # who lets go of a value frees it

    def _rows(self, columns: list[str], start: int, bare: bool) -> Iterator[Any]:
        """Batches of some rows with these columns, from a row on."""
        at = 0
        try:
            if self._layout.has_dictionaries and not self._layout.can_take(columns):
                for batch in self._whole_batches():
                    if at + batch.num_rows > start:
                        yield batch.select(columns).slice(max(0, start - at))
                    at += batch.num_rows
                return
            for message in self._messages():
                if message.kind == BATCH:
                    if at + message.rows > start:
                        yield from self._batch(message, columns, max(0, start - at), bare)
                    at += message.rows
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "Arrow data cannot be read") from exc

    def _batch(self, message: Message, columns: list[str], start: int, bare: bool) -> Iterator[Any]:
        rows = BatchRows(self._file, message, self._layout)
        stored = message.stop - message.body
        if message.rows > (8 if message.codec is None else _MAX_PACKED) * max(stored, _FEW_BYTES):
            raise ContainerError(
                f"the batch at byte {message.start} has too few bytes for its {message.rows} rows"
            )
        is_small = rows.n_bytes <= _WHOLE_BYTES and not self._layout.has_dictionaries
        if is_small or not self._layout.can_take(columns):
            self._check_size(rows.n_bytes, message.start)
            self._file.seek(message.start)
            data = pa.py_buffer(self._file.read(message.stop - message.start))
            if len(data) < message.stop - message.start:
                raise ContainerError(f"the file ends inside the batch at byte {message.start}")
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(data), self.schema)
            yield _valid(batch).select(columns).slice(start)
            return
        with rows:
            step = max(1, min(_MAX_ROWS, _ROWS_BYTES * message.rows // max(1, rows.n_bytes)))
            while start < message.rows:
                stop = min(start + step, message.rows)
                limit = self._max_row_bytes if stop == start + 1 else 4 * _ROWS_BYTES
                try:
                    yield _valid(rows.take(columns, start, stop, limit, bare))
                except OversizedRows as exc:
                    if stop > start + 1:
                        step = (stop - start) // 2
                        continue
                    raise self._oversized(exc.size, bare or len(columns) > 1) from exc
                start = stop

    def _oversized(self, size: int, costs_rest: bool) -> Exception:
        message = f"a row of {size} bytes: more than image.max_bytes = {self._max_bytes} allows"
        if costs_rest:
            return ContainerError(message, ErrorKind.TOO_LARGE)
        return MemberError(ErrorKind.TOO_LARGE, message)

    def _check_size(self, size: int, at: int) -> None:
        """Refuse what would be read at once and is too large for it.

        Raises:
            ContainerError: It is.
        """
        if size > self._max_bytes:
            raise ContainerError(
                f"the message at byte {at}, {size} bytes, can only be read whole: raise "
                f"image.max_bytes ({self._max_bytes}) or write smaller record batches",
                ErrorKind.TOO_LARGE,
            )

    def _whole_batches(self) -> Iterator[Any]:
        """Batches read by pyarrow alone, which keeps the dictionaries; each is looked at before."""
        dictionaries = 0
        with self._opened() as reader:
            n, place = 0, self._file.tell()
            for message in self._messages():
                size = BatchRows(self._file, message, self._layout).n_bytes
                dictionaries += size if message.kind == DICTIONARY else 0
                self._check_size(max(size, dictionaries), message.start)
                self._file.seek(place)
                if message.kind == BATCH:
                    yield _valid(reader.get_batch(n) if self._is_random else next(reader))
                    n, place = n + 1, self._file.tell()

    def _messages(self) -> Iterator[Message]:
        """All, those found before from memory."""
        n = 0
        while True:
            while n < len(self._found):
                yield self._found[n]
                n += 1
            if self._broken is not None:
                raise self._broken.with_traceback(None)
            try:
                found = next(self._rest, None)
            except ContainerError as exc:
                self._broken = exc
                raise
            if found is None:
                return
            self._found.append(found)

    def _opened(self) -> Any:
        try:
            self._file.seek(0)
            source = read_through(self._file)
            return pa.ipc.open_file(source) if self._is_random else pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "not a whole Arrow file") from exc


def _valid(batch: Any) -> Any:
    """A batch whose offsets are within its buffers; Arrow does not check them, and crashes.

    Raises:
        pyarrow.ArrowInvalid: They do not.
    """
    batch.validate(full=True)
    return batch


ArrowKind.access = {"arrow": TableAccess(ArrowKind())}
