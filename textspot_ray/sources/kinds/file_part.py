"""Files for readers that would close them, and stretches of files."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class FilePart(io.RawIOBase):
    """A stretch of a file, as a file; both may be read in turns.

    Args:
        file: It.
        start: First byte.
        size: How many.
    """

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._start = self._at = start
        self._stop = start + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        from_where = (self._start, self._at, self._stop)[whence]
        self._at = max(self._start, from_where + offset)
        return self._at - self._start

    def tell(self) -> int:
        return self._at - self._start

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._stop - self._at)
        self._file.seek(self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Unclosed:
    """A file that Arrow's readers may not close: it is read more than once."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file

    def close(self) -> None:
        """Leave it open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def read_through(file: Any) -> Any:
    """A file for Arrow's readers, which they leave open."""
    return pa.PythonFile(_Unclosed(file), mode="r")
