"""Tar archives, plain and compressed, read forward to their last byte.

The standard library's ``tarfile`` keeps every member in memory and ends in silence at a damaged
header or the first end mark. Here the reading goes on: behind end marks (archives written one
behind the other), behind a lone block of zeros, and behind damage, at the next valid header. What
is left out has a row or a counted reason that says where and how much.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from textspot_ray.records import ErrorKind, Item, Skipped
from textspot_ray.sources.kinds.base import (
    HEAD_BYTES,
    Archive,
    ArchiveKind,
    Beat,
    ContainerError,
    ItemStream,
    Member,
    MemberError,
    Ranged,
    ReadRange,
    SourceFile,
    Streamed,
    changed,
    too_large,
)
from textspot_ray.sources.kinds.compression import (
    Cursor,
    DamagedStreamError,
    RangeCursor,
    StreamCursor,
    compression_of,
    decompress,
)

BLOCK = 512
_MAX_EXTENSION = 1 << 20  # bytes of a long name or pax header; real ones are some hundred
_MAX_SPARSE_ENTRIES = 1 << 16
_MAX_DIGITS = 40  # of a number in a map
# Bytes fetched at a time while looking for headers: little where a seek costs nothing, about
# what one round trip is worth on an object store.
_LOCAL_BLOCK = 32 << 10
_REMOTE_BLOCK = 2 << 20
_KINDS = {
    tarfile.SYMTYPE: "symbolic link in a tar",
    tarfile.LNKTYPE: "hard link in a tar",
    tarfile.DIRTYPE: "directory",
    tarfile.CHRTYPE: "not a regular file",
    tarfile.BLKTYPE: "not a regular file",
    tarfile.FIFOTYPE: "not a regular file",
}
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
BEHIND_END = "bytes behind a tar's end"
ZEROS_AT_END = "zeros at a tar's end: padding, or members that were lost"
# Blocks of zeros: two end an archive, and tar, bsdtar and Python fill up a record of 20 blocks.
_MAX_PADDING = 21
_SPARSE = ":sparse:"


class TarKind(ArchiveKind):
    """Tar, plain or compressed by gzip, Zstandard, bzip2 or xz: the first bytes decide."""

    label = "tar"
    suffixes = (
        "tar", "tar.gz", "tar.zst", "tar.zstd", "tar.bz2", "tar.xz",
        "tgz", "tzst", "tbz", "tbz2", "txz", "cbt",
    )  # fmt: skip

    def recognises(self, head: bytes) -> bool:
        return compression_of(head) is not None or head[257:262] == b"ustar"

    def members(self, archive: Archive) -> Iterator[Item | Skipped]:
        file, size = archive.file, archive.file.info().size
        compression = compression_of(file.read(0, BLOCK))
        if compression is None and size is not None:
            archive.container = PLAIN
            block = _LOCAL_BLOCK if file.is_local else _REMOTE_BLOCK
            yield from self._list(archive, RangeCursor(file.read, size, block))
            return
        archive.container = STREAM
        with file.open() as opened:
            stream = opened if compression is None else decompress(opened, compression)
            cursor = StreamCursor(stream)
            yield from self._list(archive, cursor)
            try:
                cursor.drain()
            except DamagedStreamError as exc:
                raise ContainerError(f"{exc}: some of the members are damaged", exc.kind) from exc

    def _list(self, archive: Archive, cursor: Cursor) -> Iterator[Item | Skipped]:
        for found in list_tar(cursor, archive.wants_head):
            if isinstance(found, TarGap):
                span = (found.start, found.stop)
                if found.reason is None:
                    yield archive.gap(span, ZEROS_AT_END if found.is_zeros else BEHIND_END)
                else:
                    yield archive.broken(ErrorKind.BROKEN_ARCHIVE, found.reason, span)
            else:
                yield archive.item(found)


@dataclass(frozen=True, slots=True)
class TarGap:
    """Bytes that are no member; ``reason`` is None where they only follow an archive's end.

    ``is_zeros``: Nothing but zeros, and more than any tar pads its last record with.
    """

    start: int
    stop: int
    reason: str | None
    is_zeros: bool = False


@dataclass(frozen=True, slots=True)
class TarHeader:
    """What matters of a header block: name, size of the data, type flag."""

    name: bytes
    size: int
    type: bytes


@dataclass(slots=True)
class _Entry:
    """A header with all that stands before it: long names, pax records, a sparse map."""

    start: int
    block: bytes
    header: TarHeader
    pax: dict[str, bytes] = field(default_factory=dict)
    long_name: bytes | None = None
    sparse: list[tuple[int, int]] | None = None
    real_size: int = 0


class _DamageError(Exception):
    """What was read is no header; the next valid one is looked for."""


def list_tar(cursor: Cursor, wants_head: Callable[[bytes], bool]) -> Iterator[Member | TarGap]:
    """Members in order, each only once its data are known to be there in full.

    A member's tag changes when its header or place do; that of a sparse file also says where its
    headers begin and how long it is with its holes.

    Args:
        cursor: At the first byte.
        wants_head: Whether the first bytes of a member of this name are wanted.

    Raises:
        ContainerError: The archive is cut behind the members given so far.
    """
    zeros = 0  # blocks of zeros just read: one may be a slip, two are an end mark
    block: bytes | None = None
    while True:
        at = cursor.offset - (len(block) if block is not None else 0)
        try:
            block = cursor.read(BLOCK) if block is None else block
        except DamagedStreamError as exc:
            if not zeros:
                raise
            if not exc.is_trailing:
                raise ContainerError(f"{exc}: some of the members are damaged", exc.kind) from exc
            yield TarGap(at, at, None)
            return
        if not block and not zeros:
            raise ContainerError(f"ends without an end mark at byte {at}")
        if not block.strip(b"\0"):
            if len(block) < BLOCK:
                if zeros:
                    if zeros > _MAX_PADDING:
                        # A last member whose header and data were zeroed looks just so.
                        yield TarGap(at - (zeros - 2) * BLOCK, at, None, is_zeros=True)
                    return
                raise ContainerError(f"ends in the middle of a header at byte {at + len(block)}")
            zeros, block = zeros + 1, None
            continue
        try:
            entry = _read_entry(cursor, block, at)
        except _DamageError as exc:
            if len(block) < BLOCK and not zeros:
                where = at + len(block)
                raise ContainerError(f"ends in the middle of a header at byte {where}") from exc
            block, stop = _resync(cursor)
            if block is not None:
                left = f"{exc}; the {stop - at} bytes up to the next header are left out"
                yield TarGap(at, stop, left)
                zeros = 0
                continue
            if at == 0:
                raise ContainerError(f"no tar header in its {stop} bytes") from exc
            left = f"{exc}; nor in the {stop - at} bytes behind it"
            yield TarGap(at, stop, None if zeros > 1 else left)
            return
        block, zeros = None, 0
        yield _member(cursor, entry, wants_head)


def _resync(cursor: Cursor) -> tuple[bytes | None, int]:
    """The next valid header and its place; None and where the last bytes end if there is none."""
    stop = cursor.offset
    while block := cursor.read(BLOCK):
        if block.strip(b"\0"):
            if read_header(block) is not None:
                return block, cursor.offset - BLOCK
            stop = cursor.offset
    return None, stop


def _read_entry(cursor: Cursor, block: bytes, start: int) -> _Entry:
    """A header and what stands before it; ``block`` is the first, at byte ``start``."""
    long_name: bytes | None = None
    pax: dict[str, bytes] = {}
    at = start
    while True:
        header = read_header(block)
        if header is None:
            raise _DamageError(f"no valid header at byte {at}")
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _extension(cursor, header.size).rstrip(b"\0")
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = text
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax = _pax_records(_extension(cursor, header.size))
        elif header.type == tarfile.XGLTYPE:
            _extension(cursor, header.size)
        else:
            entry = _Entry(start, block, header, pax, long_name)
            _sparse_of(cursor, entry)
            return entry
        at = cursor.offset
        block = cursor.read(BLOCK)
        if len(block) < BLOCK:
            raise ContainerError(f"ends in the middle of a header at byte {at + len(block)}")


def _member(cursor: Cursor, entry: _Entry, wants_head: Callable[[bytes], bool]) -> Member:
    header, pax = entry.header, entry.pax
    name = entry.long_name or pax.get("path") or header.name
    skip = _KINDS.get(header.type)
    if skip is None and header.type not in _REGULAR:
        skip = "not a regular file"
    if name.endswith(b"/"):
        skip = _KINDS[tarfile.DIRTYPE]
    name = pax.get("GNU.sparse.name", name)
    # Types that nobody knows have data, by POSIX; links, folders and devices have none.
    size = _pax_size(pax, header.size) if header.type not in _KINDS else 0
    if size < 0:
        raise ContainerError(f"a member of negative size at byte {entry.start}")
    offset, tag = cursor.offset, tar_tag(entry.block, cursor.offset)
    error: MemberError | None = None
    head, read = b"", 0
    if entry.sparse is None:
        if size and skip is None and wants_head(name):
            head = cursor.read(min(size, HEAD_BYTES))
            read = len(head)
    else:
        tag = f"{tag}{_SPARSE}{entry.start}:{entry.real_size}"
        if _is_map_in_data(pax):
            try:
                data, entry.sparse = _map_in_data(cursor, size)
            except MemberError as exc:
                data, error = cursor.offset - offset, exc
            read = data
        if error is None and skip is None and wants_head(name) and entry.sparse:
            first, length = entry.sparse[0]
            part = cursor.read(min(size - read, length, HEAD_BYTES)) if first == 0 else b""
            head, read = part, read + len(part)
    if read + cursor.skip(size - read) < size:
        shown = name.decode("utf-8", "backslashreplace")
        raise ContainerError(f"ends in the middle of member {shown!a} at byte {cursor.offset}")
    cursor.skip(-size % BLOCK)
    return Member(name, offset, size, tag, skip, head, error)


def read_header(block: bytes) -> TarHeader | None:
    """A header block, or None if its checksum or a number is wrong."""
    try:
        if len(block) != BLOCK or not _checksum_fits(block):
            return None
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and block[345]:
            name = _text(block[345:500]) + b"/" + name
        return TarHeader(name, _number(block[124:136]), block[156:157])
    except ValueError:
        return None


def _checksum_fits(block: bytes) -> bool:
    """The sum of all bytes with the checksum field as blanks; some old tars added signed bytes."""
    stored = _number(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored == total:
        return True
    return stored == total - 256 * sum(b > 127 for b in block[:148] + block[156:])


def _number(field: bytes) -> int:
    """Octal digits, or a big-endian number behind a byte 0x80 (GNU, and 0xFF for negatives)."""
    if field[0] & 0x80:
        value = int.from_bytes(field[1:], "big")
        return value - 256 ** (len(field) - 1) if field[0] == 0xFF else value
    text = _text(field).strip()
    return int(text, 8) if text else 0


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def tar_tag(block: bytes, offset: int) -> str:
    """Content tag of a member: where it is, and its header's size, time and checksum fields."""
    fields = (block[124:136], block[136:148], block[148:156])
    return ":".join(["tar", str(offset), *(_field(f) for f in fields)])


def _field(raw: bytes) -> str:
    text = raw.strip(b" \0")
    return text.decode() if text.isalnum() else raw.hex()


def _is_map_in_data(pax: dict[str, bytes]) -> bool:
    """GNU's sparse format 1.0 in pax archives, which bsdtar writes, too."""
    return pax.get("GNU.sparse.major") == b"1" and pax.get("GNU.sparse.minor") == b"0"


def _sparse_of(cursor: Cursor, entry: _Entry) -> None:
    """Fill in what headers say of a sparse file: its map (but for format 1.0) and its length.

    The formats are those of GNU tar's manual, "Storing Sparse Files": old (a type flag, map in
    the header and in blocks behind it), 0.0 and 0.1 (pax records), 1.0 (map before the data).
    """
    pax = entry.pax
    if entry.header.type == tarfile.GNUTYPE_SPARSE:
        pairs = _old_map(entry.block, 386, 4)
        extended = entry.block[482]
        while extended == 1:
            block = cursor.read(BLOCK)
            if len(block) < BLOCK:
                raise ContainerError(f"ends in the middle of a sparse map at byte {cursor.offset}")
            if len(pairs) < _MAX_SPARSE_ENTRIES:
                pairs += _old_map(block, 0, 21)
            extended = block[504]
        entry.sparse = pairs
        try:
            entry.real_size = _number(entry.block[483:495])
        except ValueError:
            raise _DamageError("damaged map of a sparse file") from None
        return
    if not any(key.startswith("GNU.sparse.") for key in pax):
        return
    try:
        entry.real_size = int(pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"")
        numbers = [int(n) for n in pax.get("GNU.sparse.map", b"").split(b",") if n]
    except ValueError:
        raise _DamageError("damaged map of a sparse file") from None
    entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=False))


