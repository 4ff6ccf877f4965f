"""The volumes of a run: opened by protocol, each call under the deadlines of reading."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, cast

from textspot_ray.storage.abandonable import AbandonablePool
from textspot_ray.storage.faults import Contact, RetryPolicy
from textspot_ray.storage.filesystem import LOCAL, WEB, open_filesystem
from textspot_ray.storage.raw_file import RawFile
from textspot_ray.storage.volume import (
    SLOWEST_BYTES_S,
    Descend,
    FileInfo,
    Grow,
    LocalVolume,
    RemoteVolume,
    SkippedEntry,
    T,
    Volume,
    no_growth,
)
from textspot_ray.storage.web import WebVolume


def open_volume(protocol: str, options: Mapping[str, Any] | None = None) -> Volume:
    """The volume of a protocol, with fsspec options by protocol.

    Raises:
        UsageError: Unknown protocol or missing driver.
    """
    if protocol == LOCAL:
        return LocalVolume()
    fs = open_filesystem(protocol, options)
    if protocol in WEB:
        return WebVolume(protocol, fs)
    return RemoteVolume(protocol, fs)


class Volumes:
    """The volumes in use, one per protocol."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = options
        self._open: dict[str, Volume] = {}

    def get(self, protocol: str) -> Volume:
        """The volume of a protocol.

        Raises:
            UsageError: Unknown protocol or missing driver.
        """
        if protocol not in self._open:
            self._open[protocol] = self._make(protocol)
        return self._open[protocol]

    def _make(self, protocol: str) -> Volume:
        return open_volume(protocol, self._options)


class TimedVolume(Volume):
    """Another volume's reads with deadlines and retries, for listing.

    A driver that never comes back costs its thread, not the listing.

    Args:
        volume: Where to read.
        retry: How transient faults are tried again.
        timeout_s: Longest wait for an answer, on top of a second per megabyte; None to wait as
            long as it takes, in the caller's own thread.
    """

    def __init__(self, volume: Volume, retry: RetryPolicy, timeout_s: float | None = 60.0) -> None:
        self.protocol = volume.protocol
        self._volume = volume
        self._retry = retry
        self._contact = Contact(f"{volume.protocol}://", volume.check_connection)
        self._timeout_s = timeout_s
        self._pool = AbandonablePool(1, "textspot-list")

    def info(self, path: str) -> FileInfo:
        return self.timed(lambda: self._volume.info(path))

    def stamp(self, path: str) -> object:
        return self.timed(lambda: self._volume.stamp(path))

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        return self._volume.walk(root, descend)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.timed(
            lambda: self._volume.read(path, start, stop), 0 if stop is None else stop - start
        )

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        return self.timed(lambda: self._volume.read_tagged(path, max_bytes, grow), max_bytes)

    def open(self, path: str) -> IO[bytes]:
        opened = self.timed(lambda: self._volume.open(path))
        if self._timeout_s is None:
            return opened
        file = _TimedFile(opened, self)
        return cast("IO[bytes]", io.BufferedReader(file, 4 * 2**20))

    def timed(self, call: Callable[[], T], size: int = 0) -> T:
        """The result of a call into the driver.

        Raises:
            TimeoutError: No answer in time, in any of the tries.
        """
        if self._timeout_s is None:
            return self._retry.call(call)
        allowance_s = self._timeout_s + size / SLOWEST_BYTES_S

        def attempt() -> T:
            future = self._pool.submit(lambda _: call())
            try:
                return future.wait(allowance_s)
            finally:
                if future.left_behind:
                    self._pool.replace()

        return self._retry.call(self._contact.watch(attempt))

    def shut(self) -> None:
        """Let go of the thread."""
        self._pool.close()


class TimedVolumes(Volumes):
    """Volumes whose reads have deadlines and are tried again.

    Reads of the local disk are only tried again: a thread for each stat() would cost more.

    Args:
        options: fsspec options by protocol.
        retry: How transient faults are tried again.
        timeout_s: As of `TimedVolume`.
    """

    def __init__(
        self,
        options: Mapping[str, Any] | None,
        retry: RetryPolicy,
        timeout_s: float = 60.0,
    ) -> None:
        super().__init__(options)
        self._retry = retry
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Let go of threads."""
        for volume in self._open.values():
            assert isinstance(volume, TimedVolume)
            volume.shut()

    def _make(self, protocol: str) -> TimedVolume:
        timeout_s = None if protocol == LOCAL else self._timeout_s
        return TimedVolume(super()._make(protocol), self._retry, timeout_s)


class _TimedFile(RawFile):
    def __init__(self, file: IO[bytes], volume: TimedVolume) -> None:
        super().__init__()
        self._file = file
        self._timed = volume.timed

    def fill(self, view: memoryview, at: int) -> int:
        def read() -> bytes:
            if self._file.tell() != at:  # also where a try before this one stopped
                self._file.seek(at)
            return self._file.read(len(view))

        data = self._timed(read, len(view))
        view[: len(data)] = data
        return len(data)

    def end(self) -> int:
        return self._timed(lambda: self._file.seek(0, io.SEEK_END))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
