"""Read-only files over something that gives bytes by place: position, and moving about."""

from __future__ import annotations

import errno
import io
from abc import abstractmethod
from typing import Any


class RawFile(io.RawIOBase):
    """A seekable file whose bytes `fill` gives; wrap it in `io.BufferedReader` to use it."""

    def __init__(self) -> None:
        self._at = 0

    @abstractmethod
    def fill(self, view: memoryview, at: int) -> int:
        """Write bytes from place ``at`` on into a view, which is not empty; how many.

        Fewer than there is room for are fine, 0 stands for the end.
        """

    @abstractmethod
    def end(self) -> int:
        """How many bytes there are.

        Raises:
            OSError: Nobody knows.
        """

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in the file."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do; beyond the end nothing is read."""
        base = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: self.tell, io.SEEK_END: self.end}[whence]()
        if base + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the position on."""
        view = memoryview(buffer).cast("B")
        count = self.fill(view, self._at) if len(view) else 0
        self._at += count
        return count
