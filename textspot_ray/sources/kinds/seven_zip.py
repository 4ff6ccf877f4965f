"""7z archives, by py7zr: an extra (``textspot-ray[7z]``).

A 7z packs many files into one compressed run, a "folder" in its own words. Such a run is
decompressed in order, as much as the next file needs at a time; nothing is written anywhere. What
py7zr cannot decompress, or what would need more memory than is given to a decompressor, is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from textspot_ray.errors import MissingExtraError, one_line
from textspot_ray.records import ErrorKind, Item, Skipped
from textspot_ray.sources.kinds.base import (
    HEAD_BYTES,
    MAX_DECODER_BYTES,
    Archive,
    ArchiveKind,
    Beat,
    ContainerError,
    ItemStream,
    Member,
    MemberError,
    SourceFile,
    Streamed,
    changed,
    too_large,
)
from textspot_ray.sources.kinds.compression import StreamCursor
from textspot_ray.storage.faults import fault_of

_MAGIC = b"7z\xbc\xaf\x27\x1c"
_CHUNK = 1 << 20
_MAX_HEADER_BYTES = 64 << 20  # of the list of members, which is held whole
# Method ids whose properties tell a dictionary or a memory (7zFormat.txt, Methods.txt).
_LZMA, _LZMA2, _PPMD, _AES = b"\x03\x01\x01", b"\x21", b"\x03\x04\x01", b"\x06\xf1\x07\x01"
_WINDOWS_DIRECTORY, _UNIX_EXTENSION = 0x10, 0x8000
_LINK = 0o120000


class SevenZipKind(ArchiveKind):
    """7z, solid or not."""

    label = "7z"
    suffixes = ("7z", "cb7")

    def recognises(self, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def members(self, archive: Archive) -> Iterator[Item | Skipped]:
        with archive.file.open() as file:
            listing = _Contents(file)
            for number, entry in enumerate(listing.files):
                name = _name(entry)
                if entry.get("emptystream"):
                    skip = "directory" if _is_folder(entry) else None
                    yield archive.item(Member(name, size=0, tag="7z:0-0", skip=skip))
                    continue
                size, head, error = int(entry["uncompressed"]), b"", None
                if archive.wants_head(name):
                    try:
                        head = listing.read(number, min(HEAD_BYTES, size))
                    except MemberError as exc:
                        error = exc
                skip = "symbolic link in a 7z" if _is_link(entry) else None
                yield archive.item(Member(name, number, size, _tag(entry), skip, head, error))


class _Contents:
    """What py7zr reads of an archive's header, and its compressed runs.

    Raises:
        ContainerError: No 7z, damaged, encrypted, or a header that is too large.
        MissingExtraError: py7zr is not installed.
    """

    def __init__(self, file: IO[bytes], beat: Beat = lambda: None) -> None:
        try:
            import py7zr
        except ImportError as exc:
            raise MissingExtraError("7z archives", "7z") from exc
        self._file = file
        self._beat = beat
        _check_header(file)
        try:
            self._archive = py7zr.SevenZipFile(file, "r")
        except py7zr.PasswordRequired as exc:
            raise ContainerError("encrypted: decrypt it first", ErrorKind.UNSUPPORTED) from exc
        except Exception as exc:
            if fault_of(exc).is_transient:
                raise
            raise ContainerError(one_line(exc, 200)) from exc
        files = getattr(self._archive, "files", None)
        self.files: list[dict[str, Any]] = list(files.files_list) if files is not None else []
        self._runs: list[Any] = []
        self._starts: list[int] = []  # byte of the file where each run begins
        self._packed: list[int] = []  # and its bytes there
        self._places: list[tuple[int, int]] = []  # run of each member, and its offset within
        self._open: tuple[int, StreamCursor] | None = None  # a run, and where it is read
        self._damage: dict[int, tuple[int, MemberError]] = {}
        streams = getattr(getattr(self._archive, "header", None), "main_streams", None)
        if streams is not None and self.files:
            self._runs = list(streams.unpackinfo.folders)
            at, first = int(self._archive.afterheader) + int(streams.packinfo.packpos), 0
            sizes = list(streams.packinfo.packsizes)
            for run in self._runs:
                count = max((c.get("numinstreams", 1) for c in run.coders), default=1)
                self._starts.append(at)
                self._packed.append(sum(sizes[first : first + count]))
                at, first = at + self._packed[-1], first + count
        numbers = {id(run): i for i, run in enumerate(self._runs)}
        used = [0] * len(self._runs)
        for entry in self.files:
            i = numbers.get(id(entry.get("folder")), -1)
            self._places.append((i, used[i] if i >= 0 else 0))
            if i >= 0:
                used[i] += int(entry["uncompressed"])

    def read(self, number: int, count: int) -> bytes:
        """The first bytes of a member's content; cheap in the order stored.

        Raises:
            MemberError: Its method is unknown, encrypted, or takes too much memory; or its run is
                damaged before its end.
        """
        run, offset = self._places[number]
        if run < 0:
            return b""
        if run in self._damage and offset + count > self._damage[run][0]:
            # Decompressing there again would end the same way.
            raise self._damage[run][1].with_traceback(None)
        if self._open is None or self._open[0] != run or self._open[1].offset > offset:
            packed = cast("IO[bytes]", _Run(self._file, self._decoder(run)))
            self._open = (run, StreamCursor(packed, self._beat))
        cursor = self._open[1]
        try:
            cursor.skip(offset - cursor.offset)
            return cursor.read(count)
        except ContainerError as exc:
            self._open = None
            error = MemberError(exc.kind, str(exc))
            self._damage[run] = (cursor.offset, error)
            raise error from exc
        except BaseException:
            self._open = None
            raise

    def _decoder(self, run: int) -> Any:
        """A decompressor at the start of a run; the file is placed there, too."""
        from py7zr.compressor import SevenZipDecompressor
        from py7zr.exceptions import UnsupportedCompressionMethodError

        folder = self._runs[run]
        _check_memory(folder.coders)
        try:
            decoder = SevenZipDecompressor(
                folder.coders, self._packed[run], folder.unpacksizes, None, None, _CHUNK
            )
        except UnsupportedCompressionMethodError as exc:
            line = " ".join(str(exc.args[-1] if exc.args else exc).split())
            raise MemberError(ErrorKind.UNSUPPORTED, f"compression in a 7z: {line}") from exc
        except Exception as exc:
            raise MemberError(ErrorKind.CORRUPT, f"damaged data in a 7z: {exc}") from exc
        self._file.seek(self._starts[run])
        return decoder


class _Run:
    """One compressed run as a file that is read forward, never beyond its last member."""

    def __init__(self, file: IO[bytes], decoder: Any) -> None:
        self._file = file
        self._decoder = decoder

    def read(self, count: int) -> bytes:
        """Some of the bytes that come next.

        Raises:
            ContainerError: The run is damaged.
        """
        for _ in range(1000):  # a decoder may take input without giving output
            at = self._file.tell()
            try:
                part = self._decoder.decompress(self._file, count)
            except Exception as exc:
                if fault_of(exc).is_transient:
                    raise
                raise ContainerError(f"damaged data in a 7z: {one_line(exc)}") from exc
            if part:
                return bytes(part)
            if self._file.tell() == at:
                break
        raise ContainerError("damaged data in a 7z: it ends too early")


class SevenZipStream(Streamed):
    """Members of a 7z in the order stored; an item's offset is its number among all entries."""

    is_ordered = True

    def open(self, file: IO[bytes], source: SourceFile, item: Item, beat: Beat) -> ItemStream:
        return _SevenZipItems(file, source, beat)


