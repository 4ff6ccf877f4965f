"""The decoding table: which library reads which kind of image, and why that one.

The first row whose conditions hold and whose library is installed reads the image. A kind that
only a missing library reads is refused with the extra to install; a kind without a row is refused
by name. Nothing is tried and then tried again with another decoder: what a decoder gives for a
kind that it does not know is often zeros, not an error.

Versions in reasons are those that were tried (November 2026); ``python -m jobs.compat`` checks
the whole table against independent decoders.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

from textspot_ray.images.formats import Format
from textspot_ray.images.raster import RefusedError, unsupported
from textspot_ray.images.tiff import COMPRESSIONS


class Decoder(StrEnum):
    """Ways to read; each is one function of `decode.DECODERS`."""

    SIMPLEJPEG = "simplejpeg"
    SIMPLEJPEG_CMYK = "simplejpeg, CMYK"
    IMAGECODECS_JPEG = "imagecodecs, JPEG"
    OPENCV = "OpenCV"
    OPENCV_ALPHA = "OpenCV, unchanged"
    OPENCV_PFM = "OpenCV, PFM"
    PAM = "NumPy, PAM"
    PILLOW_JPEG = "Pillow, JPEG"
    OPENCV_JPEG2000 = "OpenCV, JPEG 2000"
    PILLOW = "Pillow"
    PILLOW_JPEG2000 = "Pillow, JPEG 2000"
    PILLOW_TIFF = "Pillow, TIFF"
    TIFFFILE = "tifffile"
    OLD_JPEG = "simplejpeg, stream in a TIFF"
    APPLE_PNG = "zlib and OpenCV, Apple's PNG"
    PILLOW_HEIF = "pillow-heif"
    IMAGECODECS_JPEGXL = "imagecodecs, JPEG XL"
    IMAGECODECS_JPEGXR = "imagecodecs, JPEG XR"
    PDFIUM = "pypdfium2"
    RAWPY = "rawpy"


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
        bits: Largest number of bits a sample.
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
            name = COMPRESSIONS.get(self.compression, "unknown")
            text += f" with compression {self.compression} ({name})"
        if "planar" in self.layout:
            text += " in planes"
        return text


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table of a format.

    Attributes:
        reader: Who reads them.
        why: The reason, with versions where another library is wrong.
        compressions: TIFF tag 259; None: all.
        bits: Smallest and largest bits a sample.
        samples: Sample types.
        needs: Words of `ImageKind.layout` that must hold.
        lacks: Words that must not.
        module: Optional library that must be installed.
        extra: The extra that installs it.
        bytes_per_pixel: Memory at the peak beside the encoded file, the result (3) included; 0
            where the reader reckons itself.
    """

    reader: Decoder
    why: str
    compressions: frozenset[int] | None = None
    bits: tuple[int, int] = (1, 64)
    samples: frozenset[str] = frozenset({"uint"})
    needs: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    module: str | None = None
    extra: str | None = None
    bytes_per_pixel: float = 11

    def fits(self, kind: ImageKind) -> bool:
        """Whether this row reads a kind of its format, given its library."""
        return (
            (self.compressions is None or kind.compression in self.compressions)
            and self.bits[0] <= kind.bits <= self.bits[1]
            and kind.samples in self.samples
            and self.needs <= kind.layout
            and not self.lacks & kind.layout
        )


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Those that libtiff inside Pillow's wheels has, and reads right with 8 bits and fewer.
_CLASSIC = frozenset({1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32809, 32909, 32946, 34925, 50000})
_NUMPY_ONLY = frozenset({1, 8, 32773, 32946, 34925})  # tifffile reads these without imagecodecs
_WITH_IMAGECODECS = frozenset(
    {1, 5, 7, 8, 32773, 32909, 32946, 33003, 33004, 33005, 33007, 34712, 34887, 34892, 34925}
    | {34926, 34927, 34933, 34934, 50000, 50001, 50002, 52546}
)
_NUMBERS = _set("uint int float")

