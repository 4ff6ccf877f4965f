"""Reading sources: one interface over the local disk and fsspec's drivers.

Faults are the driver's own exceptions; `faults.fault_of` tells what they mean.
"""

# ruff: noqa: PTH116 - a Path object for each of ten million files costs more than its stat().

from __future__ import annotations

import errno
import io
import os
import stat as stat_bits
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar, cast

from textspot_ray.storage.abandonable import AbandonablePool
from textspot_ray.storage.faults import RetryPolicy
from textspot_ray.storage.filesystem import LOCAL, content_tag, open_filesystem, walk_remote

T = TypeVar("T")
Descend = Callable[[str], bool]
Grow = Callable[[int], None]
_SLOWEST_BYTES_S = 1e6  # a transfer may take this long on top of the longest silence


def no_growth(size: int) -> None:
    """For those who do not count what is read."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: driver's path, bytes if known, and a tag that changes with its content."""

    path: str
    size: int | None
    tag: str | None
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """Something that a walk does not go into, and why."""

    path: str
    reason: str
    fault: OSError | None = None


class Volume:
    """A place that sources are read from."""

    protocol: str

    def info(self, path: str) -> FileInfo:
        """What is at a path; `FileNotFoundError` if nothing is."""
        raise NotImplementedError

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        """All files below a folder, sorted within each level; streamed.

        Args:
            root: Folder.
            descend: Asked for each folder below the root (where levels are read one by one).
        """
        raise NotImplementedError

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes from ``start`` to ``stop``, fewer if the file ends before."""
        raise NotImplementedError

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        """A whole file and its tag as of the reading.

        Args:
            path: Driver's path.
            max_bytes: A larger file is not read (None instead of its bytes), whatever size its
                store told before.
            grow: Called with the bytes that are about to be held, or that have just come; may
                wait until there is room for them.
        """
        raise NotImplementedError

    def open(self, path: str) -> IO[bytes]:
        """A seekable file of one's own."""
        raise NotImplementedError


def open_volume(protocol: str, options: Mapping[str, Any] | None = None) -> Volume:
    """The volume of a protocol, with fsspec options by protocol.

    Raises:
        UsageError: Unknown protocol or missing driver.
    """
    if protocol == LOCAL:
        return LocalVolume()
    fs = open_filesystem(protocol, options)
    if protocol in ("http", "https"):
        from textspot_ray.storage.web import WebVolume

        return WebVolume(protocol, fs)
    return RemoteVolume(protocol, fs)


