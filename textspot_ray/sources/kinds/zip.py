"""Zip archives by ranges: a streamed central directory, and members inflated under a limit.

The standard library's ``zipfile`` holds an object for every member (some hundred bytes each, for
millions of members) and believes the sizes that the directory claims. Compression methods are
those that it reads by itself: stored, deflate, bzip2 and LZMA.
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from textspot_ray.records import ErrorKind, Item, Skipped
from textspot_ray.sources.kinds.base import (
    HEAD_BYTES,
    MAX_DECODER_BYTES,
    Archive,
    ArchiveKind,
    ContainerError,
    Member,
    MemberError,
    Ranged,
    ReadRange,
    changed,
)

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
# The longest comment, as the format has it; and how far behind the end record other bytes may go.
_TAILS = (4096, _END.size + 0xFFFF, 1 << 20)
_MAX_END_RECORDS = 100  # that are looked at: each costs requests, and a file may be full of them
_BLOCK = 1 << 20
_SNIFF_SLACK = 4096
_CHUNK = 1 << 20
_EXTRA_BYTES = 1024  # of a member's local extra field, whose size only the local header has
_FOUR_GIB = 1 << 32
_ENCRYPTED, _HAS_DESCRIPTOR = 0x1, 0x8
_UNIX = 3
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_METHODS = {
    1: "shrink",
    6: "implode",
    9: "deflate64",
    93: "Zstandard",
    95: "xz",
    96: "JPEG (WinZip)",
    97: "WavPack",
    98: "PPMd",
    99: "AES encryption",
}


class ZipKind(ArchiveKind):
    """Zip, zip64, and zip behind other bytes (self-extracting programs)."""

    label = "zip"
    suffixes = ("zip", "cbz")

    def recognises(self, head: bytes) -> bool:
        return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK", b"PK00PK\x03\x04"))

    def members(self, archive: Archive) -> Iterator[Item | Skipped]:
        size = archive.file.info().size
        if size is None:
            raise ContainerError("its server does not tell its size: download it first")
        for member in list_zip(archive.file.read, size):
            if member.error is None and member.skip is None and archive.wants_head(member.name):
                member = replace(member, head=_head(archive.file.read, member))
            yield archive.item(member)


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the central directory is, and how its numbers are to be taken.

    Attributes:
        start, length: Of the directory, in bytes.
        count: Entries as the end record counts them.
        shift: What every offset is to be moved by, for bytes in front of the archive.
        wraps: Whether offsets are modulo 4 GiB, as macOS writes large archives.
    """

    start: int
    length: int
    count: int
    shift: int
    wraps: bool


def list_zip(read_range: ReadRange, size: int) -> Iterator[Member]:
    """Members in the order of the central directory, streamed.

    How many there are is decided by the directory's length: the count is of 16 bits, and several
    writers (macOS among them) let it overflow.

    Args:
        read_range: ``(start, stop) -> bytes`` of the file.
        size: Bytes of the file.

    Raises:
        ContainerError: No directory, or it is damaged behind the members given so far.
    """
    directory = _directory(read_range, size)
    at, end = directory.start, directory.start + directory.length
    buffer, begin = b"", at
    number, last = 0, 0
    while at < end:
        if at + _CENTRAL.size > begin + len(buffer):
            buffer, begin = read_range(at, min(end, at + _BLOCK)), at
        head = buffer[at - begin : at - begin + _CENTRAL.size]
        if len(head) < _CENTRAL.size or head[:4] != b"PK\x01\x02":
            if head[:4] == b"PK\x05\x05" or (head[:4] == b"PK\x06\x06" and number):
                break  # a digital signature, or a zip64 record counted in
            raise ContainerError(f"directory damaged at entry {number + 1}, byte {at}")
        fields = _CENTRAL.unpack(head)
        total = _CENTRAL.size + fields[12] + fields[13] + fields[14]
        if at + total > begin + len(buffer):
            buffer, begin = read_range(at, min(end, at + max(total, _BLOCK))), at
        entry = buffer[at - begin : at - begin + total]
        if len(entry) < total:
            raise ContainerError(f"directory ends in entry {number + 1}")
        member = _member(fields, entry, directory, size)
        if directory.wraps and member.error is None:
            member = _unwrapped(read_range, member, size, last)
        last = max(last, member.offset or 0)
        yield member
        number += 1
        at += total
    if number < directory.count:
        raise ContainerError(
            f"the directory holds {number} entries, but should hold {directory.count}"
        )


