"""Listing tar archives forward, member by member, without ever holding them.

The standard library's ``tarfile`` keeps every member in memory and ends in silence at a damaged
header; here damage is an exception that says where, so that what follows can be accounted for.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from textspot_ray.sources.streams import Cursor

BLOCK = 512
PEEK = 512
_MAX_EXTENSION = 1 << 20  # bytes of a long name or pax header; real ones are some hundred
_KINDS = {
    tarfile.SYMTYPE: "symbolic link in a tar",
    tarfile.LNKTYPE: "hard link in a tar",
    tarfile.DIRTYPE: "directory",
    tarfile.CHRTYPE: "not a regular file",
    tarfile.BLKTYPE: "not a regular file",
    tarfile.FIFOTYPE: "not a regular file",
    tarfile.GNUTYPE_SPARSE: "sparse file in a tar",
}
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class BrokenTarError(ValueError):
    """The tar cannot be read further; what came before is good."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of a tar.

    Attributes:
        name: As stored.
        offset: Of its data.
        size: Bytes of its data.
        tag: Changes when header or place change.
        passed: Why it is no regular file, or None.
        head: First bytes of the data, where asked for.
    """

    name: bytes
    offset: int
    size: int
    tag: str
    passed: str | None = None
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class TarHeader:
    """What matters of a header block: name, size of the data, type flag."""

    name: bytes
    size: int
    type: bytes


def list_tar(cursor: Cursor, peek: Callable[[bytes], bool]) -> Iterator[TarMember]:
    """Members in order, each only once its data are known to be there in full.

    Args:
        cursor: At the first byte.
        peek: Whether the first bytes of a member of this name are wanted.

    Raises:
        BrokenTarError: The archive is cut or damaged behind the members given so far.
    """
    long_name: bytes | None = None
    pax: dict[str, bytes] = {}
    while True:
        at = cursor.offset
        block = cursor.read(BLOCK)
        if block == bytes(BLOCK):
            return
        if len(block) < BLOCK:
            where = "in the middle of a header" if block else "without an end mark"
            raise BrokenTarError(f"ends {where} at byte {at + len(block)}")
        info = read_header(block)
        if info is None:
            raise BrokenTarError(f"no valid header at byte {at}")
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _extension(cursor, info.size).rstrip(b"\0")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = text
            continue
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax = _pax_records(_extension(cursor, info.size))
            continue
        if info.type == tarfile.XGLTYPE:
            _extension(cursor, info.size)
            continue
        name = long_name or pax.get("path") or info.name
        passed = _KINDS.get(info.type)
        if passed is None and info.type not in _REGULAR:
            passed = "not a regular file"
        if name.endswith(b"/"):
            passed = _KINDS[tarfile.DIRTYPE]
        if any(key.startswith("GNU.sparse.") for key in pax):
            passed = _KINDS[tarfile.GNUTYPE_SPARSE]
            name = pax.get("GNU.sparse.name", name)
        if info.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(cursor, block[482])
        size = _pax_size(pax, info.size)
        # Types that nobody knows have data, by POSIX; links, folders and devices have none.
        has_data = info.type not in _KINDS or info.type == tarfile.GNUTYPE_SPARSE
        yield _member(cursor, block, name, size if has_data else 0, passed, peek)
        long_name, pax = None, {}


def read_header(block: bytes) -> TarHeader | None:
    """A header block, or None if it is none (its checksum is verified)."""
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


def _member(
    cursor: Cursor,
    block: bytes,
    name: bytes,
    size: int,
    passed: str | None,
    peek: Callable[[bytes], bool],
) -> TarMember:
    offset = cursor.offset
    head = b""
    if size and passed is None and peek(name):
        head = cursor.read(min(size, PEEK))
    if len(head) + cursor.skip(size - len(head)) < size:
        shown = name.decode("utf-8", "backslashreplace")
        raise BrokenTarError(f"ends in the middle of member {shown!a} at byte {cursor.offset}")
    member = TarMember(name, offset, size, tar_tag(block, offset), passed, head)
    cursor.skip(-size % BLOCK)
    return member


def _skip_sparse_map(cursor: Cursor, extended: int) -> None:
    """Old GNU format: maps that do not fit the header go on in blocks behind it."""
    while extended == 1:
        block = cursor.read(BLOCK)
        if len(block) < BLOCK:
            raise BrokenTarError(f"ends in the middle of a sparse map at byte {cursor.offset}")
        extended = block[504]


def _extension(cursor: Cursor, size: int) -> bytes:
    if not 0 <= size <= _MAX_EXTENSION:
        raise BrokenTarError(f"extended header of {size} bytes at byte {cursor.offset}")
    data = cursor.read(size)
    if len(data) < size:
        raise BrokenTarError(f"ends in the middle of an extended header at byte {cursor.offset}")
    cursor.skip(-size % BLOCK)
    return data


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Records of POSIX.1-2001, section "pax Header Block": ``length key=value newline``."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        digits, _, _ = data[at : at + 20].partition(b" ")
        if not digits.isdigit():
            raise BrokenTarError("damaged extended header")
        length = int(digits)
        record = data[at + len(digits) + 1 : at + length]
        key, sep, value = record.partition(b"=")
        if not sep or length <= len(digits) + 1 or not value.endswith(b"\n"):
            raise BrokenTarError("damaged extended header")
        records[key.decode("utf-8", "replace")] = value[:-1]
        at += length
    return records


def _pax_size(pax: dict[str, bytes], size: int) -> int:
    text = pax.get("size")
    if text is not None:
        if not text.isdigit() or len(text) > 19:
            raise BrokenTarError("damaged extended header")
        return int(text)
    if size < 0:
        raise BrokenTarError("a member of negative size")
    return size
