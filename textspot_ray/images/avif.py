"""What the code streams of an AVIF say of their size, which its boxes may contradict.

libavif decodes what the code stream says, and shrinks or enlarges that, unasked, to what the box
``ispe`` says. Boxes are those of ISO 14496-12 (``meta``, ``iloc``) and ISO 23008-12 (``ispe``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from textspot_ray.images.headers import BrokenHeaderError

Size = tuple[int, int]

_HEAD_BYTES: Final = 4096  # of a code stream, in which its sequence header stands
_MOST_ITEMS: Final = 10_000
_SEQUENCE_HEADER: Final = 1  # of OBU types (AV1 6.2.2)


def check_avif(data: bytes) -> set[Size]:
    """Width and height of the code streams of its images.

    Raises:
        BrokenHeaderError: One is of a size that no image of the file is said to have.
    """
    said = set(_said(data))
    found = {size for start in _starts(data) if (size := _stream_size(data, start)) is not None}
    for width, height in sorted(found - said if said else set()):
        raise BrokenHeaderError(
            f"a code stream of {width} x {height} pixels, where the container says "
            + " or ".join(f"{wide} x {high}" for wide, high in sorted(said)[:4])
        )
    return found


def _said(data: bytes) -> Iterator[Size]:
    at = data.find(b"ispe")
    while 0 <= at <= len(data) - 16:
        if data[at - 4 : at] == b"\0\0\0\x14":  # a full box of two numbers
            yield struct.unpack(">II", data[at + 8 : at + 16])
        at = data.find(b"ispe", at + 4)


def _boxes(data: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box."""
    while at + 8 <= stop:
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if size == 1:
            size = int.from_bytes(data[start : start + 8], "big")
            start += 8
        end = min(stop, at + size if size else stop)
        if end < start:
            return
        yield kind, start, end
        at = end


def _starts(data: bytes) -> Iterator[int]:
    """Where the data of each item begin, of those that lie in the file itself."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind != b"meta":
            continue
        for inner, first, last in _boxes(data, start + 4, end):
            if inner == b"iloc":
                yield from _locations(data[first:last])


def _locations(box: bytes) -> Iterator[int]:
    """The first extent of each item of an item location box (ISO 14496-12, 8.11.3)."""
    at = 4

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(box):
            raise BrokenHeaderError("a list of items that is cut off")
        return int.from_bytes(box[at - size : at], "big")

    version = box[0] if box else 0
    sizes, more = take(1), take(1)
    offset_bytes, length_bytes, base_bytes = sizes >> 4, sizes & 15, more >> 4
    index_bytes = more & 15 if version in (1, 2) else 0
    for _ in range(min(take(2 if version < 2 else 4), _MOST_ITEMS)):
        take(2 if version < 2 else 4)
        in_file = not take(2) & 15 if version in (1, 2) else True
        take(2)
        base, extents = take(base_bytes), take(2)
        for number in range(extents):
            take(index_bytes)
            start = base + take(offset_bytes)
            take(length_bytes)
            if not number and in_file:
                yield start


def _stream_size(data: bytes, at: int) -> Size | None:
    """Largest frame of a code stream by its sequence header (AV1 5.5.1); None if it has none."""
    stop = min(len(data), at + _HEAD_BYTES)
    while at + 2 <= stop:
        head = data[at]
        if head & 0x81 or not head & 2:  # reserved bits, or no length: no code stream of AVIF
            return None
        at += 2 if head & 4 else 1
        size = shift = 0
        while at < stop and shift < 35:  # leb128 (4.10.5)
            size |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if not data[at - 1] & 0x80:
                break
        if head >> 3 == _SEQUENCE_HEADER:
            return _sequence_size(data[at : at + min(size, 256)])
        at += size
    return None


def _sequence_size(header: bytes) -> Size | None:
    value, left = int.from_bytes(header, "big"), 8 * len(header)

    def take(count: int) -> int:
        nonlocal left
        left -= count
        return value >> max(left, 0) & ((1 << count) - 1) if left >= 0 else 0

    take(4)  # profile, still picture
    if take(1):  # a still picture's short header
        take(5)
    else:
        delay_bits = 0
        if take(1):  # timing
            take(64)
            if take(1):
                zeros = 0
                while left > 0 and not take(1):
                    zeros += 1
                take(zeros)
            if take(1):  # decoder model
                delay_bits = take(5) + 1
                take(42)
        with_delay = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if delay_bits and take(1):
                take(2 * delay_bits + 1)
            if with_delay and take(1):
                take(4)
    wide_bits, high_bits = take(4) + 1, take(4) + 1
    width, height = take(wide_bits) + 1, take(high_bits) + 1
    return (width, height) if left >= 0 else None
