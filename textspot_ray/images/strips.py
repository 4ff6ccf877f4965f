"""Whether compressed strips and tiles of a TIFF are whole, where libtiff does not look.

libtiff stops a decoder as soon as a strip is full. What stands behind, the checksum of a Deflate
stream or the end of a Zstandard frame, is never looked at, and a PackBits strip that holds more
than fits is cut in silence. So each is decoded once more, to its end. LZW has neither a checksum
nor a length, and raw data have nothing at all: wrong values there look like right ones.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import Any, Final

import zstandard

from textspot_ray.images.tiff import DEFLATES, LZMA, PACKBITS, ZSTD, TiffLayout, TiffPage

CHECKED: Final = DEFLATES | {PACKBITS, ZSTD}  # TIFF tag 259
_CHUNK: Final = 1 << 20  # bytes decoded at a time
_ZSTD_STEP: Final = 1 << 10  # compressed; 4 bytes stand for a block of 128 KiB at most
_DAMAGE: Final = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def stream_damage(data: bytes, page: TiffPage, layout: TiffLayout) -> str | None:
    """What is wrong with the strips or tiles of a page that libtiff has read.

    Args:
        data: The file.
        page: One page of it.
        layout: How that is stored; its compression is one of `CHECKED`.

    Returns:
        One line; None if nothing is wrong.
    """
    wrong = 0
    for number, (offset, count) in enumerate(layout.segments):
        if count:
            packed = data[offset : offset + count]
            if layout.low_bit_first:  # libtiff turns the bits of packed data, too
                packed = packed.translate(_REVERSED)
            wrong += not _is_whole(packed, layout, _sizes(number, page, layout))
    if not wrong:
        return None
    what = "wrong checksum or end" if layout.compression != PACKBITS else "wrong length"
    return f"{wrong} of {len(layout.segments)} strips or tiles with a {what}"


def is_bomb(packed: bytes, compression: int, most_bytes: int) -> bool:
    """Whether a strip or tile unpacks to more than it may; for decoders that know no limit.

    Args:
        packed: As stored, bits in the usual order.
        compression: TIFF tag 259; what is not unpacked here is no bomb.
        most_bytes: That a strip or tile of this page may be.
    """
    try:
        return any(size > most_bytes for size in _unpacked(packed, compression))
    except _DAMAGE:  # the decoder reports it
        return False


def _is_whole(packed: bytes, layout: TiffLayout, sizes: frozenset[int]) -> bool:
    try:
        size = max(_unpacked(packed, layout.compression), default=0)
    except _DAMAGE:
        return False
    return layout.compression != PACKBITS or not sizes or size in sizes


def _unpacked(packed: bytes, compression: int) -> Iterator[int]:
    """How many bytes have been unpacked so far, piece by piece; they are not kept.

    Raises:
        EOFError: The data end before their own end mark.
        zlib.error, lzma.LZMAError, zstandard.ZstdError: They are damaged.
    """
    size = 0
    if compression == PACKBITS:
        yield _packbits_size(packed)
        return
    decoder: Any
    if compression in DEFLATES:
        decoder, rest = zlib.decompressobj(), packed
        while rest and not decoder.eof:
            size += len(decoder.decompress(rest, _CHUNK))
            rest = decoder.unconsumed_tail
            yield size
        if not decoder.eof:
            decoder.flush()
    elif compression == LZMA:
        decoder, rest = lzma.LZMADecompressor(), packed
        while not decoder.eof and (rest or not decoder.needs_input):
            size += len(decoder.decompress(rest, _CHUNK))
            rest = b""
            yield size
    elif compression == ZSTD:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        for at in range(0, len(packed), _ZSTD_STEP):
            size += len(decoder.decompress(packed[at : at + _ZSTD_STEP]))
            yield size
            if decoder.eof:
                break
    else:
        return
    if not decoder.eof:
        raise EOFError


def _packbits_size(packed: bytes) -> int:
    """Bytes that PackBits data stand for (TIFF 6.0, section 9)."""
    size, at, end = 0, 0, len(packed)
    while at < end:
        head = packed[at]
        if head < 128:
            size += min(head + 1, end - at - 1)
            at += head + 2
        elif head == 128:
            at += 1
        else:
            size += 257 - head
            at += 2
    return size


def _sizes(number: int, page: TiffPage, layout: TiffLayout) -> frozenset[int]:
    """How many bytes a strip or tile may have; none where that is not simple to say.

    The last strip has the rows that are left, or, of some writers, as many as the others.
    """
    if layout.photometric == 6 or len(set(layout.bits)) > 1:
        return frozenset()
    samples = 1 if layout.planar else layout.samples
    row = -(-layout.segment_columns * samples * layout.bits[0] // 8)
    down = -(-page.height // max(layout.segment_rows, 1))
    across = -(-page.width // max(layout.segment_columns, 1))
    top = number // across % max(down, 1) * layout.segment_rows
    left = min(layout.segment_rows, page.height - top)
    return frozenset({row * layout.segment_rows, row * left})
