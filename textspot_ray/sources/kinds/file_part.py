"""Files for readers that would close them, and stretches of files."""

from __future__ import annotations

from typing import IO, Any

import pyarrow as pa

from textspot_ray.storage.raw_file import RawFile


class FilePart(RawFile):
    """A stretch of a file, as a file; both may be read in turns.

    Args:
        file: It.
        start: First byte.
        size: How many.
    """

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._size = size

    def end(self) -> int:
        return self._size

    def read(self, size: int | None = -1, /) -> bytes:
        """As files have it; by `readinto` there would be two copies."""
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def fill(self, view: memoryview, at: int) -> int:
        self._file.seek(self._start + at)
        data = self._file.read(min(len(view), max(0, self._size - at)))
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
