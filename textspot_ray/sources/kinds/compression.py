"""Reading forward only: through ranges of a plain file, or through a decompressor."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, Protocol, cast

import zstandard

from textspot_ray.errors import one_line
from textspot_ray.records import ErrorKind
from textspot_ray.sources.kinds.base import MAX_DECODER_BYTES, ContainerError

_CHUNK = 1 << 20
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)
_TRAILING_GARBAGE = "Not a gzipped file"
_XZ_STEP = 64 << 10  # bytes decoded at a time: what comes before damage in a step is lost with it
_XZ_OVERHEAD = 2 << 20  # of the decoder, besides its dictionary
# What decompressors raise for damaged input; each has its own.
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError)


class DamagedStreamError(ContainerError):
    """Compressed data that cannot be read further.

    ``is_trailing``: the data are whole, but other bytes follow them.
    """

    def __init__(self, message: str, kind: ErrorKind = ErrorKind.BROKEN_ARCHIVE) -> None:
        super().__init__(message, kind)
        self.is_trailing = message.startswith(_TRAILING_GARBAGE)


class Cursor(Protocol):
    """A place in a sequence of bytes that only moves forward."""

    @property
    def offset(self) -> int:
        """Bytes before this place."""

    def read(self, count: int) -> bytes:
        """The next bytes, fewer only at the end."""

    def skip(self, count: int) -> int:
        """Move on; the number of bytes that were really there."""


def compression_of(head: bytes) -> str | None:
    """Name of the compression by magic bytes, or None."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return None


class RangeCursor:
    """Over a file of known size that is read by ranges; what is skipped is not read.

    Args:
        read_range: ``(start, stop) -> bytes``.
        size: Bytes of the file.
        block: Bytes fetched at a time. Small on a local disk; about what a store sends within one
            round trip otherwise, so that small members need no request each.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int, block: int) -> None:
        self._read_range = read_range
        self._size = size
        self._block = block
        self._at = 0
        self._start = 0
        self._buffer = b""

    @property
    def offset(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        inside = self._at - self._start
        have = len(self._buffer) - inside
        if inside < 0 or have < count:
            stop = min(self._size, self._at + max(count, self._block))
            self._buffer = self._read_range(self._at, stop) if stop > self._at else b""
            self._start, inside = self._at, 0
        data = self._buffer[inside : inside + count]
        self._at += len(data)
        return data

    def skip(self, count: int) -> int:
        moved = max(0, min(count, self._size - self._at))
        self._at += moved
        return moved


class StreamCursor:
    """Over a file-like object of a decompressor.

    Args:
        file: Where to read from.
        on_progress: Called after each chunk, to show that a long skip is no hang.
    """

    def __init__(self, file: IO[bytes], on_progress: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self._at = 0
        self._on_progress = on_progress

    @property
    def offset(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        whole = io.BytesIO()  # one copy; a list of parts and its sum would be two
        left = count
        while left > 0 and (part := self._next(min(left, _CHUNK))):
            left -= whole.write(part)
        return whole.getvalue()

    def skip(self, count: int) -> int:
        left = count
        while left > 0 and (part := self._next(min(left, _CHUNK))):
            left -= len(part)
        return count - left

    def drain(self) -> None:
        """Read to the end, where decompressors verify their checksum."""
        try:
            while self._next(_CHUNK):
                pass
        except DamagedStreamError as exc:
            if not exc.is_trailing:  # which gzip itself ignores
                raise

    def _next(self, count: int) -> bytes:
        try:
            part = self._file.read(count)
        except DAMAGE as exc:
            reason = one_line(exc)
            if "memory" in reason.lower():  # xz: "Memory usage limit exceeded", zstd: "too much"
                limit = f"{MAX_DECODER_BYTES >> 20} MiB"
                raise DamagedStreamError(
                    f"its compression asks for more than {limit} of memory: pack it anew with a "
                    "smaller dictionary or window",
                    ErrorKind.TOO_LARGE,
                ) from exc
            raise DamagedStreamError(reason) from exc
        except OSError as exc:
            if exc.errno is None and str(exc) == "Invalid data stream":  # bz2's way to say so
                raise DamagedStreamError("invalid bzip2 data") from exc
            raise
        self._at += len(part)
        self._on_progress()
        return part


def decompress(file: IO[bytes], compression: str) -> IO[bytes]:
    """A file-like object of the decompressed bytes; memory stays bounded whatever the ratio."""
    if compression == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb"))
    if compression == "bzip2":
        return cast("IO[bytes]", bz2.BZ2File(file, mode="rb"))
    if compression == "xz":
        return cast("IO[bytes]", io.BufferedReader(_XzFile(file), _XZ_STEP))
    # As much as `zstd --long` asks for; more would be memory that the archive decides on.
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_DECODER_BYTES)
    return cast("IO[bytes]", decompressor.stream_reader(file, read_across_frames=True))


class _XzFile(io.RawIOBase):
    """Streams of xz one after the other; `lzma.LZMAFile` cannot limit memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder: lzma.LZMADecompressor | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._decoder is None and not self._begin():
                return 0
            assert self._decoder is not None
            data = b""
            if self._decoder.needs_input and not self._rest:
                self._rest = self._file.read(_CHUNK)
                if not self._rest:
                    raise EOFError("compressed data ends before its end mark")
            rest, self._rest = self._rest, b""
            data = self._decoder.decompress(rest, min(len(view), _XZ_STEP))
            if self._decoder.eof:
                self._rest, self._decoder = self._decoder.unused_data, None
            if data:
                view[: len(data)] = data
                return len(data)

    def _begin(self) -> bool:
        """Whether another stream follows, behind padding of zeros."""
        self._rest = self._rest.lstrip(b"\0")
        while not self._rest:
            block = self._file.read(_CHUNK)
            if not block:
                return False
            self._rest = block.lstrip(b"\0")
        self._decoder = lzma.LZMADecompressor(
            lzma.FORMAT_XZ, memlimit=MAX_DECODER_BYTES + _XZ_OVERHEAD
        )
        return True
