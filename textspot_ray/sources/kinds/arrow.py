"""Arrow IPC files, streams and random-access, as Hugging Face's ``save_to_disk`` writes them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import IO, Any

import pyarrow as pa

from textspot_ray.sources.kinds.base import ContainerError
from textspot_ray.sources.kinds.tables import (
    ImageColumn,
    ImageTable,
    TableAccess,
    TableKind,
    arrow_fault,
)

_MAGIC = b"ARROW1"
_CONTINUES = b"\xff\xff\xff\xff"  # before each message of a stream


class ArrowKind(TableKind):
    """Arrow and Feather (version 2) files."""

    label = "Arrow"
    suffixes = ("arrow", "feather")

    def recognises(self, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def open_table(self, file: IO[bytes], max_bytes: int) -> ImageTable:
        return _ArrowTable(file)


class _ArrowTable(ImageTable):
    """Batches in order; one is in memory at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.seek(0)
        self._is_random = file.read(len(_MAGIC)) == _MAGIC
        with self._opened() as reader:
            self.schema = reader.schema

    def records(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        for batch in self._batches():
            kept = batch.select(columns)
            for i in range(batch.num_rows):
                yield {name: kept.column(n)[i].as_py() for n, name in enumerate(columns)}

    def scalars(self, column: ImageColumn, start: int = 0, bare: bool = False) -> Generator[Any]:
        at = 0
        for batch in self._batches():
            if at + batch.num_rows > start:
                values = batch.column(column.path[0])
                for i in range(max(0, start - at), batch.num_rows):
                    yield values[i]
            at += batch.num_rows

    def _batches(self) -> Iterator[Any]:
        try:
            with self._opened() as reader:
                if self._is_random:
                    for i in range(reader.num_record_batches):
                        yield _valid(reader.get_batch(i))
                else:
                    for batch in reader:
                        yield _valid(batch)
                    self._check_end()
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "Arrow data cannot be read") from exc

    def _check_end(self) -> None:
        """See to it that a stream ended where its file does, and by its end mark.

        Arrow takes both a cut between two messages and a zeroed message for the end.

        Raises:
            ContainerError: It did not.
        """
        at = self._file.tell()
        rest = self._file.read(1 << 16).lstrip(b"\0")
        if rest:
            raise ContainerError(f"the stream ends at byte {at}, but bytes follow")
        self._file.seek(0)
        is_old = self._file.read(4) != _CONTINUES  # before Arrow 0.15: no such marks
        self._file.seek(max(0, at - 8))
        if not is_old and self._file.read(8) != _CONTINUES + bytes(4):
            raise ContainerError(f"the stream ends without an end mark at byte {at}")

    def _opened(self) -> Any:
        try:
            self._file.seek(0)
            source = pa.PythonFile(_Unclosed(self._file), mode="r")
            return pa.ipc.open_file(source) if self._is_random else pa.ipc.open_stream(source)
        except (pa.ArrowException, OSError) as exc:
            raise arrow_fault(exc, "not a whole Arrow file") from exc


def _valid(batch: Any) -> Any:
    """A batch whose offsets lie within its buffers; Arrow takes them as they come, and crashes.

    Raises:
        pyarrow.ArrowInvalid: They do not.
    """
    batch.validate(full=True)
    return batch


class _Unclosed:
    """A file that Arrow's readers may not close: it is read more than once."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def close(self) -> None:
        """Leave it open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


ArrowKind.access = {"arrow": TableAccess(ArrowKind())}