class _SevenZipItems(ItemStream):
    def __init__(self, file: IO[bytes], source: SourceFile, beat: Beat) -> None:
        self._contents = _Contents(file, beat)
        self._max_bytes = source.max_bytes

    def read(self, item: Item) -> bytes:
        if not item.size:
            return b""
        number, files = item.offset or 0, self._contents.files
        if number >= len(files) or _tag(files[number]) != item.content_tag:
            raise changed("another member is where the plan has this one")
        size = int(files[number]["uncompressed"])
        if size > self._max_bytes:
            raise too_large(size, self._max_bytes)
        data = self._contents.read(number, size)
        digest = files[number].get("digest")
        if digest is not None and zlib.crc32(data) != digest:
            raise MemberError(ErrorKind.CORRUPT, "the 7z member's checksum is wrong")
        return data


def _check_header(file: IO[bytes]) -> None:
    """Refuse a directory that would not fit into memory, before it is read."""
    file.seek(0)
    head = file.read(32)
    if len(head) < 32 or not head.startswith(_MAGIC):
        raise ContainerError("cut off, or not a 7z archive")
    (size,) = struct.unpack("<Q", head[20:28])
    if size > _MAX_HEADER_BYTES:
        raise ContainerError(
            f"its list of members takes {size} bytes, more than {_MAX_HEADER_BYTES}",
            ErrorKind.TOO_LARGE,
        )
    file.seek(0)


def _check_memory(coders: list[dict[str, Any]]) -> None:
    for coder in coders:
        method, properties = bytes(coder["method"]), bytes(coder.get("properties") or b"")
        wanted = 0
        if method == _AES:
            raise MemberError(ErrorKind.UNSUPPORTED, "encrypted 7z member: decrypt it first")
        if method in (_LZMA, _PPMD) and len(properties) >= 5:
            (wanted,) = struct.unpack("<L", properties[1:5])
        elif method == _LZMA2 and properties:
            bits = properties[0]  # as the xz format has it, section 5.3.1
            wanted = (2 | (bits & 1)) << (bits // 2 + 11) if bits < 40 else 0xFFFFFFFF
        if wanted > MAX_DECODER_BYTES:
            raise MemberError(
                ErrorKind.TOO_LARGE,
                f"its compression asks for {wanted} bytes of memory, more than "
                f"{MAX_DECODER_BYTES}: pack it anew with a smaller dictionary",
            )


def _name(entry: dict[str, Any]) -> bytes:
    return str(entry.get("filename", "")).encode("utf-8", "surrogatepass")


def _tag(entry: dict[str, Any]) -> str:
    return f"7z:{int(entry.get('digest') or 0):08x}-{int(entry.get('uncompressed') or 0)}"


def _is_folder(entry: dict[str, Any]) -> bool:
    attributes = int(entry.get("attributes") or 0)
    return bool(attributes & _WINDOWS_DIRECTORY) or not entry.get("emptyfile", False)


def _is_link(entry: dict[str, Any]) -> bool:
    attributes = int(entry.get("attributes") or 0)
    return bool(attributes & _UNIX_EXTENSION) and (attributes >> 16) & 0o170000 == _LINK


SevenZipKind.access = {"seven_zip": SevenZipStream()}