def _old_map(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    pairs = []
    for i in range(count):
        offset, size = block[at + 24 * i :][:12], block[at + 24 * i + 12 :][:12]
        if not offset.strip(b"\0 ") and not size.strip(b"\0 "):
            break
        try:
            pairs.append((_number(offset), _number(size)))
        except ValueError:
            raise _DamageError("damaged map of a sparse file") from None
    return pairs


def _map_in_data(cursor: Cursor, size: int) -> tuple[int, list[tuple[int, int]]]:
    """Bytes of the map before a sparse file's data (a multiple of 512), and the map.

    Raises:
        MemberError: It is damaged, or too large.
    """
    text, used, count = bytearray(), 0, 0
    left = 1  # lines still to come; the first says how many pieces there are
    while left > 0:
        block = cursor.read(min(BLOCK, size - used))
        used, left = used + len(block), left - block.count(b"\n")
        text += block
        if used == len(block):
            first = text.partition(b"\n")[0]
            count = int(first) if len(first) <= _MAX_DIGITS and first.isdigit() else -1
            if count > _MAX_SPARSE_ENTRIES:
                raise MemberError(ErrorKind.BROKEN_ARCHIVE, f"a sparse file of {count} pieces")
            left += 2 * count
        if not block or count < 0 or len(text) > (2 * count + 1) * (_MAX_DIGITS + 1) + BLOCK:
            raise MemberError(ErrorKind.BROKEN_ARCHIVE, "damaged map of a sparse file")
    lines = text.split(b"\n")[1 : 2 * count + 1]
    if not all(line.isdigit() and len(line) <= _MAX_DIGITS for line in lines):
        raise MemberError(ErrorKind.BROKEN_ARCHIVE, "damaged map of a sparse file")
    return used, list(zip(map(int, lines[::2]), map(int, lines[1::2]), strict=True))


def _extension(cursor: Cursor, size: int) -> bytes:
    if not 0 <= size <= _MAX_EXTENSION:
        raise _DamageError(f"extended header of {size} bytes at byte {cursor.offset}")
    data = cursor.read(size)
    if len(data) < size:
        raise ContainerError(f"ends in the middle of an extended header at byte {cursor.offset}")
    cursor.skip(-size % BLOCK)
    return data


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Records of POSIX.1-2001, section "pax Header Block": ``length key=value newline``."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        digits, _, _ = data[at : at + 20].partition(b" ")
        if not digits.isdigit():
            raise _DamageError("damaged extended header")
        length = int(digits)
        record = data[at + len(digits) + 1 : at + length]
        key, sep, value = record.partition(b"=")
        if not sep or length <= len(digits) + 1 or not value.endswith(b"\n"):
            raise _DamageError("damaged extended header")
        records[key.decode("utf-8", "replace")] = value[:-1]
        at += length
    return records


def _pax_size(pax: dict[str, bytes], size: int) -> int:
    text = pax.get("size")
    return int(text) if text is not None and text.isdigit() and len(text) < 20 else size


# ---------------------------------------------------------------- reading


def read_member(cursor: Cursor, item: Item, max_bytes: int) -> bytes:
    """A member's content; the cursor is at `first_byte` of the item.

    Args:
        cursor: At or before the member.
        item: What to read.
        max_bytes: Of the image.

    Raises:
        MemberError: Another member, or none, is there; or it is larger than allowed.
    """
    sparse = _sparse_tag(item)
    offset, size = item.offset or 0, item.size or 0
    if sparse is None:
        block = cursor.read(BLOCK)
        if len(block) < BLOCK or read_header(block) is None:
            raise changed("no tar member begins where the plan has one")
        if item.content_tag is not None and tar_tag(block, offset) != item.content_tag:
            raise changed("another tar member is where the plan has this one")
        if size > max_bytes:
            raise too_large(size, max_bytes)
        data = cursor.read(size)
        if len(data) < size:
            raise MemberError(ErrorKind.BROKEN_ARCHIVE, "the tar ends inside this member")
        return data
    return _read_sparse(cursor, item, max_bytes)


def _read_sparse(cursor: Cursor, item: Item, max_bytes: int) -> bytes:
    start = cursor.offset
    try:
        entry = _read_entry(cursor, cursor.read(BLOCK), start)
    except (_DamageError, ContainerError):
        raise changed("no tar member begins where the plan has one") from None
    tag = f"{tar_tag(entry.block, cursor.offset)}{_SPARSE}{start}:{entry.real_size}"
    if tag != item.content_tag:
        raise changed("another tar member is where the plan has this one")
    if entry.real_size > max_bytes:
        raise too_large(entry.real_size, max_bytes)
    size = item.size or 0
    pieces = entry.sparse or []
    used = 0
    if _is_map_in_data(entry.pax):
        used, pieces = _map_in_data(cursor, size)
    content = bytearray(entry.real_size)
    for at, length in pieces:
        data = cursor.read(min(length, size - used))
        used += len(data)
        if len(data) < length or at < 0 or at + length > entry.real_size:
            raise MemberError(ErrorKind.BROKEN_ARCHIVE, "a sparse file does not fit its map")
        content[at : at + length] = data
    return bytes(content)


def first_byte(item: Item) -> int:
    """Where a member's headers begin, as far as they are needed."""
    sparse = _sparse_tag(item)
    return sparse[0] if sparse is not None else (item.offset or 0) - BLOCK


def _sparse_tag(item: Item) -> tuple[int, int] | None:
    """Where a sparse member's headers begin, and its length; None for others."""
    _, mark, rest = (item.content_tag or "").partition(_SPARSE)
    start, _, real_size = rest.partition(":")
    if not mark or not start.isdigit() or not real_size.isdigit():
        return None
    return int(start), int(real_size)


def _bytes_held(item: Item) -> int | None:
    sparse = _sparse_tag(item)
    return item.size if sparse is None else max(item.size or 0, sparse[1])


class TarRanges(Ranged):
    """Members of a plain tar."""

    reads_more = True

    def span(self, item: Item) -> tuple[int, int]:
        return first_byte(item), (item.offset or 0) + (item.size or 0)

    def content(self, item: Item, part: memoryview, more: ReadRange, max_bytes: int) -> bytes:
        first, stop = self.span(item)

        def read_range(start: int, end: int) -> bytes:
            return bytes(part[start - first : end - first])

        is_here = len(part) >= stop - first
        cursor = RangeCursor(read_range if is_here else more, stop, BLOCK)
        cursor.skip(first)
        return read_member(cursor, item, max_bytes)

    def bytes_held(self, item: Item) -> int | None:
        return _bytes_held(item)


class TarStream(Streamed):
    """Members of a compressed tar (or one whose size is unknown), in one pass."""

    is_ordered = True

    def open(self, file: IO[bytes], source: SourceFile, item: Item, beat: Beat) -> ItemStream:
        compression = compression_of(source.read(0, 16))
        stream = decompress(file, compression) if compression else file
        return _TarItems(StreamCursor(stream, beat), source.max_bytes)

    def bytes_held(self, item: Item) -> int | None:
        return _bytes_held(item)


class _TarItems(ItemStream):
    def __init__(self, cursor: StreamCursor, max_bytes: int) -> None:
        self._cursor = cursor
        self._max_bytes = max_bytes

    def is_past(self, item: Item) -> bool:
        return self._cursor.offset > first_byte(item)

    def read(self, item: Item) -> bytes:
        try:
            self._cursor.skip(first_byte(item) - self._cursor.offset)
            return read_member(self._cursor, item, self._max_bytes)
        except DamagedStreamError as exc:
            raise ContainerError(f"compressed data damaged: {exc}", exc.kind) from exc


PLAIN, STREAM = "tar", "tar_stream"
TarKind.access = {PLAIN: TarRanges(), STREAM: TarStream()}
