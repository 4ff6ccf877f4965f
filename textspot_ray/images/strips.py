"""Whether compressed strips and tiles of a TIFF are whole, where libtiff does not look.

libtiff stops a decoder as soon as a strip is full. What stands behind, the checksum of a Deflate
stream or the end of a Zstandard frame, is never looked at, and a PackBits strip that holds more
than fits is cut in silence. So each is decoded once more, to its end. LZW has neither a checksum
nor a length, and raw data have nothing at all: wrong values there cannot be told from right ones.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from typing import Final

import zstandard

from textspot_ray.images.tiff import DEFLATES, LZMA, PACKBITS, ZSTD, TiffLayout, TiffPage

CHECKED: Final = DEFLATES | {PACKBITS, ZSTD}  # TIFF tag 259
_CHUNK: Final = 1 << 20  # bytes decoded at a time
_ZSTD_STEP: Final = 1 << 10  # compressed; 4 bytes stand for a block of 128 KiB at most


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
        compression: TIFF tag 259; anything but Deflate, PackBits and LZMA is no bomb.
        most_bytes: That a strip or tile of this page may be.
    """
    if compression == PACKBITS:
        return _packbits_size(packed) > most_bytes
    try:
        return any(size > most_bytes for size in _growing_size(packed, compression))
    except (zlib.error, lzma.LZMAError):  # the decoder reports it
        return False


def _growing_size(packed: bytes, compression: int) -> Iterator[int]:
    """How much has been unpacked so far, a chunk at a time."""
    size = 0
    if compression in DEFLATES:
        inflate, rest = zlib.decompressobj(), packed
        while rest and not inflate.eof:
            size += len(inflate.decompress(rest, _CHUNK))
            rest = inflate.unconsumed_tail
            yield size
    elif compression == LZMA:
        unpack, rest = lzma.LZMADecompressor(), packed
        while not unpack.eof and (rest or not unpack.needs_input):
            size += len(unpack.decompress(rest, _CHUNK))
            rest = b""
            yield size


def _is_whole(packed: bytes, layout: TiffLayout, sizes: frozenset[int]) -> bool:
    if layout.compression == PACKBITS:
        return not sizes or _packbits_size(packed) in sizes
    try:
        if layout.compression == ZSTD:
            return _is_whole_frame(packed)
        decoder, rest = zlib.decompressobj(), packed
        while rest and not decoder.eof:
            decoder.decompress(rest, _CHUNK)
            rest = decoder.unconsumed_tail
        if not decoder.eof:
            decoder.flush()
        return decoder.eof
    except (zlib.error, zstandard.ZstdError):
        return False


def _is_whole_frame(packed: bytes) -> bool:
    frame = zstandard.ZstdDecompressor().decompressobj()
    for at in range(0, len(packed), _ZSTD_STEP):
        frame.decompress(packed[at : at + _ZSTD_STEP])
        if frame.eof:
            return True
    return False


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
