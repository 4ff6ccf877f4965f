"""What every store of whole files promises, wherever it is."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from textspot_ray.errors import StorageError
from textspot_ray.storage.faults import Contact, Fault, RetryPolicy, fault_of, reason_of

T = TypeVar("T")

TMP = "_textspot/tmp"
_HINTS = {
    Fault.DENIED: "check permissions or credentials",
    Fault.FULL: "the disk or quota is full: free space and run again",
    Fault.READ_ONLY: "it is mounted read-only",
    Fault.TIMEOUT: "storage did not answer in time",
    Fault.TRANSIENT: "storage failed after all retries: run again later",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store: path relative to the store, bytes, seconds since the epoch."""

    path: str
    size: int
    mtime: float


class Store:
    """A folder of whole files. Paths are relative, with forward slashes.

    Missing files raise `FileNotFoundError`; any other fault that retries do not cure raises
    `StorageError` with one line. Bytes are never seen half-written under their final name.
    """

    def __init__(self, uri: str, retry: RetryPolicy) -> None:
        self.uri = uri
        self._retry = retry
        self._contact = Contact(uri)

    @property
    def retries(self) -> int:
        """Requests that were sent again because storage failed in passing."""
        return self._retry.tally.n

    def mkdir(self) -> None:
        """Make the folder if the store has folders."""

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Bytes of a file."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files whose path starts with the prefix, streamed, never from a cache.

        Temporary files are left out unless the prefix names their folder. A missing folder is
        an empty one. Order is by name within a folder.
        """
        raise NotImplementedError

    def put(self, path: str, data: bytes) -> None:
        """Write a file whole, over what is there."""
        raise NotImplementedError

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write a file whole if there is none; False if there is one.

        False can also mean that an earlier try of this very call got through and its answer was
        lost inside the driver: read the file and compare where that matters.
        """
        raise NotImplementedError

    def probe_exclusive(self) -> bool:
        """Find out, by writing twice, whether `put_if_absent` lets exactly one writer win."""
        path = f"{TMP}/probe-{secrets.token_hex(6)}"
        try:
            first = self.put_if_absent(path, b"first")
            second = self.put_if_absent(path, b"second")
            kept = self.read(path)
        except FileNotFoundError as exc:  # a driver that loses what it is given
            raise StorageError(f"{self.uri}: a file just written is not there") from exc
        except BaseException:
            if self._contact.has_answered:
                with contextlib.suppress(Exception):  # the first fault is the one to tell
                    self.delete(path)
            raise
        self.delete(path)
        return first and not second and kept == b"first" and self._is_exclusive()

    def upload(self, local_file: Path, path: str) -> None:
        """Put a local file, which is taken away."""
        raise NotImplementedError

    def open_read(self, path: str) -> IO[bytes]:
        """A seekable binary file of one's own."""
        raise NotImplementedError

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""
        raise NotImplementedError

    def prune(self, folder: str) -> None:
        """Remove a folder that holds nothing; a store of keys has none."""

    def local_path(self, path: str) -> Path | None:
        """Path on this machine's disk, or None if the store is elsewhere."""
        return None

    def full_uri(self, path: str) -> str:
        """URI of a file, for messages and other engines."""
        return f"{self.uri}/{path}"

    def _is_exclusive(self) -> bool:
        raise NotImplementedError

    def _guard(self, verb: str, path: str, function: Callable[[], T]) -> T:
        return self._guard_counted(verb, path, lambda _: function())

    def _guard_counted(self, verb: str, path: str, function: Callable[[int], T]) -> T:
        """As `_guard`; the function is told which try (from 0) it is."""
        try:
            return self._retry.call_counted(self._contact.watch(function))
        except Exception as exc:
            raise self._error(verb, path, exc) from exc

    def _hint(self, exc: Exception) -> str:
        """What to do about a fault, where a driver's words tell; stores of providers know."""
        return ""

    def _error(self, verb: str, path: str, exc: Exception) -> Exception:
        if isinstance(exc, (StorageError, AssertionError)):
            return exc
        fault = fault_of(exc)
        if fault is Fault.MISSING and verb in ("read", "stat"):
            return FileNotFoundError(errno.ENOENT, "no such file", self.full_uri(path))
        hint = self._hint(exc) or _HINTS.get(fault)
        tail = f" ({hint})" if hint else ""
        return StorageError(f"cannot {verb} {self.full_uri(path)}: {reason_of(exc)}{tail}")


def inside(path: str) -> str:
    """A store's path in its plain form; refused if it leads outside."""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts:
        raise AssertionError(f"not a path inside the store: {path!r}")
    return str(PurePosixPath(path))