class Volumes:
    """The volumes in use, one a protocol."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = options
        self._open: dict[str, Volume] = {}

    def get(self, protocol: str) -> Volume:
        """The volume of a protocol.

        Raises:
            UsageError: Unknown protocol or missing driver.
        """
        if protocol not in self._open:
            self._open[protocol] = open_volume(protocol, self._options)
        return self._open[protocol]


class LocalVolume(Volume):
    """Mounted disks. Only regular files are opened: a pipe would block for ever."""

    protocol = LOCAL

    def info(self, path: str) -> FileInfo:
        return _local_info(path, os.stat(path))

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        # A stack, not recursion: how deep folders are nested is not ours to say.
        stack = [self._level(root, is_root=True)]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif isinstance(entry, FileInfo) and entry.is_folder:
                if descend(entry.path):
                    stack.append(self._level(entry.path))
            else:
                yield entry

    def _level(self, folder: str, is_root: bool = False) -> Iterator[FileInfo | SkippedEntry]:
        try:
            with os.scandir(folder) as found:
                entries = sorted((e.name, _type_of(e)) for e in found)
        except OSError as exc:
            if is_root:
                raise
            yield SkippedEntry(folder, "folder that cannot be listed", exc)
            return
        prefix = folder if folder.endswith("/") else f"{folder}/"
        if ("_textspot", "folder") in entries and _exists(f"{prefix}_textspot/table.json"):
            yield SkippedEntry(folder, "output of textspot")
            return
        for name, kind in entries:
            path = prefix + name
            if kind == "folder":
                yield FileInfo(path, None, None, is_folder=True)
            elif kind == "file":
                try:
                    yield _local_info(path, os.stat(path))
                except FileNotFoundError:
                    # A link to nothing, or deleted just now; reading it gives the error row.
                    yield FileInfo(path, None, None)
                except OSError as exc:
                    yield SkippedEntry(path, "file that cannot be looked at", exc)
            else:
                yield SkippedEntry(path, kind)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        descriptor = _open_regular(path)
        try:
            size = os.fstat(descriptor).st_size
            return _pread(descriptor, start, size if stop is None else min(stop, size))
        finally:
            os.close(descriptor)

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        descriptor = _open_regular(path)
        try:
            info = _local_info(path, os.fstat(descriptor))
            size = info.size or 0
            if size > max_bytes:
                return None, info
            grow(size)
            return _pread(descriptor, 0, size), info
        finally:
            os.close(descriptor)

    def open(self, path: str) -> IO[bytes]:
        return os.fdopen(_open_regular(path), "rb")


class RemoteVolume(Volume):
    """Whatever fsspec has a driver for."""

    def __init__(self, protocol: str, fs: Any) -> None:
        self.protocol = protocol
        self._fs = fs

    def info(self, path: str) -> FileInfo:
        found = self._fs.info(path)
        if found.get("type") == "directory":
            return FileInfo(path, None, None, is_folder=True)
        return self._info(path, found)

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        for entry in walk_remote(self._fs, root):
            yield self._info(entry.path, entry.info)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        if start == 0 and stop is None:
            return bytes(self._fs.cat_file(path))
        if stop is not None and stop <= start:
            return b""
        try:
            return bytes(self._fs.cat_file(path, start=start, end=stop))
        except OSError:
            # Stores answer a range behind the end in many ways; nothing is there to read.
            size = self._fs.info(path).get("size")
            if size is not None and start >= size:
                return b""
            raise

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        info = self.info(path)
        if info.is_folder:
            raise FileNotFoundError(errno.ENOENT, "is a folder", path)
        if info.size is None:
            return self._read_bounded(path, max_bytes, grow), info
        if info.size > max_bytes:
            return None, info
        grow(info.size)
        data = bytes(self._fs.cat_file(path))
        if len(data) != info.size:
            raise OSError(errno.EIO, f"got {len(data)} of {info.size} bytes", path)
        return data, info

    def _read_bounded(self, path: str, max_bytes: int, grow: Grow) -> bytes | None:
        """Read what tells no size: it may never end."""
        with self._fs.open(path, "rb") as file:
            parts, left = [], max_bytes
            while part := file.read(min(2**20, left + 1)):
                left -= len(part)
                if left < 0:
                    return None
                grow(len(part))
                parts.append(part)
        return b"".join(parts)

    def open(self, path: str) -> IO[bytes]:
        if hasattr(self._fs, "pseudo_dirs"):  # the memory store shares one object with everybody
            return io.BytesIO(self.read(path))
        file: IO[bytes] = self._fs.open(path, "rb", block_size=4 * 2**20)
        return file

    def _info(self, path: str, found: Mapping[str, Any]) -> FileInfo:
        size = found.get("size")
        return FileInfo(
            path, None if size is None else int(size), content_tag(self.protocol, found)
        )


class TimedVolume(Volume):
    """Another volume's reads under a deadline and retries, for those who list.

    A driver that never comes back costs its thread, not the listing.

    Args:
        volume: Where to read.
        retry: How transient faults are tried again.
        timeout_s: Longest wait for an answer, on top of a second a megabyte; None to wait as
            long as it takes, in the caller's own thread.
    """

    def __init__(self, volume: Volume, retry: RetryPolicy, timeout_s: float | None = 60.0) -> None:
        self.protocol = volume.protocol
        self._volume = volume
        self._retry = retry
        self._timeout_s = timeout_s
        self._pool = AbandonablePool(1, "textspot-list")

    def info(self, path: str) -> FileInfo:
        return self.timed(lambda: self._volume.info(path))

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
        allowance_s = self._timeout_s + size / _SLOWEST_BYTES_S

        def attempt() -> T:
            ticket = self._pool.submit(lambda _: call())
            try:
                return ticket.wait(allowance_s)
            finally:
                if ticket.left_behind:
                    self._pool.replace()

        return self._retry.call(attempt)

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
        self._timed: dict[str, TimedVolume] = {}

    def get(self, protocol: str) -> Volume:
        if protocol not in self._timed:
            timeout_s = None if protocol == LOCAL else self._timeout_s
            self._timed[protocol] = TimedVolume(super().get(protocol), self._retry, timeout_s)
        return self._timed[protocol]

    def close(self) -> None:
        """Let go of threads."""
        for volume in self._timed.values():
            volume.shut()


class _TimedFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], volume: TimedVolume) -> None:
        self._file = file
        self._timed = volume.timed
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            self._at = self._timed(lambda: self._file.seek(offset, whence))
        else:
            self._at = offset if whence == io.SEEK_SET else self._at + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")

        def read() -> bytes:
            if self._file.tell() != self._at:  # also where a try before this one stopped
                self._file.seek(self._at)
            return self._file.read(len(view))

        data = self._timed(read, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _type_of(entry: os.DirEntry[str]) -> str:
    """``file``, ``folder``, or the reason why it is neither."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if entry.is_symlink():
        try:
            mode = os.stat(entry.path).st_mode
        except OSError:
            return "file"  # a link to nothing is missing, which is worth an error row
        if stat_bits.S_ISDIR(mode):
            return "symbolic link to a folder"  # it may lead in a circle
        return "file" if stat_bits.S_ISREG(mode) else "not a regular file"
    return "file" if entry.is_file(follow_symlinks=False) else "not a regular file"


def _local_info(path: str, stat: os.stat_result) -> FileInfo:
    if stat_bits.S_ISDIR(stat.st_mode):
        return FileInfo(path, None, None, is_folder=True)
    return FileInfo(path, stat.st_size, f"stat:{stat.st_size}-{stat.st_mtime_ns}")


def _open_regular(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat_bits.S_ISREG(mode):
        os.close(descriptor)
        what = "is a folder" if stat_bits.S_ISDIR(mode) else "not a regular file"
        raise FileNotFoundError(errno.ENOENT, what, path)
    return descriptor


def _pread(descriptor: int, start: int, stop: int) -> bytes:
    if stop <= start:
        return b""
    parts: list[bytes] = []
    while start < stop:
        part = os.pread(descriptor, min(stop - start, 64 * 2**20), start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True