def _unwrapped(read_range: ReadRange, member: Member, size: int, last: int) -> Member:
    """The member at its place behind the one before, its offset being known modulo 4 GiB."""
    offset = (member.offset or 0) % _FOUR_GIB + last // _FOUR_GIB * _FOUR_GIB
    if offset < last:
        offset += _FOUR_GIB
    while offset + _LOCAL.size < size:
        if read_range(offset, offset + 4) == b"PK\x03\x04":
            return replace(member, offset=offset)
        offset += _FOUR_GIB
    return replace(member, error=_broken("no local header where the directory has one"))


def data_start(data: bytes) -> int:
    """Offset of a member's data behind its local header; 0 if ``data`` is too short to tell.

    Raises:
        MemberError: There is no such header at this place (the archive changed).
    """
    if len(data) < _LOCAL.size:
        return 0
    fields = _LOCAL.unpack(data[: _LOCAL.size])
    if fields[0] != b"PK\x03\x04":
        raise changed("no zip member begins where the plan has one")
    return int(_LOCAL.size + fields[9] + fields[10])


def inflate(header: bytes, data: bytes | memoryview, tag: str | None, max_bytes: int) -> bytes:
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
        raise MemberError(ErrorKind.UNSUPPORTED, "encrypted zip member: decrypt the archive first")
    # Without a descriptor behind the data, CRC and sizes stand in the header, too.
    if tag is not None and not flags & _HAS_DESCRIPTOR and tag[4:12] != f"{fields[6]:08x}":
        raise changed("the zip member's checksum is not the plan's")
    if method == _STORED:
        content = bytes(data)  # no copy of what is bytes
    else:
        claimed = content_bytes(tag)
        limit = max_bytes if claimed is None else min(max_bytes, claimed)
        content = _bounded(method, data, limit)
        if len(content) > limit:
            what = "than image.max_bytes allows" if limit == max_bytes else "than its header says"
            raise MemberError(ErrorKind.TOO_LARGE, f"zip member larger {what} ({limit} bytes)")
    if tag is not None and zip_tag(zlib.crc32(content), len(content)) != tag:
        raise MemberError(ErrorKind.CORRUPT, "the zip member's checksum is wrong")
    return content


def content_bytes(tag: str | None) -> int | None:
    """Bytes of a member's content as its archive claims, from its content tag."""
    if tag is None or not tag.startswith("zip:"):
        return None
    return int(tag.rpartition("-")[2])


def zip_tag(crc: int, size: int) -> str:
    """Content tag of a member: CRC-32 and size of its content."""
    return f"zip:{crc:08x}-{size}"


def _head(read_range: ReadRange, member: Member) -> bytes:
    """The first bytes of a member's content; empty if they cannot be read."""
    offset, size = member.offset or 0, member.size or 0
    if not size:
        return b""
    stop = offset + _LOCAL.size + len(member.name) + _SNIFF_SLACK
    header = read_range(offset, stop)
    try:
        start = data_start(header)
        data = header[start : start + size]
        _, _, flags, method = _LOCAL.unpack(header[: _LOCAL.size])[:4]
        if flags & _ENCRYPTED:
            return b""
        if method == _STORED:
            return data[:HEAD_BYTES]
        skip = 9 if method == _LZMA else 0
        return _decompressor(method, data).decompress(data[skip:], HEAD_BYTES)[:HEAD_BYTES]
    except (MemberError, struct.error, *_DAMAGE):
        return b""


def _directory(read_range: ReadRange, size: int) -> _Directory:
    """The central directory, found from the end of the file.

    Raises:
        ContainerError: There is none, or it does not fit the file.
    """
    problem = "no end-of-directory record: cut off, one part of several, or no zip archive"
    tries = 0
    for length in _TAILS:
        start = max(0, size - length)
        tail = read_range(start, size)
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0 and tries < _MAX_END_RECORDS:
            if at + _END.size <= len(tail):
                tries += 1
                try:
                    return _directory_at(read_range, tail[at : at + _END.size], start + at)
                except ContainerError as exc:
                    problem = str(exc)
            at = tail.rfind(b"PK\x05\x06", 0, at)
        if not start:
            break
    raise ContainerError(problem)


