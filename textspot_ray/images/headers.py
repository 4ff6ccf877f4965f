"""Reading image headers without decoding: size, orientation, alpha, and whether the end is there.

Decoders differ in how they treat a file that was cut: some fill the rest with grey and say
nothing. So completeness is judged here, from the container's own structure. What a format's
reference library only warns of (a JPEG without its end mark) is damage, and the image is read;
what it refuses (a PNG whose data end early) is an error.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# In entropy-coded data 0xFF is followed by a stuffed 0x00 or a restart marker (T.81, B.1.1.5).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# JPEG-LS stuffs a bit, not a byte: there the byte behind 0xFF is below 0x80 (T.87, A.1).
_NEXT_LS_MARKER = re.compile(rb"\xff[\x80-\xfe]")
_FILL = re.compile(rb"\xff+")
_MAX_SCANS = 500
_MAX_STEPS = 100_000  # segments, chunks or boxes; real files have tens, or some ten thousand
_NO_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_SOF = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
ORIENTATION_TAG = 0x0112
LOSSLESS_JPEG = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})  # SOF markers
_MAX_TILES = 65_535  # JPEG 2000 numbers them with 16 bits (T.800, A.4.2)
_JPEGXL_HEAD = 64  # bytes of a code stream, more than what is read of it can take
_NO_EOI = "the end-of-image marker is missing"


class BrokenHeaderError(ValueError):
    """The header makes no sense."""


class CutError(ValueError):
    """The file ends before the image does."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a stored image says.

    Attributes:
        width, height: Pixels as stored, before any turning.
        orientation: EXIF orientation 1..8.
        channels: Colour components (JPEG), else 0.
        bits: Bits per component.
        alpha: The image may have transparent pixels.
        animated: More than one frame.
        process: JPEG's SOF marker, PNG's colour type, else 0.
        adobe: JPEG with an Adobe marker (its CMYK is stored inverted).
        interlaced: PNG in seven passes, which needs the whole image in memory.
        damage: What is wrong with the container though the image can be read.
        payload: Where image data start and stop in the file; (0, 0) if that was not looked for.
        open_end: JPEG 2000 whose last tile part does not say how long it is.
        skipped: Where broken chunks of a PNG start and stop that its image does not need.
        sampling: JPEG's factors of each component, horizontal x 16 + vertical.
        colour_transform: JPEG 2000 that was turned from RGB, and is back, by its own transform.
    """

    width: int
    height: int
    orientation: int = 1
    channels: int = 0
    bits: int = 8
    alpha: bool = False
    animated: bool = False
    process: int = 0
    adobe: bool = False
    interlaced: bool = False
    damage: str | None = None
    payload: tuple[int, int] = (0, 0)
    open_end: bool = False
    colour_transform: bool = False
    sampling: tuple[int, ...] = ()
    skipped: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def jpeg_header(data: bytes, check: Callable[[int, int], None]) -> Header:
    """Walk a JPEG's markers from SOI to EOI; bytes behind EOI do not matter.

    The first EXIF block that has an orientation counts, as exiftool, Pillow, OpenCV and libvips
    have it: some writers add a second block, or go on in one when 64 KiB are full.

    Args:
        data: The file.
        check: Called with width and height as soon as they are known, before anything else can
            be found wrong; may raise.

    Raises:
        CutError: The file ends before any image data.
        BrokenHeaderError: No frame header before the scan, or an impossible one; more scans or
            segments than any encoder makes (each scan of a progressive file is a pass over all
            pixels, so that a small file could keep a decoder busy for hours).
    """
    frame: tuple[int, int, int, int, int] | None = None
    orientation, adobe, scans = 0, False, 0
    first_scan, damage = 0, None
    sampling: tuple[int, ...] = ()
    at, end = 2, len(data)
    for _ in range(_MAX_STEPS):
        if at + 2 > end:
            damage = _NO_EOI
            break
        if data[at] != 0xFF:
            # Some cameras leave bytes between segments; decoders skip to the next marker.
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                damage = _NO_EOI
                break
            at = found.start()
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            fill = _FILL.match(data, at)
            at = fill.end() - 1 if fill else at + 1
            continue
        at += 2
        if marker in _NO_LENGTH:
            continue
        if marker == 0xD9:
            if not scans:
                raise BrokenHeaderError("no image data before the end-of-image marker")
            break
        if at + 2 > end:
            damage = _NO_EOI
            break
        length = data[at] << 8 | data[at + 1]
        body = data[at + 2 : at + length]
        if length < 2 and not scans:
            raise BrokenHeaderError(f"marker segment 0x{marker:02x} of impossible length")
        if at + length > end or length < 2:
            damage = _NO_EOI
            break
        if (marker in _SOF or marker == 0xF7) and not scans:
            if len(body) < 6:
                raise BrokenHeaderError("frame header too short")
            frame = (marker, body[0], *struct.unpack(">HHB", body[1:6]))
            sampling = tuple(body[7 : 6 + 3 * body[5] : 3])
            check(frame[3], frame[2])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0") and not (scans or orientation):
            orientation = exif_orientation(body[6:], default=0)
        elif marker == 0xEE and body.startswith(b"Adobe"):
            adobe = True
        at += length
        if marker == 0xDA:
            if frame is None:
                raise BrokenHeaderError("image data before the frame header")
            first_scan = first_scan or at
            scans += 1
            if scans > _MAX_SCANS:
                raise BrokenHeaderError(f"more than {_MAX_SCANS} scans")
            found = (_NEXT_LS_MARKER if frame[0] == 0xF7 else _NEXT_MARKER).search(data, at)
            if found is None:
                damage = _NO_EOI
                at = end
                break
            at = found.start()
    else:
        raise BrokenHeaderError(f"more than {_MAX_STEPS} segments")
    if frame is None or not scans or first_scan >= end:
        raise CutError("the file ends before its image data")
    process, bits, height, width, channels = frame
    return Header(
        width,
        height,
        orientation or 1,
        channels,
        bits,
        process=process,
        adobe=adobe,
        damage=damage,
        payload=(first_scan, min(at, end)),
        sampling=sampling,
    )


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height from IHDR.

    Raises:
        CutError, BrokenHeaderError: It is not there, or not as it must be.
    """
    if len(data) < 33:
        raise CutError("the file ends inside its header")
    if data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise BrokenHeaderError("the first chunk is not IHDR")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def png_header(data: bytes) -> Header:
    """Walk a PNG's chunks from IHDR to IEND and check their sums.

    Chunks that the image does not need and whose sum is wrong are left out, as libpng has it.

    Raises:
        CutError: The file ends inside a chunk that the image needs.
        BrokenHeaderError: A critical chunk's CRC is wrong, or there are no image data.
    """
    width, height = png_size(data)
    bits, colour = data[24], data[25]
    orientation, alpha, animated, first_data = 1, colour in (4, 6), False, 0
    at, last_data, damage = 8, 0, None
    skipped: list[tuple[int, int]] = []
    for _ in range(10 * _MAX_STEPS):  # image data may come in chunks of a few bytes
        if at + 8 > len(data):
            if not first_data:
                raise CutError("the file ends before its image data")
            damage = "the IEND chunk is missing"
            break
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        stop = at + 12 + length
        name = kind.decode("latin-1")
        critical = not kind[0] & 0x20
        if stop > len(data):
            if kind == b"IDAT" or not first_data:
                raise CutError(f"the file ends inside a {name!a} chunk")
            damage = f"the file ends inside a {name!a} chunk behind the image data"
            break
        (stored,) = struct.unpack(">I", data[stop - 4 : stop])
        if kind != b"IEND" and zlib.crc32(memoryview(data)[at + 4 : stop - 4]) != stored:
            if last_data and critical and kind != b"IDAT":
                damage = f"broken {name!a} chunk behind the image data"
                break
            wrong = f"checksum of a {name!a} chunk is wrong"
            if critical:
                raise BrokenHeaderError(wrong)
            damage = damage or wrong  # what libpng skips with a warning
            skipped.append((at, stop))
            at = stop
            continue
        if kind == b"IDAT":
            first_data = first_data or at + 8
            last_data = stop - 4
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"acTL":
            animated = True
        elif kind == b"eXIf":
            orientation = exif_orientation(data[at + 8 : stop - 4])
        elif kind == b"IEND":
            break
        at = stop
    else:
        raise BrokenHeaderError("endless chunks")
    if not first_data:
        raise BrokenHeaderError("no IDAT chunk")
    return Header(
        width,
        height,
        orientation,
        0,
        bits,
        alpha,
        animated,
        colour,
        interlaced=bool(data[28]),
        damage=damage,
        payload=(first_data, last_data),
        skipped=tuple(skipped),
    )


