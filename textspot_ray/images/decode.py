"""From encoded bytes to an upright BGR image, or to the reason why not."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from textspot_ray.errors import one_line
from textspot_ray.images import extras, readers
from textspot_ray.images.avif import check_avif
from textspot_ray.images.formats import (
    SNIFF_BYTES,
    Format,
    advice,
    describe,
    image_format,
    looks_like_tga,
    unread_format,
)
from textspot_ray.images.headers import (
    LOSSLESS_JPEG,
    BrokenHeaderError,
    CutError,
    Header,
    jpeg2000_header,
    jpeg_header,
    png_header,
    png_size,
    webp_header,
)
from textspot_ray.images.pixels import is_one_colour, upright
from textspot_ray.images.raster import (
    DecodeJob,
    FileMemory,
    Fit,
    Raster,
    RefusedError,
    is_long,
    is_varied,
)
from textspot_ray.images.table import ImageKind, choose
from textspot_ray.images.tiff import is_camera_raw
from textspot_ray.images.tiff_reader import pages_of, read_tiff_page
from textspot_ray.records import ErrorKind, ImageError, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# A broken image is one row in the errors table; decoders would also print on stderr.
if hasattr(cv2, "setLogLevel"):  # up to OpenCV 4.12
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")

_PAGED = frozenset({Format.TIFF, Format.PDF})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded page.

    Attributes:
        image: H x W x 3 uint8, BGR, C-contiguous, upright.
        width, height: Pixels of the upright original, also when decoded at a reduced scale.
        scale_x, scale_y: Decoded / original; 1.0 at full size.
        format: Name of the format, as in `images.formats.Format`.
        pages: Pages in the file (1 but for TIFF and PDF).
        exif_orientation: 1..8 as stored; already applied.
        damage: What is wrong with the file though it gave pixels, in one line; None if sound.
        note: What was assumed of the depth of its values; None where the file says it.
    """

    image: Pixels
    width: int
    height: int
    scale_x: float
    scale_y: float
    format: str
    pages: int
    exif_orientation: int
    damage: str | None = None
    note: str | None = None


def decode(
    data: bytes,
    *,
    page: int = 0,
    max_pixels: int,
    fit: Fit | None = None,
    tiff_levels: bool = False,
    pdf_dpi: int = 200,
    memory: FileMemory | None = None,
) -> Decoded | ImageError:
    """Decode one page of an image.

    Which library reads what, and why, is in `images.table`. Transparency is laid on white, or on
    black or grey where that shows more (`pixels.background_for`); CMYK is converted without a
    profile (ICC profiles are ignored); 16 bits become 8 by dropping the low byte, or the high bits
    that no value uses; of an animation the first frame is taken.

    Args:
        data: The encoded file.
        page: Page of a TIFF or PDF, from 0.
        max_pixels: Refuse larger images, going by the header, before anything is decoded.
        fit: Width and height (upright) that the caller needs at least, or a function that tells
            them from the image's own: a JPEG or JPEG 2000 may then be decoded at 1/2, 1/4 or 1/8.
            None: full size.
        tiff_levels: Take pyramid levels and thumbnails of a TIFF for pages.
        pdf_dpi: Resolution at which a PDF page is drawn that is no scan.
        memory: Of the caller's, who decodes one page after the other with the same rules.

    Returns:
        The image, or an `ImageError` of stage ``decode``; nothing is raised for bad input.
    """
    if not data:
        return _error(ErrorKind.EMPTY_FILE, "the file is empty (0 bytes)")
    found = image_format(data[:SNIFF_BYTES])
    if found is None and unread_format(data[:SNIFF_BYTES]) is None and looks_like_tga(data):
        found = Format.TGA
    if found is None:
        return _no_image(data)
    job = DecodeJob(data, page, max_pixels, fit, tiff_levels, pdf_dpi, memory)
    try:
        if page and found not in _PAGED:
            raise RefusedError(ErrorKind.CORRUPT, f"a {found} file has no page {page}")
        return _finish(_tiff(job) if found is Format.TIFF else _one(job, found))
    except RefusedError as exc:
        return _error(exc.kind, str(exc))
    except CutError as exc:
        return _error(ErrorKind.TRUNCATED, f"cut off {found} file: {exc}")
    except MemoryError:
        return _error(ErrorKind.TOO_LARGE, f"not enough memory to decode this {found} image")
    except Exception as exc:
        text = one_line(exc, 200)
        kind = ErrorKind.TRUNCATED if "truncated" in text.lower() else ErrorKind.CORRUPT
        return _error(kind, f"broken {found} file: {text}")