def _directory_at(read_range: ReadRange, record: bytes, end: int) -> _Directory:
    _, disk, _, _, count, length, offset, _ = _END.unpack(record)
    # The zip64 record counts even where the classic one has room: several writers fill in both.
    found = _directory64(read_range, end)
    is_exact = found is not None
    if found is not None:
        count, length, offset, disk, end = found
    if 0 < disk < 0xFFFF:
        raise ContainerError(
            f"part {disk + 1} of a split zip: join the parts first, for example: "
            "zip -s 0 SPLIT.zip --out WHOLE.zip"
        )
    if not length and not count:
        return _Directory(end, 0, 0, 0, False)
    # Bytes in front of the archive (self-extracting programs) shift every offset; bytes between
    # the directory and its end record do not.
    for start in dict.fromkeys((end - length, offset)):
        if start < 0 or start + length > end:
            continue
        if read_range(start, start + 4) != b"PK\x01\x02":
            continue
        shift = start - offset
        if shift < 0:
            continue
        wraps = False
        if shift and shift % _FOUR_GIB == 0 and not is_exact:
            first = read_range(start, start + _CENTRAL.size)
            place = _CENTRAL.unpack(first)[18] if len(first) == _CENTRAL.size else 0
            wraps = read_range(place, place + 4) == b"PK\x03\x04"
        return _Directory(start, length, count, 0 if wraps else shift, wraps)
    raise ContainerError("directory does not fit the file: cut off or damaged")


def _directory64(read_range: ReadRange, end: int) -> tuple[int, int, int, int, int] | None:
    """Entries, length, offset, disk and end of the directory by its zip64 record, if it has one."""
    locator = read_range(max(0, end - _END64_LOCATOR.size), end)
    if len(locator) < _END64_LOCATOR.size or locator[:4] != b"PK\x06\x07":
        return None
    told = _END64_LOCATOR.unpack(locator)[2]
    # Mostly right in front of its locator, where offsets count from wherever the archive begins;
    # a record with an extensible part is longer, and stands where the locator says.
    for at in (end - _END64_LOCATOR.size - _END64.size, told):
        record = read_range(max(0, at), at + _END64.size) if at >= 0 else b""
        if len(record) < _END64.size or record[:4] != b"PK\x06\x06":
            continue
        fields = _END64.unpack(record)
        if at + 12 + fields[1] <= end - _END64_LOCATOR.size:
            return int(fields[7]), int(fields[8]), int(fields[9]), int(fields[4]), at
    return None


def _member(fields: tuple[int, ...], entry: bytes, directory: _Directory, total: int) -> Member:
    crc, packed, content, offset = fields[9], fields[10], fields[11], fields[18]
    stop = _CENTRAL.size + fields[12]
    name = entry[_CENTRAL.size : stop]
    problem = None
    if 0xFFFFFFFF in (packed, content, offset) and not directory.wraps:
        found = _sizes64(entry[stop : stop + fields[13]], content, packed, offset)
        if found is None:
            problem = "the directory's entry lacks its zip64 sizes"
        else:
            content, packed, offset = found
    offset += directory.shift
    if problem is None and offset + _LOCAL.size + packed > total:
        problem = "lies behind the end of the file"
    skip = None
    if name.endswith((b"/", b"\\")):
        skip = "directory"
    elif fields[2] == _UNIX:
        mode = fields[17] >> 16
        if stat.S_ISLNK(mode):
            skip = "symbolic link in a zip"
        elif stat.S_ISDIR(mode):
            skip = "directory"
    return Member(
        name,
        offset,
        packed if problem is None else 0,
        zip_tag(crc, content),
        skip,
        error=None if problem is None else _broken(problem),
    )


def _broken(problem: str) -> MemberError:
    return MemberError(ErrorKind.BROKEN_ARCHIVE, problem)