def webp_header(data: bytes) -> Header:
    """Walk a WebP's RIFF chunks.

    Raises:
        CutError: The file is shorter than its RIFF size.
        BrokenHeaderError: No image chunk, or not as it must be.
    """
    if len(data) < 30:
        raise CutError("the file ends inside its header")
    (size,) = struct.unpack("<I", data[4:8])
    end = size + 8
    if end > len(data):
        raise CutError(f"the file has {len(data)} of {end} bytes")
    width = height = 0
    orientation, alpha, animated = 1, False, False
    at, payload = 12, (0, 0)
    for _ in range(_MAX_STEPS):
        if at + 8 > end:
            break
        kind, length = struct.unpack("<4sI", data[at : at + 8])
        if kind in (b"VP8 ", b"VP8L", b"ANMF") and payload == (0, 0):
            payload = (at + 8, min(at + 8 + length, end))
        body = data[at + 8 : at + 8 + min(length, 32)]
        if kind == b"VP8X" and len(body) >= 10:
            alpha, animated = bool(body[0] & 0x10), bool(body[0] & 0x02)
            width = 1 + int.from_bytes(body[4:7], "little")
            height = 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8 " and not width and body[3:6] == b"\x9d\x01\x2a":
            width, height = (v & 0x3FFF for v in struct.unpack("<HH", body[6:10]))
        elif kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
            packed = int.from_bytes(body[1:5], "little")
            alpha = alpha or bool(packed >> 28 & 1)
            if not width:
                width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
            orientation = exif_orientation(exif.removeprefix(b"Exif\0\0"))
        at += 8 + length + (length & 1)
    if not width or not height:
        raise BrokenHeaderError("no image chunk")
    return Header(width, height, orientation, alpha=alpha, animated=animated, payload=payload)