def _error(kind: ErrorKind, message: str) -> ImageError:
    return ImageError(Stage.DECODE, kind, message)


def _no_image(data: bytes) -> ImageError:
    name = unread_format(data[:SNIFF_BYTES])
    if name is not None:
        return _error(ErrorKind.UNSUPPORTED, f"{name} is not supported: {advice(name)}")
    if not data.strip(b"\0"):
        return _error(ErrorKind.CORRUPT, f"{len(data)} zero bytes: an unfinished copy or download")
    return _error(ErrorKind.NOT_AN_IMAGE, f"not an image but {describe(data)}")


def _one(job: DecodeJob, found: Format) -> Raster:
    """Anything but a TIFF: header, row of the table, reader."""
    header, kind = _HEADERS.get(found, _no_header)(job, found)
    row = choose(kind)
    if header.width:
        job.check(*header.size)
        if row.bytes_per_pixel:
            divisor = job.reduction(header) if row.reduces else 1
            job.reserve(header.size, row.bytes_per_pixel / divisor, kind)
    return READERS[row.reader](job, header, found)


def _tiff(job: DecodeJob) -> Raster:
    chain = pages_of(job)
    first = chain.pages[0]
    if is_camera_raw(first):
        row = choose(ImageKind(Format.RAW))
        return READERS[row.reader](job, Header(0, 0), Format.RAW)
    pages = len(chain.pages) + (chain.fault is not None)
    if job.page < len(chain.pages):
        page = chain.pages[job.page]
        job.check(page.width, page.height)
        return read_tiff_page(job, page, pages)
    if chain.fault is not None and job.page == len(chain.pages):
        kind = ErrorKind.TRUNCATED if chain.fault.cut else ErrorKind.CORRUPT
        raise RefusedError(
            kind,
            f"what follows page {job.page} of this TIFF cannot be read: {chain.fault.message}",
        )
    raise RefusedError(ErrorKind.CORRUPT, f"page {job.page} of a TIFF of {pages} pages")


# --- headers, in the table's words ----------------------------------------------------------------


def _jpeg_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    header = jpeg_header(job.data, job.check)
    words = set()
    if header.channels == 4:
        words.add("cmyk")
    if header.process in LOSSLESS_JPEG:
        words.add("lossless")
    if header.channels not in (1, 3, 4):
        words.add("odd")
    if header.channels > 1 and not _has_named_sampling(header.sampling):
        words.add("sampling")
    return header, ImageKind(found, bits=header.bits, layout=frozenset(words))


# 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1 and 4:4:1: what TurboJPEG has names for.
_NAMED_SAMPLING = frozenset({0x11, 0x21, 0x22, 0x12, 0x41, 0x14})


def _has_named_sampling(factors: tuple[int, ...]) -> bool:
    luma, chroma, black = factors[:1], factors[1:3], factors[3:]
    return luma[0] in _NAMED_SAMPLING and set(chroma) == {0x11} and set(black) <= set(luma)


def _png_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    data = job.data
    if data[12:16] == b"CgBI":  # Apple's own chunk comes before IHDR
        length = int.from_bytes(data[8:12], "big")
        plain = data[:8] + data[8 + 12 + length :]
        job.check(*png_size(plain))
        header = replace(png_header(plain), payload=(0, 0))  # offsets of another file
        return header, ImageKind(found, layout=frozenset({"apple"}))
    job.check(*png_size(data))
    header = png_header(data)
    words = set()
    if header.animated:
        words |= {"animated", "alpha"}
    elif header.alpha:
        words |= {"alpha"} | ({"rgba"} if header.process == 6 else set())
    if header.bits == 16 and header.process == 6 and header.width * header.height > _DEEP_PIXELS:
        words.add("deep-and-large")
    return header, ImageKind(found, bits=header.bits, layout=frozenset(words))


_DEEP_PIXELS = 100_000_000  # OpenCV would need 16 bytes for each of these, and 3 for the result


def _webp_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    header = webp_header(job.data)
    words = {"alpha"} if header.alpha else set()
    if header.animated:
        words.add("animated")
    return header, ImageKind(found, layout=frozenset(words))


def _jpeg2000_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    header = jpeg2000_header(job.data)
    return header, ImageKind(found, bits=header.bits)


