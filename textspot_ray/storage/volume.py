"""Reading sources: one interface over the local disk and fsspec's drivers.

Faults are the driver's own exceptions; `faults.fault_of` classifies them.
"""

# ruff: noqa: PTH110, PTH116 - a Path object for each of ten million files costs more than its stat().

from __future__ import annotations

import errno
import io
import os
import stat as stat_bits
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from textspot_ray.storage.connection import check_connection
from textspot_ray.storage.faults import SourceChangedError
from textspot_ray.storage.filesystem import LOCAL, content_tag, is_memory, walk_remote

T = TypeVar("T")
Descend = Callable[[str], bool]
Grow = Callable[[int], None]
_MAX_AT_ONCE = 2**30  # Linux reads at most 2 GiB in a call
SLOWEST_BYTES_S = 1e6  # a transfer may take this long on top of the longest silence
# Drivers of object stores fetch what is smaller by one request, which gives one version of the
# object. Of larger ones s3fs and gcsfs ask for parts beside each other, of whichever version.
_ONE_REQUEST_BYTES = 4 << 20
_OBJECT_STORES = frozenset({"s3", "gs", "az", "abfs"})
_ONE_PACKET_BYTES = 32 << 10  # of SFTP; other drivers' are larger


def no_growth(size: int) -> None:
    """Does nothing: for callers who do not limit what is read."""


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


def steady(path: str, read: Callable[[], bytes], stamp: Callable[[], object]) -> bytes:
    """Bytes of a file that others may write to: of one state of it, never of two.

    What is appended behind them, as to a tar that is being written, does no harm.

    Args:
        path: The file, for the error.
        read: Reads them.
        stamp: Changes when the file does.

    Raises:
        SourceChangedError: They changed while they were read.
    """
    before = stamp()
    data = read()
    if stamp() != before and read() != data:
        raise SourceChangedError(path)
    return data


class Volume:
    """A place that sources are read from."""

    protocol: str

    def check_connection(self) -> None:
        """Find out in seconds whether there is anybody to ask; those who list do so first.

        Raises:
            SilentHostError: There is nobody.
        """

    def info(self, path: str) -> FileInfo:
        """What is at a path; `FileNotFoundError` if nothing is."""
        raise NotImplementedError

    def stamp(self, path: str) -> object:
        """What tells two states of a file apart, if its store tells anything."""
        info = self.info(path)
        return info.size, info.tag

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
        """Bytes from ``start`` to ``stop``, fewer if the file ends before.

        Args:
            path: Driver's path.
            start: First byte.
            stop: Byte after the last; None: the end.

        Raises:
            SourceChangedError: They changed while they were read.
        """
        raise NotImplementedError

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        """A whole file, and its tag at the time of reading.

        Args:
            path: Driver's path.
            max_bytes: A larger file is not read (None instead of its bytes), whatever size was
                listed.
            grow: Called with the bytes that are about to be held, or that have just come; may
                wait until there is room for them.

        Raises:
            SourceChangedError: The file changed while it was read.
        """
        raise NotImplementedError

    def open(self, path: str) -> IO[bytes]:
        """A seekable file that is not shared with other callers."""
        raise NotImplementedError


class LocalVolume(Volume):
    """Mounted disks. Only regular files are opened: reading a pipe would block."""

    protocol = LOCAL

    def info(self, path: str) -> FileInfo:
        return _local_info(path, os.stat(path))

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        # A stack: folders may be nested deeper than Python recurses.
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
        if ("_textspot", "folder") in entries and os.path.exists(f"{prefix}_textspot/table.json"):
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

        def read() -> bytes:
            size = os.fstat(descriptor).st_size
            return _pread(descriptor, start, size if stop is None else min(stop, size))

        try:
            return steady(path, read, lambda: _local_info(path, os.fstat(descriptor)))
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
            data = _pread(descriptor, 0, size)
            if _local_info(path, os.fstat(descriptor)) != info or len(data) != size:
                raise SourceChangedError(path)
            return data, info
        finally:
            os.close(descriptor)

    def open(self, path: str) -> IO[bytes]:
        return os.fdopen(_open_regular(path), "rb")


class RemoteVolume(Volume):
    """Whatever fsspec has a driver for."""

    def __init__(self, protocol: str, fs: Any) -> None:
        self.protocol = protocol
        self._fs = fs

    def check_connection(self) -> None:
        check_connection(self._fs)

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
        if stop is not None and stop <= start:
            return b""
        if stop is not None and self._in_one_act(stop - start):
            return self._read(path, start, stop)
        return steady(path, lambda: self._read(path, start, stop), lambda: self.stamp(path))

    def _in_one_act(self, size: int) -> bool:
        """Whether the driver fetches so many bytes at once, so that they are of one state."""
        at_once = _ONE_REQUEST_BYTES if self.protocol in _OBJECT_STORES else _ONE_PACKET_BYTES
        return size <= at_once

    def _read(self, path: str, start: int, stop: int | None) -> bytes:
        if start == 0 and stop is None:
            return bytes(self._fs.cat_file(path))
        try:
            return bytes(self._fs.cat_file(path, start=start, end=stop))
        except OSError:
            # Stores differ in how they answer a range behind the end.
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
        if not self._in_one_act(info.size) and self.info(path) != info:
            raise SourceChangedError(path)
        return data, info

    def _read_bounded(self, path: str, max_bytes: int, grow: Grow) -> bytes | None:
        """Read a file of unknown size, which may never end."""
        with self._fs.open(path, "rb") as file:
            whole, left = io.BytesIO(), max_bytes
            while part := file.read(min(2**20, left + 1)):
                left -= len(part)
                if left < 0:
                    return None
                grow(len(part))
                whole.write(part)
        return whole.getvalue()

    def open(self, path: str) -> IO[bytes]:
        if is_memory(self._fs):
            return io.BytesIO(self.read(path))
        file: IO[bytes] = self._fs.open(path, "rb", block_size=4 * 2**20)
        return file

    def _info(self, path: str, found: Mapping[str, Any]) -> FileInfo:
        size = found.get("size")
        return FileInfo(path, None if size is None else int(size), content_tag(found))


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
    data = os.pread(descriptor, min(stop - start, _MAX_AT_ONCE), start)
    if len(data) == stop - start:
        return data
    whole = io.BytesIO(data)  # a call may give less, of some network mounts much less
    at = whole.seek(0, io.SEEK_END)
    while at < stop - start:
        part = os.pread(descriptor, min(stop - start - at, _MAX_AT_ONCE), start + at)
        if not part:
            break
        at += whole.write(part)
    return whole.getvalue()
