"""The decoding table: which library reads which kind of image, and why that one.

The first row whose conditions hold and whose library is installed reads the image. A kind that
only a missing library reads is refused with the extra to install; a kind without a row is refused
by name. Nothing is tried and then tried again with another decoder: what a decoder gives for a
kind that it does not know is often zeros, not an error.

The rows are in ``decoders.toml``, in the order in which they are asked.
"""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

import msgspec

from textspot_ray.images.formats import Format
from textspot_ray.images.raster import RefusedError, unsupported
from textspot_ray.images.tiff import compression_name

_NAMES = {
    Format.JPEG2000: "JPEG 2000",
    Format.JPEGXL: "JPEG XL",
    Format.JPEGXR: "JPEG XR",
    Format.RAW: "camera RAW",
    Format.WEBP: "WebP",
}


@dataclass(frozen=True, slots=True)
class ImageKind:
    """What a header says of an image, as far as it decides who reads it.

    Attributes:
        format: By magic bytes.
        compression: TIFF tag 259; 0 elsewhere.
        bits: Largest number of bits per sample.
        samples: ``uint``, ``int``, ``float`` or ``complex``.
        layout: Words that hold: alpha, animated, interlaced, planar, tiled, cmyk, lossless, apple,
            stream, ycbcr, lab, palette, odd, large, plain ...
    """

    format: Format
    compression: int = 0
    bits: int = 8
    samples: str = "uint"
    layout: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """In words, for messages."""
        parts = [f"{self.bits}-bit"] if self.bits != 8 else []
        parts += [w for w in ("lossless", "CMYK") if w.lower() in self.layout]
        if self.samples != "uint":
            parts.append({"int": "signed"}.get(self.samples, self.samples))
        parts.append(_NAMES.get(self.format, str(self.format).upper()))
        text = " ".join(parts)
        if self.compression:
            name = compression_name(self.compression)
            text += f" with compression {self.compression} ({name})"
        if "planar" in self.layout:
            text += " in planes"
        return text


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table of a format.

    Attributes:
        reader: Who reads them: a key of `decode.READERS` or `tiff_reader.READERS`.
        why: The reason, with versions where another library is wrong.
        compressions: TIFF tag 259; None: all.
        bits: Smallest and largest bits per sample.
        samples: Sample types.
        needs: Words of `ImageKind.layout` that must hold.
        lacks: Words that must not.
        module: Optional library that must be installed.
        extra: The extra that installs it.
        bytes_per_pixel: Memory at the peak beside the encoded file, the result (3) included; 0
            where the reader works it out and reserves it.
        reduces: Whether it decodes at a lower scale where that is enough, in less memory.
    """

    reader: str
    why: str
    compressions: frozenset[int] | None = None
    bits: tuple[int, int] = (1, 64)
    samples: frozenset[str] = frozenset({"uint"})
    needs: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    module: str | None = None
    extra: str | None = None
    bytes_per_pixel: float = 11
    reduces: bool = False

    def fits(self, kind: ImageKind) -> bool:
        """Whether this row reads a kind of its format, given its library."""
        return (
            (self.compressions is None or kind.compression in self.compressions)
            and self.bits[0] <= kind.bits <= self.bits[1]
            and kind.samples in self.samples
            and self.needs <= kind.layout
            and not self.lacks & kind.layout
        )


def _read_table() -> dict[Format, tuple[Row, ...]]:
    text = resources.files(__package__).joinpath("decoders.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[Format, tuple[Row, ...]])


TABLE = _read_table()


@cache
def is_installed(module: str) -> bool:
    """Whether an optional library can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@lru_cache(maxsize=1024)
def _rows_for(kind: ImageKind) -> tuple[Row, ...]:
    return tuple(row for row in TABLE.get(kind.format, ()) if row.fits(kind))


def choose(kind: ImageKind, advice: str = "convert it to PNG first") -> Row:
    """The row that reads a kind.

    Args:
        kind: What the header says.
        advice: What to do where no row reads it.

    Raises:
        RefusedError: No row reads it, or its library is not installed (which is named).
    """
    missing: Row | None = None
    for row in _rows_for(kind):
        if row.module is None or is_installed(row.module):
            return row
        missing = missing or row
    if missing is None:
        raise unsupported(f"{kind}", advice)
    raise _lacking(kind, missing)


def _lacking(kind: ImageKind, row: Row) -> RefusedError:
    how = f"pip install 'textspot-ray[{row.extra}]'" if row.extra else f"install {row.module}"
    return unsupported(f"{kind} without {row.module}", how)
