"""PNGs: colour types, depths, interlacing, transparency, Apple's, and ends that are missing."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, __version__

from jobs.compat.judge import Made, by_tool, version
from jobs.compat.pictures import Pixels, alpha, grey, on_ground, words

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and sum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(
    values: NDArray[Any],
    bits: int,
    colour: int,
    *,
    interlaced: bool = False,
    extra: bytes = b"",
    end: bytes | None = None,
) -> bytes:
    """Any PNG, after the standard (W3C PNG 3): filter 0, one IDAT.

    Args:
        values: H x W or H x W x samples, each below 2 to the bits.
        bits: 1, 2, 4, 8 or 16.
        colour: Colour type 0, 2, 3, 4 or 6.
        interlaced: Adam7.
        extra: Chunks between IHDR and IDAT.
        end: Instead of IEND.
    """
    height, width = values.shape[:2]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = bytearray()
    for left, top, across, down in passes:
        part = values[top::down, left::across]
        if part.size:
            for row in part.reshape(part.shape[0], -1):
                raw += b"\0" + _pack(row, bits)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(bytes(raw)))
    return SIGNATURE + body + (chunk(b"IEND", b"") if end is None else end)


def _pack(row: NDArray[Any], bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    if bits == 8:
        return row.astype(np.uint8).tobytes()
    places = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(places.ravel()).tobytes()


def _scaled(values: Pixels, bits: int) -> NDArray[np.uint32]:
    return np.rint(values.astype(np.float64) * ((1 << bits) - 1) / 255).astype(np.uint32)


def _shown(values: NDArray[np.uint32], bits: int) -> Pixels:
    shown: Pixels = np.rint(values.astype(np.float64) * 255 / ((1 << bits) - 1)).astype(np.uint8)
    return shown


def kinds(folder: Path) -> Iterator[Made]:
    """All of them."""
    picture = words()
    level, mask = grey(picture), alpha(picture)
    rgb = {0: np.dstack([level] * 3), 2: picture}

    def made(kind: str, name: str, data: bytes, truth: Pixels, **more: Any) -> Made:
        return Made(f"PNG {kind}", name, data, truth, ending="png", **more)

    for interlaced in (False, True):
        how = "-interlaced" if interlaced else ""
        for bits in (1, 2, 4, 8, 16):
            values = _scaled(level, bits)
            shown = np.dstack([_shown(values, bits)] * 3)
            data = write_png(values, bits, 0, interlaced=interlaced)
            yield made(f"grey {bits}-bit", f"grey{bits}{how}", data, shown)
        for bits in (8, 16):
            both = np.dstack([_scaled(picture, bits), _scaled(mask, bits)])
            two = both[..., [1, 3]]
            yield made(
                f"RGB {bits}-bit",
                f"rgb{bits}{how}",
                write_png(both[..., :3], bits, 2, interlaced=interlaced),
                picture,
            )
            yield made(
                f"RGBA {bits}-bit",
                f"rgba{bits}{how}",
                write_png(both, bits, 6, interlaced=interlaced),
                on_ground(picture, mask),
            )
            yield made(
                f"grey and alpha {bits}-bit",
                f"la{bits}{how}",
                write_png(two, bits, 4, interlaced=interlaced),
                on_ground(rgb[0], mask),
            )
    for bits in (1, 2, 4, 8):
        count = 1 << bits
        index = (level.astype(np.uint16) * count // 256).astype(np.uint8)
        colours = np.random.default_rng(bits).integers(0, 256, (count, 3), dtype=np.uint8)
        palette = chunk(b"PLTE", colours.tobytes())
        yield made(
            f"palette {bits}-bit", f"palette{bits}", write_png(index, bits, 3, extra=palette),
            colours[index],
        )  # fmt: skip
        # dark, so that transparent pixels are laid on white
        dark = colours // 2
        clear = chunk(b"PLTE", dark.tobytes()) + chunk(b"tRNS", b"\0")
        yield made(
            f"palette {bits}-bit, tRNS",
            f"palette{bits}-trns",
            write_png(index, bits, 3, extra=clear),
            np.where((index == 0)[..., None], 255, dark[index]).astype(np.uint8),
        )
    for bits in (10, 11, 12):
        for name, colour, source in (("grey", 0, level), ("rgb", 2, picture)):
            yield made(
                f"{bits} bits in 16",
                f"{name}{bits}in16",
                write_png(_scaled(source, bits), 16, colour),
                rgb[colour],
            )
        deep = np.dstack([_scaled(picture, bits), _scaled(mask, 16)])
        yield made(
            f"{bits} bits in 16", f"rgba{bits}in16", write_png(deep, 16, 6),
            on_ground(picture, mask),
        )  # fmt: skip
    whole = write_png(picture, 8, 2)
    yield made("without IEND", "no-iend", write_png(picture, 8, 2, end=b""), picture, damaged=True)
    yield made("IEND cut", "iend-cut", whole[:-5], picture, damaged=True)
    yield made("IEND zeroed", "iend-zeroed", whole[:-12] + bytes(12), picture, damaged=True)
    yield made("text chunks behind the image", "text-behind",
               whole[:-12] + chunk(b"tEXt", b"a\0b") + whole[-12:], picture)  # fmt: skip
    light = np.dstack([np.full_like(picture, 255), 255 - level])
    yield made(
        "white text on a transparent ground", "white-on-clear", write_png(light, 8, 6),
        np.dstack([255 - level] * 3),
    )  # fmt: skip
    yield made("Apple CgBI", "cgbi", _apple(np.dstack([picture, mask])), on_ground(picture, mask))
    yield made("Apple CgBI", "cgbi-opaque", _apple(np.dstack([picture, mask | 255])), picture)
    pillow = f"Pillow {__version__}"
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        image = Image.fromarray(picture)
        image = (
            Image.fromarray(level.astype(np.uint16) * 257)
            if mode == "I;16"
            else (image.convert(mode))
        )
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        truth = rgb[0] if mode == "I;16" else np.asarray(image.convert("RGB"))
        yield made(f"Pillow {mode}", f"pillow-{mode.replace(';', '')}", buffer.getvalue(), truth,
                   maker=pillow)  # fmt: skip
    source = folder / "source.ppm"
    Image.fromarray(picture).save(source)
    target = folder / "out.png"
    for bits in ("8", "16"):
        for interlace in ("none", "PNG"):
            data = by_tool(
                "convert-im6",
                [
                    str(source),
                    "-depth",
                    bits,
                    "-interlace",
                    interlace,
                    f"PNG{int(bits) * 3}:{target}",
                ],
                target,
            )
            if data:
                yield made(f"RGB {bits}-bit", f"im-{bits}-{interlace}", data, picture,
                           maker=f"ImageMagick {version('convert-im6')}")  # fmt: skip
    data = by_tool("vips", ["copy", str(source), f"{target}[palette]"], target)
    if data:
        yield made("palette 8-bit", "vips-palette", data, picture, lossy=True,
                   maker=f"vips {version('vips')}")  # fmt: skip


def _apple(rgba: NDArray[np.uint8]) -> bytes:
    """As Xcode's pngcrush writes it: CgBI first, BGRA premultiplied, deflate without a header."""
    height, width = rgba.shape[:2]
    weight = rgba[..., 3:].astype(np.uint16)
    colours = (rgba[..., 2::-1].astype(np.uint16) * weight // 255).astype(np.uint8)
    rows = np.dstack([colours, rgba[..., 3]]).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(raw) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return (
        SIGNATURE
        + chunk(b"CgBI", b"\x50\0\x20\x02")
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )
