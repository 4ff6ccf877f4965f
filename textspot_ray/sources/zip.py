"""Zip archives by ranges: a streamed central directory, and members inflated under a limit.

The standard library's ``zipfile`` holds an object for every member (some hundred bytes each, for
millions of members) and believes the sizes that the directory claims.
"""

from __future__ import annotations

import bz2
import lzma
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard

ReadRange = Callable[[int, int], bytes]

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
LOCAL_HEADER_BYTES = _LOCAL.size
_MAX_COMMENT = 1 << 16
_BLOCK = 1 << 20
_MAX_WINDOW = 1 << 27  # memory that a decompressor may be made to take
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = 3
_STORED, _DEFLATED, _BZIP2, _LZMA, _ZSTD = 0, 8, 12, 14, 93
_METHODS = {
    1: "shrink",
    6: "implode",
    9: "deflate64",
    95: "xz",
    96: "JPEG (WinZip)",
    97: "WavPack",
    98: "PPMd",
    99: "AES encryption",
}


class BrokenZipError(ValueError):
    """The archive's directory cannot be read, or not further."""


class MemberError(ValueError):
    """One member cannot be read; ``kind`` is an `ErrorKind` value's name."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member as the central directory has it.

    Attributes:
        name: As stored.
        offset: Of its local header.
        size: Bytes of its compressed data.
        tag: CRC and size of the content.
        passed: Why it is no regular file, or None.
        encrypted: Whether a password is needed.
    """

    name: bytes
    offset: int
    size: int
    tag: str
    passed: str | None
    encrypted: bool


def list_zip(read_range: ReadRange, size: int) -> Iterator[ZipMember]:
    """Members in the order of the central directory, streamed.

    Raises:
        BrokenZipError: No directory, or it is damaged behind the members given so far.
    """
    start, length, count, shift = _directory(read_range, size)
    at, end = start, start + length
    buffer, begin = b"", at
    for number in range(count):
        if at + _CENTRAL.size > begin + len(buffer):
            buffer, begin = read_range(at, min(end, at + _BLOCK)), at
        head = buffer[at - begin : at - begin + _CENTRAL.size]
        if len(head) < _CENTRAL.size or head[:4] != b"PK\x01\x02":
            raise BrokenZipError(f"directory damaged at entry {number + 1} of {count}")
        fields = _CENTRAL.unpack(head)
        total = _CENTRAL.size + fields[12] + fields[13] + fields[14]
        if at + total > begin + len(buffer):
            buffer, begin = read_range(at, min(end, at + max(total, _BLOCK))), at
        entry = buffer[at - begin : at - begin + total]
        if len(entry) < total:
            raise BrokenZipError(f"directory ends in entry {number + 1} of {count}")
        yield _member(fields, entry, shift, size, number)
        at += total


def member_bytes(data: bytes) -> int:
    """Offset of a member's data behind its local header; 0 if ``data`` is too short to tell.

    Raises:
        MemberError: There is no such header at this place (the archive changed).
    """
    if len(data) < _LOCAL.size:
        return 0
    fields = _LOCAL.unpack(data[: _LOCAL.size])
    if fields[0] != b"PK\x03\x04":
        raise MemberError("CHANGED", "no member begins where the plan has one")
    stop = _LOCAL.size + fields[9]
    return int(stop + fields[10])


def inflate(header: bytes, data: bytes, tag: str | None, max_bytes: int) -> bytes:
    """Decompress a member.

    Args:
        header: Its local header.
        data: Its compressed data.
        tag: As `list_zip` gave it; the content is checked against it.
        max_bytes: Stop when the content grows larger than this, or than the directory claims.

    Raises:
        MemberError: Encrypted, unknown method, larger than allowed, damaged, or changed.
    """
    fields = _LOCAL.unpack(header[: _LOCAL.size])
    flags, method = fields[2], fields[3]
    if flags & _ENCRYPTED:
        raise MemberError("UNSUPPORTED", "encrypted zip member: decrypt the archive first")
    # Bit 3: the header leaves CRC and sizes to a record behind the data.
    if tag is not None and not flags & 0x8 and tag[4:12] != f"{fields[6]:08x}":
        raise MemberError("CHANGED", "the zip member's checksum is not the plan's")
    if method == _STORED:
        content = data
    else:
        claimed = content_bytes(tag)
        limit = max_bytes if claimed is None else min(max_bytes, claimed)
        content = _bounded(_decompressor(method, data), method, data, limit)
        if len(content) > limit:
            what = "than image.max_bytes allows" if limit == max_bytes else "than its header says"
            raise MemberError("TOO_LARGE", f"zip member larger {what} ({limit} bytes)")
    if tag is not None and zip_tag(zlib.crc32(content), len(content)) != tag:
        raise MemberError("CORRUPT", "the zip member's checksum is wrong")
    return content


def head_of(header: bytes, data: bytes, count: int) -> bytes:
    """The first bytes of a member's content from the first bytes of its data; empty if unclear."""
    fields = _LOCAL.unpack(header[: _LOCAL.size])
    if fields[2] & _ENCRYPTED:
        return b""
    try:
        if fields[3] == _STORED:
            return data[:count]
        start = 9 if fields[3] == _LZMA else 0
        return _decompressor(fields[3], data).decompress(data[start:], count)[:count]
    except (MemberError, *_DAMAGE):
        return b""


def content_bytes(tag: str | None) -> int | None:
    """Bytes of a member's content as its archive claims, from its content tag."""
    if tag is None or not tag.startswith("zip:"):
        return None
    return int(tag.rpartition("-")[2])


