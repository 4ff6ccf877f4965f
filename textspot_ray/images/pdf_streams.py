"""Compressed images anywhere in a PDF that PDFium would unpack whole.

PDFium's interface names the images that a page shows by itself, and not those of soft masks,
patterns, glyphs of Type 3 fonts, annotations and deeply nested forms. So the file's bytes are
searched for the headers of such images: plain, or behind one Flate filter. Other filters before
the image's own hide them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

# SOF2, 6, 10 and 14 (T.81, B.2.2): of progressive JPEG all coefficients are held at once
_PROGRESSIVE: Final = re.compile(
    rb"\xff[\xc2\xc6\xca\xce]\0[\x0b\x0e\x11\x14][\x08\x0c](....)([\x01-\x04])", re.DOTALL
)
_JPEG2000: Final = re.compile(rb"\xff\x4f\xff\x51.{4}(.{16}).{16}(..)", re.DOTALL)  # SIZ, A.5.1
_DEFLATED: Final = re.compile(rb"stream\r?\n(?=[\x08\x18\x28\x38\x48\x58\x68\x78])")
_HEADS: Final = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
_HEAD_BYTES: Final = 256 << 10  # profiles and other segments may stand before the size
_FIRST_BYTES: Final = 4 << 10
JPEG_BYTES: Final = 2.0  # a sample, of coefficients
JPEG2000_BYTES: Final = 4.0


Size = tuple[int, int]


def large_images(data: bytes, least: float) -> dict[Size, float]:
    """Images whose unpacking takes more than so many bytes: width and height, and how many.

    Args:
        data: The PDF.
        least: Bytes.
    """
    found = dict(_sizes(data, least))
    for start in _DEFLATED.finditer(data):
        packed = data[start.end() : start.end() + _HEAD_BYTES]
        inflating = zlib.decompressobj()
        try:
            head = inflating.decompress(packed, _FIRST_BYTES)
            if any(mark in head for mark in _HEADS):
                head += inflating.decompress(inflating.unconsumed_tail, _HEAD_BYTES)
        except zlib.error:
            continue
        found.update(_sizes(head, least))
    return found


def _sizes(data: bytes, least: float) -> Iterator[tuple[Size, float]]:
    for match in _PROGRESSIVE.finditer(data):
        height, width = struct.unpack(">HH", match[1])
        needed = JPEG_BYTES * match[2][0] * width * height
        if needed > least:
            yield (width, height), needed
    for match in _JPEG2000.finditer(data):
        right, bottom, left, top = struct.unpack(">IIII", match[1])
        (channels,) = struct.unpack(">H", match[2])
        width, height = right - left, bottom - top
        needed = JPEG2000_BYTES * (channels + 1) * width * height
        if min(width, height) > 0 and needed > least:
            yield (width, height), needed