def jpeg2000_header(data: bytes) -> Header:
    """Size, depth and completeness of a JPEG 2000 code stream (T.800, A.4 and A.5).

    Raises:
        CutError: The file ends inside the header or inside a tile part.
        BrokenHeaderError: There is no code stream, or it is not as it must be.
    """
    at, end = _code_stream(data)
    start = at
    if data[at : at + 4] != b"\xff\x4f\xff\x51" or at + 42 > end:
        raise CutError("the file ends before its code stream")
    right, bottom, left, top = struct.unpack(">IIII", data[at + 8 : at + 24])
    (channels,) = struct.unpack(">H", data[at + 40 : at + 42])
    if not 1 <= channels <= 16_384 or at + 42 + 3 * channels > end:
        raise BrokenHeaderError(f"{channels} components")
    wide, high, tile_left, tile_top = struct.unpack(">IIII", data[at + 24 : at + 40])
    if not wide or not high or tile_left > left or tile_top > top or right <= left or bottom <= top:
        raise BrokenHeaderError("tiles or an image of no size")
    if -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high) > _MAX_TILES:
        raise BrokenHeaderError(f"more than {_MAX_TILES} tiles")
    depths = data[at + 42 : at + 42 + 3 * channels : 3]
    at += 2
    damage, open_end, transform = None, False, False
    for _ in range(10 * _MAX_STEPS):
        if at + 2 > end:
            damage = "the end-of-codestream marker is missing"
            break
        marker = data[at] << 8 | data[at + 1]
        if marker == 0xFFD9:
            break
        if at + 4 > end:
            raise CutError("the file ends inside its code stream")
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        if marker == 0xFF52 and at + 9 <= end:  # COD (A.6.1)
            transform = data[at + 8] != 0
        if marker == 0xFF90:  # SOT: Isot, Psot = bytes of the tile part from here
            if at + 12 > end:
                raise CutError("the file ends inside its code stream")
            (part,) = struct.unpack(">I", data[at + 6 : at + 10])
            if part == 0:  # the last tile part runs to EOC, which cannot stand inside its data
                found = data.find(b"\xff\xd9", at + 12, end)
                if found < 0:
                    damage = "the end-of-codestream marker is missing"
                else:
                    end = found + 2
                open_end = True
                break
            if part < 12:
                raise BrokenHeaderError("tile part of impossible length")
            at += part
            if at > end:
                raise CutError("the file ends inside a tile part")
        elif marker < 0xFF00 or length < 2:
            # zeroed or overwritten behind a whole tile part
            damage = "the end-of-codestream marker is missing"
            break
        else:
            at += 2 + length
    return Header(
        right - left,
        bottom - top,
        channels=channels,
        bits=max((d & 0x7F) + 1 for d in depths),
        process=sum(bool(d & 0x80) for d in depths),
        damage=damage,
        payload=(start, end),
        open_end=open_end,
        colour_transform=transform,
    )