def _pnm_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    head = job.data[:SNIFF_BYTES]
    if head[1:2] in b"7fF":
        word = "pam" if head[1:2] == b"7" else "pfm"
        return _pam_header(head), ImageKind(found, layout=frozenset({word}))
    return Header(0, 0), ImageKind(found)


def _pam_header(head: bytes) -> Header:
    """Size of a PAM or PFM from its lines of text."""
    if head[1:2] == b"7":
        return readers.pam_header(head)[0]
    fields = head.split(None, 3)
    try:
        return Header(int(fields[1]), int(fields[2]), bits=32)
    except (IndexError, ValueError) as exc:
        raise BrokenHeaderError("no size in its header") from exc


def _ico_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    """Every icon is checked: Pillow decodes one as it opens the file, and goes by its own header.

    The directory cannot say more than 256 pixels, the PNG behind it can.
    """
    data = job.data
    for number in range(int.from_bytes(data[4:6], "little")):
        entry = data[6 + 16 * number : 22 + 16 * number]
        at = int.from_bytes(entry[12:16], "little")
        head = data[at : at + 33]
        with contextlib.suppress(CutError, BrokenHeaderError):  # Pillow reports it
            if head.startswith(b"\x89PNG"):
                job.check(*png_size(head))
            elif len(head) == 33:  # BITMAPINFOHEADER: picture and mask, one above the other
                wide, high = struct.unpack("<ii", head[4:12])
                job.check(abs(wide), abs(high) // 2)
    return Header(0, 0), ImageKind(found)


def _avif_kind(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    """The library that reads it checks what the container says; this, the code streams."""
    for size in check_avif(job.data):
        job.check(*size)
    return Header(0, 0), ImageKind(found)


def _no_header(job: DecodeJob, found: Format) -> tuple[Header, ImageKind]:
    """The library that reads it reads the header, and checks the size before it decodes."""
    return Header(0, 0), ImageKind(found)


_HEADERS: dict[Format, Callable[[DecodeJob, Format], tuple[Header, ImageKind]]] = {
    Format.JPEG: _jpeg_kind,
    Format.PNG: _png_kind,
    Format.WEBP: _webp_kind,
    Format.JPEG2000: _jpeg2000_kind,
    Format.PNM: _pnm_kind,
    Format.ICO: _ico_kind,
    Format.AVIF: _avif_kind,
}
# each takes what is asked for, what the header says, and the format by magic bytes
READERS: dict[str, Callable[[DecodeJob, Header, Format], Raster]] = {
    "simplejpeg": readers.read_jpeg,
    "simplejpeg, CMYK": readers.read_jpeg_cmyk,
    "imagecodecs, JPEG": readers.read_jpeg_imagecodecs,
    "OpenCV": readers.read_opencv,
    "OpenCV, unchanged": readers.read_opencv_alpha,
    "NumPy, PAM": readers.read_pam,
    "OpenCV, PFM": readers.read_pfm,
    "Pillow, JPEG": readers.read_jpeg_pillow,
    "OpenCV, JPEG 2000": readers.read_jpeg2000_opencv,
    "Pillow": readers.read_pillow,
    "Pillow, JPEG 2000": readers.read_jpeg2000,
    "zlib and OpenCV, Apple's PNG": readers.read_apple_png,
    "pillow-heif": extras.read_heif,
    "imagecodecs, JPEG XL": extras.read_jpegxl,
    "imagecodecs, JPEG XR": extras.read_jpegxr,
    "pypdfium2": extras.read_pdf,
    "rawpy": extras.read_raw,
}


def _finish(raster: Raster) -> Decoded:
    """Check what can be checked, and turn the image upright."""
    image = raster.image
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise BrokenHeaderError(f"decoded to {image.shape} {image.dtype}")
    payload = raster.payload
    if payload is not None and is_long(payload) and is_one_colour(image) and is_varied(payload):
        raise BrokenHeaderError(
            f"{len(payload)} bytes of varied data decoded to one colour, which is not believed"
        )
    image = upright(image, raster.orientation)
    width, height = raster.width, raster.height
    if raster.orientation >= 5:
        width, height = height, width
    decoded_height, decoded_width = image.shape[:2]
    return Decoded(
        np.ascontiguousarray(image),
        width,
        height,
        decoded_width / width,
        decoded_height / height,
        str(raster.format),
        raster.pages,
        raster.orientation,
        raster.damage,
        raster.note,
    )