def _sizes64(extra: bytes, content: int, packed: int, offset: int) -> tuple[int, int, int] | None:
    """Sizes from the zip64 extra field (APPNOTE 4.5.3): only those that are 0xFFFFFFFF."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        body = extra[at + 4 : at + 4 + length]
        if kind == 1:
            values = [content, packed, offset]
            wanted = [i for i, v in enumerate(values) if v == 0xFFFFFFFF]
            if len(body) < 8 * len(wanted):
                return None
            for place, i in enumerate(wanted):
                (values[i],) = struct.unpack("<Q", body[8 * place : 8 * place + 8])
            return values[0], values[1], values[2]
        at += 4 + length
    return None


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes | memoryview, max_length: int, /) -> bytes: ...


_DAMAGE = (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError)


def _decompressor(method: int, data: bytes | memoryview) -> _Decompressor:
    if method == _DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS)
    if method == _BZIP2:
        return bz2.BZ2Decompressor()
    if method == _LZMA:
        # APPNOTE 5.8.8: version (2 bytes), size of properties (2, always 5), properties.
        if len(data) < 9 or data[2:4] != b"\x05\0":
            raise MemberError(ErrorKind.CORRUPT, "damaged LZMA data in a zip member")
        packed, (dict_size,) = data[4], struct.unpack("<L", data[5:9])
        if packed >= 9 * 5 * 5:
            raise MemberError(ErrorKind.CORRUPT, "impossible LZMA properties in a zip member")
        if dict_size > MAX_DECODER_BYTES:
            raise MemberError(
                ErrorKind.TOO_LARGE,
                f"its LZMA dictionary of {dict_size} bytes is more than {MAX_DECODER_BYTES}",
            )
        lc, rest = packed % 9, packed // 9
        chain = {"id": lzma.FILTER_LZMA1, "dict_size": dict_size, "lc": lc}
        chain.update(lp=rest % 5, pb=rest // 5)
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
    name = _METHODS.get(method, f"method {method}")
    raise MemberError(
        ErrorKind.UNSUPPORTED,
        f"zip member compressed by {name}: repack the archive with deflate, for example by 7z",
    )


def _bounded(method: int, data: bytes | memoryview, max_bytes: int) -> bytes:
    """At most a byte more than allowed, which tells "too large" from "just as large"."""
    whole, left = io.BytesIO(), max_bytes + 1  # decoders make a list of parts, then their sum
    packed = memoryview(data)
    try:
        decoder = _decompressor(method, data)
        for at in range(9 if method == _LZMA else 0, len(packed), _CHUNK):
            rest: bytes | memoryview = packed[at : at + _CHUNK]
            while left > 0 and not decoder.eof:
                wanted = min(left, _CHUNK)
                part = decoder.decompress(rest, wanted)
                left -= whole.write(part)
                rest = getattr(decoder, "unconsumed_tail", b"")
                if not rest and (len(part) < wanted or getattr(decoder, "needs_input", False)):
                    break
    except _DAMAGE as exc:
        raise MemberError(ErrorKind.CORRUPT, f"damaged data in a zip member: {exc}") from exc
    return whole.getvalue()


class ZipRanges(Ranged):
    """Members of a zip; an item's offset is its local header's."""

    reads_more = True

    def span(self, item: Item) -> tuple[int, int]:
        start = item.offset or 0
        names = 4 * len(item.member or "")
        return start, start + (item.size or 0) + _LOCAL.size + names + _EXTRA_BYTES

    def content(self, item: Item, part: memoryview, more: ReadRange, max_bytes: int) -> bytes:
        offset, size = item.offset or 0, item.size or 0
        header = bytes(part[: _LOCAL.size])
        start = data_start(header)
        if not start:
            header = more(offset, offset + _LOCAL.size)
            start = data_start(header)
            if not start:
                raise MemberError(
                    ErrorKind.BROKEN_ARCHIVE, "the zip ends inside this member's header"
                )
        data: bytes | memoryview = part[start : start + size]
        if len(data) < size:
            data = more(offset + start, offset + start + size)
        if len(data) < size:
            raise MemberError(ErrorKind.BROKEN_ARCHIVE, "the zip ends inside this member")
        return inflate(header, data, item.content_tag, max_bytes)

    def bytes_held(self, item: Item) -> int | None:
        if item.size is None:
            return None
        return max(item.size, content_bytes(item.content_tag) or 0)


ZipKind.access = {"zip": ZipRanges()}