TABLE: dict[Format, tuple[Row, ...]] = {
    Format.JPEG: (
        Row(
            Decoder.SIMPLEJPEG,
            "libjpeg-turbo with its warnings as values, at the speed of OpenCV or above; OpenCV "
            "(5.0) prints them on standard error and gives the pixels all the same",
            bits=(8, 8),
            lacks=_set("cmyk lossless odd sampling"),
            bytes_per_pixel=10,  # progressive 4:4:4 keeps 6 bytes of coefficients a pixel
        ),
        Row(
            Decoder.SIMPLEJPEG_CMYK,
            "four inks as stored, inverted only with Adobe's mark; Pillow (13.0) takes every CMYK "
            "JPEG for Adobe's",
            bits=(8, 8),
            needs=_set("cmyk"),
            lacks=_set("lossless sampling"),
            bytes_per_pixel=12,
        ),
        Row(
            Decoder.PILLOW_JPEG,
            "sampling factors such as 4:1:0, which TurboJPEG has no name for and refuses; what "
            "libjpeg warns of is lost",
            bits=(8, 8),
            needs=_set("sampling"),
            lacks=_set("lossless odd cmyk"),
        ),
        Row(
            Decoder.IMAGECODECS_JPEG,
            "12 bits, lossless JPEG and JPEG-LS: neither OpenCV nor Pillow has them",
            bits=(2, 16),
            lacks=_set("odd"),
            module="imagecodecs",
            extra="tiff",
            bytes_per_pixel=12,
        ),
    ),
    Format.PNG: (
        Row(
            Decoder.APPLE_PNG,
            "Apple's CgBI: no zlib header, BGRA, premultiplied alpha; no decoder here knows it",
            needs=_set("apple"),
            bytes_per_pixel=12,
        ),
        Row(
            Decoder.PILLOW,
            "OpenCV ignores tRNS when asked for colour, and of an animation's frames gives another",
            needs=_set("animated"),
        ),
        Row(
            Decoder.OPENCV_ALPHA,
            "faster than Pillow; keeps 16 bits, of which values of 10 to 12 bits need the lower",
            needs=_set("rgba"),
            lacks=_set("deep-and-large"),
            bytes_per_pixel=0,
        ),
        Row(
            Decoder.PILLOW,
            "palette and grey transparency; 16-bit RGBA too large for OpenCV (5.0), which holds "
            "two copies of 8 bytes a pixel where Pillow drops the lower byte as it reads",
            needs=_set("alpha"),
        ),
        Row(Decoder.OPENCV, "the fastest; exact with 1 to 16 bits", bytes_per_pixel=0),
    ),
    Format.WEBP: (
        Row(Decoder.PILLOW, "alpha and first frames; OpenCV drops alpha", needs=_set("alpha")),
        Row(Decoder.PILLOW, "alpha and first frames; OpenCV drops alpha", needs=_set("animated")),
        Row(Decoder.OPENCV, "libwebp straight to BGR", bytes_per_pixel=8),
    ),
    Format.BMP: (
        Row(
            Decoder.PILLOW,
            "bit fields, run lengths and OS/2 headers; OpenCV takes filling for alpha",
        ),
    ),
    Format.GIF: (Row(Decoder.PILLOW, "first frame on its canvas", bytes_per_pixel=9),),
    Format.PCX: (Row(Decoder.PILLOW, "the only one that has it"),),
    Format.TGA: (Row(Decoder.PILLOW, "the only one that has it"),),
    Format.PSD: (Row(Decoder.PILLOW, "the merged image that Photoshop stores beside the layers"),),
    Format.QOI: (Row(Decoder.PILLOW, "the only one that has it"),),
    Format.ICO: (Row(Decoder.PILLOW, "largest icon of the directory"),),
    Format.PNM: (
        Row(
            Decoder.PAM,
            "samples behind a few lines of text; Pillow (13.0) has no PAM, OpenCV (5.0) exchanges "
            "red and blue",
            needs=_set("pam"),
        ),
        Row(
            Decoder.OPENCV_PFM,
            "floats in colour, which Pillow (13.0) lacks",
            needs=_set("pfm"),
            bytes_per_pixel=27,
        ),
        Row(Decoder.PILLOW, "P1 to P6 with comments and any maximum"),
    ),
    Format.JPEG2000: (
        Row(
            Decoder.OPENCV_JPEG2000,
            "Pillow (11.3 to 13.0) rounds colour of more than 8 bits up to 256 = 0: white turns "
            "black and opaque transparent",
            bits=(9, 16),
            bytes_per_pixel=26,  # OpenJPEG: 4 bytes a component twice, and 16 bits of each
        ),
        Row(
            Decoder.PILLOW_JPEG2000,
            "exact with 8 bits, reads palettes and sYCC, and decodes at a lower resolution",
            bits=(1, 16),
            bytes_per_pixel=0,
        ),
    ),
    Format.TIFF: (
        Row(
            Decoder.OLD_JPEG,
            "old-style JPEG (6) whose stream is whole is an ordinary one; libtiff's wheels lack it",
            compressions=frozenset({6}),
            bits=(8, 8),
            needs=_set("stream"),
            bytes_per_pixel=10,
        ),
        Row(
            Decoder.PILLOW_TIFF,
            "libtiff, exact for all layouts of 8 bits and fewer; OpenCV (5.0) gives zeros without "
            "an error for JPEG 2000, JPEG XL, JPEG XR and PNG in TIFF",
            compressions=_CLASSIC,
            bits=(1, 8),
            lacks=_set("odd lossless planar-jpeg"),
            bytes_per_pixel=8,
        ),
        Row(
            Decoder.TIFFFILE,
            "planes of JPEG, which libtiff (4.7.2) refuses in strips and tifffile (2026.3) as a "
            "whole: each strip is a grey JPEG that simplejpeg reads",
            compressions=frozenset({7}),
            bits=(8, 8),
            needs=_set("planar-jpeg"),
            lacks=_set("odd lossless"),
            bytes_per_pixel=0,
        ),
        Row(
            Decoder.TIFFFILE,
            "more than 8 bits, signed and float samples, planes: Pillow (13.0) doubles and crops "
            "planes of 16 bits, shows MinIsWhite of 16 bits as a negative, refuses float colour",
            compressions=_NUMPY_ONLY,
            samples=_NUMBERS,
            lacks=_set("odd packed"),
            bytes_per_pixel=0,
        ),
        Row(
            Decoder.TIFFFILE,
            "codecs that only imagecodecs has, and LZW with more than 8 bits",
            compressions=_WITH_IMAGECODECS,
            samples=_NUMBERS,
            lacks=_set("odd"),
            module="imagecodecs",
            extra="tiff",
            bytes_per_pixel=0,
        ),
    ),
    Format.HEIF: (
        Row(
            Decoder.PILLOW_HEIF,
            "libheif, turned by it as the file says",
            bits=(1, 16),
            module="pillow_heif",
            extra="heif",
            bytes_per_pixel=12,
        ),
    ),
    Format.AVIF: (
        Row(Decoder.PILLOW, "libavif in Pillow since 11.3", module="PIL.AvifImagePlugin"),
    ),
    Format.JPEGXL: (
        Row(
            Decoder.IMAGECODECS_JPEGXL,
            "libjxl; neither OpenCV nor Pillow has it",
            bits=(1, 32),
            samples=_NUMBERS,
            module="imagecodecs",
            extra="jxl",
            bytes_per_pixel=0,
        ),
    ),
    Format.JPEGXR: (
        Row(
            Decoder.IMAGECODECS_JPEGXR,
            "jxrlib; neither OpenCV nor Pillow has it",
            bits=(1, 32),
            samples=_NUMBERS,
            module="imagecodecs",
            extra="tiff",
            bytes_per_pixel=0,
        ),
    ),
    Format.PDF: (
        Row(
            Decoder.PDFIUM,
            "each page drawn, a scan that fills it at the scan's own resolution",
            module="pypdfium2",
            extra="pdf",
        ),
    ),
    Format.RAW: (
        Row(
            Decoder.RAWPY,
            "LibRaw: the camera's own JPEG where it is of full size, else developed",
            samples=_NUMBERS,
            module="rawpy",
            extra="raw",
            bytes_per_pixel=0,
        ),
    ),
}


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