def _code_stream(data: bytes) -> tuple[int, int]:
    """Where the code stream starts and stops: a raw one, or the jp2c box of a JP2."""
    if data.startswith(b"\xff\x4f"):
        return 0, len(data)
    for kind, start, stop in _boxes(data):
        if kind == b"jp2c":  # cut files claim more than they have
            return start, min(stop, len(data))
    raise CutError("the file ends before its code stream")


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type of each box, and where its contents start and stop (T.800, I.4; JPEG XL has the same).

    Raises:
        BrokenHeaderError: A box is shorter than its own header, or there is no end of them.
    """
    at = 0
    for _ in range(_MAX_STEPS):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack(">Q", data[at + 8 : at + 16])
            start = at + 16
        stop = at + length if length else len(data)
        if stop < start:
            raise BrokenHeaderError(f"box {kind.decode('latin-1')!a} of impossible length")
        yield kind, start, stop
        at = stop
    raise BrokenHeaderError(f"more than {_MAX_STEPS} boxes")


class _Bits:
    """Least significant bit first, as JPEG XL packs its headers (ISO 18181-1, 4.2)."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise CutError("the file ends inside its header")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def u32(self, *choices: tuple[int, int]) -> int:
        """A number of one of four lengths: each choice's offset and bits."""
        offset, bits = choices[self.take(2)]
        return offset + self.take(bits)

    def image_size(self, *, preview: bool = False) -> tuple[int, int]:
        """Width and height of a SizeHeader or a PreviewHeader."""
        in_eights = self.take(1)

        def side() -> int:
            if in_eights:
                if preview:
                    return 8 * self.u32((16, 0), (32, 0), (1, 5), (33, 9))
                return 8 * (1 + self.take(5))
            if preview:
                return self.u32((1, 6), (65, 8), (321, 10), (1345, 12))
            return self.u32((1, 9), (1, 13), (1, 18), (1, 30))

        height = side()
        ratio = self.take(3)
        if ratio:
            up, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
            return height * up // down, height
        return side(), height


def jpegxl_header(data: bytes) -> Header:
    """Size, and whether it is animated, from the start of a code stream or of its container.

    Raises:
        CutError, BrokenHeaderError: It is not there.
    """
    if data.startswith(b"\0\0\0\x0cJXL "):
        data = _jpegxl_start(data)
    if not data.startswith(b"\xff\x0a"):
        raise BrokenHeaderError("no JPEG XL code stream")
    bits = _Bits(data[2:_JPEGXL_HEAD])
    width, height = bits.image_size()
    animated = False
    if not bits.take(1) and bits.take(1):  # not all as by default, and extra fields
        bits.take(3)  # orientation
        if bits.take(1):
            bits.image_size()  # intrinsic
        if bits.take(1):
            bits.image_size(preview=True)
        animated = bool(bits.take(1))
    return Header(width, height, animated=animated)


def _jpegxl_start(data: bytes) -> bytes:
    """The first bytes of the code stream in a container, which may be cut into many boxes."""
    stream = b""
    with contextlib.suppress(BrokenHeaderError):
        for kind, start, stop in _boxes(data):
            if kind == b"jxlc":
                return data[start : min(stop, start + _JPEGXL_HEAD)]
            if kind == b"jxlp":  # with a number of four bytes
                stream += data[start + 4 : min(stop, start + 4 + _JPEGXL_HEAD)]
            if len(stream) >= _JPEGXL_HEAD:
                break
    if not stream:
        raise CutError("the file ends before its code stream")
    return stream


def jpegxr_size(data: bytes) -> tuple[int, int]:
    """Width and height as the code stream has them (T.832, 8.3), by which jxrlib goes.

    Tags 0xBC80 and 0xBC81 of the directory (A.7) say so, too, but nothing holds them to it.

    Raises:
        CutError, BrokenHeaderError: They are not there.
    """
    if len(data) < 8:
        raise CutError("the file ends inside its header")
    at = int.from_bytes(data[4:8], "little")
    if at + 2 > len(data):
        raise CutError("the file ends before its directory")
    sizes = []
    for number in range(int.from_bytes(data[at : at + 2], "little")):
        entry = data[at + 2 + 12 * number : at + 14 + 12 * number]
        if len(entry) < 12:
            break
        tag, kind, _, value = struct.unpack("<HHII", entry)
        if tag in (0xBCC0, 0xBCC2):  # where the image is, and its opacity if that is apart
            sizes.append(_jpegxr_stream_size(data, value & {3: 0xFFFF}.get(kind, 0xFFFFFFFF)))
    if not sizes:
        raise BrokenHeaderError("no image in its directory")
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _jpegxr_stream_size(data: bytes, at: int) -> tuple[int, int]:
    head = data[at : at + 20]
    if len(head) < 20:
        raise CutError("the file ends before its code stream")
    if not head.startswith(b"WMPHOTO\0"):
        raise BrokenHeaderError("no code stream where its directory says")
    short = head[10] & 0x80
    width, height = struct.unpack(">HH" if short else ">II", head[12 : 16 if short else 20])
    return width + 1, height + 1


def exif_orientation(exif: bytes, default: int = 1) -> int:
    """Orientation (1..8) in an EXIF block, which is a small TIFF; the default if it has none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return default
    (at,) = struct.unpack(order + "I", exif[4:8])
    if at + 2 > len(exif):
        return default
    (count,) = struct.unpack(order + "H", exif[at : at + 2])
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack(order + "HHIH", exif[entry : entry + 10])
        if tag == ORIENTATION_TAG:
            if kind == 4:  # LONG instead of SHORT, as some writers have it
                (value,) = struct.unpack(order + "I", exif[entry + 8 : entry + 12])
            return value if 1 <= value <= 8 else default
    return default