def zip_tag(crc: int, size: int) -> str:
    """Content tag of a member: CRC-32 and size of its content."""
    return f"zip:{crc:08x}-{size}"


def _directory(read_range: ReadRange, size: int) -> tuple[int, int, int, int]:
    """Start, bytes and entries of the central directory, and how far the archive is shifted."""
    tail_start = max(0, size - _END.size - _MAX_COMMENT)
    # Nearly all archives have no comment: 4 KiB first, the longest comment only if need be.
    for start in (max(tail_start, size - 4096), tail_start):
        tail = read_range(start, size)
        at = tail.rfind(b"PK\x05\x06")
        if at >= 0 and at + _END.size <= len(tail):
            break
    else:
        raise BrokenZipError("no end-of-directory record: cut off, or not a zip archive")
    end = start + at
    _, _, _, _, count, length, offset, _ = _END.unpack(tail[at : at + _END.size])
    if 0xFFFF in (count,) or 0xFFFFFFFF in (length, offset):
        found = _directory64(read_range, end)
        if found is not None:
            count, length, offset, end = found
    start = end - length
    # Data in front of the archive (self-extracting programs) shift every offset.
    shift = start - offset
    if start < 0 or shift < 0 or count * _CENTRAL.size > length:
        raise BrokenZipError("directory does not fit the file: cut off or damaged")
    return start, length, count, shift


def _directory64(read_range: ReadRange, end: int) -> tuple[int, int, int, int] | None:
    locator = read_range(max(0, end - _END64_LOCATOR.size), end)
    if len(locator) < _END64_LOCATOR.size or locator[:4] != b"PK\x06\x07":
        return None
    # The record stands right in front of its locator; its own place is where offsets count from.
    at = end - _END64_LOCATOR.size - _END64.size
    record = read_range(max(0, at), at + _END64.size)
    if len(record) < _END64.size or record[:4] != b"PK\x06\x06":
        raise BrokenZipError("zip64 directory record is damaged")
    fields = _END64.unpack(record)
    return int(fields[7]), int(fields[8]), int(fields[9]), at


def _member(
    fields: tuple[int, ...], entry: bytes, shift: int, total: int, number: int
) -> ZipMember:
    flags, crc = fields[5], fields[9]
    packed, content, offset = fields[10], fields[11], fields[18]
    stop = _CENTRAL.size + fields[12]
    name = entry[_CENTRAL.size : stop]
    if 0xFFFFFFFF in (packed, content, offset):
        content, packed, offset = _sizes64(
            entry[stop : stop + fields[13]], content, packed, offset, number
        )
    offset += shift
    if offset + _LOCAL.size + packed > total:
        raise BrokenZipError(f"entry {number + 1} lies behind the end of the file")
    passed = None
    if name.endswith((b"/", b"\\")):
        passed = "directory"
    elif fields[2] == _UNIX:
        mode = fields[17] >> 16
        if stat.S_ISLNK(mode):
            passed = "symbolic link in a zip"
        elif stat.S_ISDIR(mode):
            passed = "directory"
    return ZipMember(name, offset, packed, zip_tag(crc, content), passed, bool(flags & _ENCRYPTED))


def _sizes64(
    extra: bytes, content: int, packed: int, offset: int, number: int
) -> tuple[int, int, int]:
    """Sizes from the zip64 extra field (APPNOTE 4.5.3): only those that are 0xFFFFFFFF."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        body = extra[at + 4 : at + 4 + length]
        if kind == 1:
            values = [content, packed, offset]
            wanted = [i for i, v in enumerate(values) if v == 0xFFFFFFFF]
            if len(body) < 8 * len(wanted):
                break
            for place, i in enumerate(wanted):
                (values[i],) = struct.unpack("<Q", body[8 * place : 8 * place + 8])
            return values[0], values[1], values[2]
        at += 4 + length
    raise BrokenZipError(f"entry {number + 1} lacks its zip64 sizes")


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_DAMAGE = (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError)


def _decompressor(method: int, data: bytes) -> _Decompressor:
    if method == _DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS)
    if method == _BZIP2:
        return bz2.BZ2Decompressor()
    if method == _LZMA:
        # APPNOTE 5.8.8: version (2 bytes), size of properties (2, always 5), properties.
        if len(data) < 9 or data[2:4] != b"\x05\0":
            raise MemberError("CORRUPT", "damaged LZMA data in a zip member")
        packed, (dict_size,) = data[4], struct.unpack("<L", data[5:9])
        if dict_size > _MAX_WINDOW or packed >= 9 * 5 * 5:
            raise MemberError("CORRUPT", "impossible LZMA properties in a zip member")
        lc, rest = packed % 9, packed // 9
        chain = {"id": lzma.FILTER_LZMA1, "dict_size": dict_size, "lc": lc}
        chain.update(lp=rest % 5, pb=rest // 5)
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
    if method == _ZSTD:
        return _Zstd()
    name = _METHODS.get(method, f"method {method}")
    raise MemberError("UNSUPPORTED", f"zip member compressed by {name}: repack the archive")


class _Zstd:
    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
            data, read_across_frames=True
        )
        parts: list[bytes] = []
        left = max_length
        while left > 0 and (part := reader.read(min(left, _BLOCK))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _bounded(decompressor: _Decompressor, method: int, data: bytes, max_bytes: int) -> bytes:
    start = 9 if method == _LZMA else 0
    try:
        # One byte more than allowed tells "too large" from "just as large".
        return decompressor.decompress(data[start:], max_bytes + 1)
    except _DAMAGE as exc:
        raise MemberError("CORRUPT", f"damaged data in a zip member: {exc}") from exc
