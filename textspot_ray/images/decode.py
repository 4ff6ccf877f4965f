"""From encoded bytes to an upright BGR image, or to the reason why not."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from textspot_ray.images.formats import (
    SNIFF_BYTES,
    Format,
    advice,
    describe,
    image_format,
    unread_format,
)
from textspot_ray.images.headers import (
    BrokenHeaderError,
    CutError,
    jpeg2000_is_whole,
    jpeg_header,
    png_header,
    png_size,
    webp_header,
)
from textspot_ray.images.pixels import on_white, to_bgr, upright
from textspot_ray.images.tiff import is_camera_raw, isolate, tiff_pages
from textspot_ray.records import ErrorKind, ImageError, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# A broken image costs one row in the errors table; the decoders' chatter on stderr helps nobody.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_PILLOW_LIMIT = threading.Lock()
_JPEG_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded page.

    Attributes:
        image: H x W x 3 uint8, BGR, C-contiguous, upright.
        width, height: Pixels of the upright original, also when decoded at a reduced scale.
        scale_x, scale_y: Decoded / original; 1.0 at full size.
        format: Name of the format, as in `images.formats.Format`.
        pages: Pages in the file (1 but for TIFF).
        exif_orientation: 1..8 as stored; already applied.
    """

    image: Pixels
    width: int
    height: int
    scale_x: float
    scale_y: float
    format: str
    pages: int
    exif_orientation: int


Fit = tuple[int, int] | Callable[[int, int], tuple[int, int]]


def decode(
    data: bytes, *, page: int = 0, max_pixels: int, fit: Fit | None = None
) -> Decoded | ImageError:
    """Decode one page of an image.

    Transparency is laid on white, CMYK is converted without a profile (ICC profiles are ignored),
    16 bits become 8 by dropping the low byte, of an animation the first frame is taken.

    Args:
        data: The encoded file.
        page: Page of a TIFF, from 0.
        max_pixels: Refuse larger images, going by the header, before anything is decoded.
        fit: Width and height (upright) that the caller needs at least, or a function that tells
            them from the image's own: a JPEG or JPEG 2000 may then be decoded at 1/2, 1/4 or 1/8.
            None: full size.

    Returns:
        The image, or an `ImageError` of stage ``decode``; nothing is raised for bad input.
    """
    if not data:
        return _error(ErrorKind.EMPTY_FILE, "the file is empty (0 bytes)")
    head = data[:SNIFF_BYTES]
    found = image_format(head)
    if found is None:
        return _no_image(data)
    job = _Job(data, page, max_pixels, fit)
    try:
        if page and found is not Format.TIFF:
            raise _Refused(ErrorKind.CORRUPT, f"a {found} file has no page {page}")
        return _DECODERS[found](job)
    except _Refused as exc:
        return _error(exc.kind, str(exc))
    except CutError as exc:
        return _error(ErrorKind.TRUNCATED, f"cut off {found} file: {exc}")
    except MemoryError:
        return _error(ErrorKind.TOO_LARGE, f"not enough memory to decode this {found} image")
    except Exception as exc:
        text = " ".join(str(exc).split())[:200] or type(exc).__name__
        kind = ErrorKind.TRUNCATED if "truncated" in text.lower() else ErrorKind.CORRUPT
        return _error(kind, f"broken {found} file: {text}")


@dataclass(frozen=True, slots=True)
class _Job:
    data: bytes
    page: int
    max_pixels: int
    fit: Fit | None

    def check(self, width: int, height: int) -> None:
        """Refuse sizes that are impossible or too large."""
        if width <= 0 or height <= 0:
            raise BrokenHeaderError(f"impossible size {width} x {height}")
        if width * height > self.max_pixels:
            raise _Refused(
                ErrorKind.TOO_LARGE,
                f"{width} x {height} = {width * height / 1e6:.0f} Mpx, more than "
                f"image.max_pixels = {self.max_pixels / 1e6:g} Mpx",
            )

    def reduction(self, width: int, height: int, orientation: int) -> int:
        """Largest of 8, 4, 2, 1 that leaves at least `fit` pixels of a stored image."""
        if self.fit is None:
            return 1
        turned = orientation >= 5
        fit = self.fit
        if callable(fit):
            fit = fit(height, width) if turned else fit(width, height)
        need_x, need_y = fit[::-1] if turned else fit
        for divisor in (8, 4, 2):
            if width // divisor >= need_x and height // divisor >= need_y:
                return divisor
        return 1

    def by_opencv(self, flags: int) -> Any:
        """Decode with OpenCV as stored, without turning; None if it cannot."""
        buffer = np.frombuffer(self.data, np.uint8)
        return cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)


class _Refused(Exception):
    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _error(kind: ErrorKind, message: str) -> ImageError:
    return ImageError(Stage.DECODE, kind, message)


def _no_image(data: bytes) -> ImageError:
    name = unread_format(data[:SNIFF_BYTES])
    if name is not None:
        return _error(ErrorKind.UNSUPPORTED, f"{name} is not supported: {advice(name)}")
    if not data.strip(b"\0"):
        return _error(ErrorKind.CORRUPT, f"{len(data)} zero bytes: an unfinished copy or download")
    return _error(ErrorKind.NOT_AN_IMAGE, f"not an image but {describe(data)}")


def _jpeg(job: _Job) -> Decoded:
    header = jpeg_header(job.data, job.check)
    if header.bits != 8 or header.process in _JPEG_LOSSLESS:
        what = "lossless" if header.process in _JPEG_LOSSLESS else f"{header.bits}-bit"
        raise _Refused(
            ErrorKind.UNSUPPORTED, f"{what} JPEG is not supported: convert it to PNG first"
        )
    divisor = job.reduction(header.width, header.height, header.orientation)
    if header.channels == 4:
        image = _jpeg_cmyk(job, header.width, header.height, divisor, header.adobe)
    else:
        image = job.by_opencv(_REDUCED[divisor])
    return _finish(image, header.width, header.height, header.orientation, Format.JPEG)


def _jpeg_cmyk(job: _Job, width: int, height: int, divisor: int, adobe: bool) -> Pixels:
    opened: Any = JpegImagePlugin.JpegImageFile(io.BytesIO(job.data))
    if divisor > 1:
        opened.draft("CMYK", (width // divisor, height // divisor))
    opened.load()
    if opened.mode == "CMYK" and not adobe:
        # Pillow takes every CMYK JPEG for Adobe's, which stores it inverted.
        opened = Image.merge("CMYK", [band.point(lambda v: 255 - v) for band in opened.split()])
    return to_bgr(opened)


def _png(job: _Job) -> Decoded:
    job.check(*png_size(job.data))
    header = png_header(job.data)
    if header.animated or (header.alpha and header.process != 6):
        image = to_bgr(_loaded(PngImagePlugin.PngImageFile, job))
    elif header.alpha and header.process == 6:
        image = job.by_opencv(cv2.IMREAD_UNCHANGED)
        if image is not None and image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        if image is not None and image.ndim == 3 and image.shape[2] == 4:
            image = on_white(image)
    else:
        image = job.by_opencv(cv2.IMREAD_COLOR)
    return _finish(image, header.width, header.height, header.orientation, Format.PNG)


def _webp(job: _Job) -> Decoded:
    header = webp_header(job.data)
    job.check(header.width, header.height)
    if header.alpha or header.animated:
        image = to_bgr(_loaded(WebPImagePlugin.WebPImageFile, job))
    else:
        image = job.by_opencv(cv2.IMREAD_COLOR)
    return _finish(image, header.width, header.height, header.orientation, Format.WEBP)


def _bmp(job: _Job) -> Decoded:
    opened = _loaded(BmpImagePlugin.BmpImageFile, job)
    width, height = opened.size
    if opened.mode == "RGBA" and opened.getchannel("A").getextrema() == (0, 0):
        opened = opened.convert("RGB")  # the fourth byte of many BMPs is filling, not alpha
    return _finish(to_bgr(opened), width, height, 1, Format.BMP)


def _gif(job: _Job) -> Decoded:
    opened = _loaded(GifImagePlugin.GifImageFile, job)
    width, height = opened.size
    job.check(width, height)  # a frame may be larger than the canvas
    return _finish(to_bgr(opened), width, height, 1, Format.GIF)


def _jpeg2000(job: _Job) -> Decoded:
    opened = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(job.data))
    width, height = opened.size
    job.check(width, height)
    if not jpeg2000_is_whole(job.data):
        raise CutError("the end-of-codestream marker is missing")
    steps = job.reduction(width, height, 1).bit_length() - 1
    while True:
        try:
            if steps:
                opened.reduce = steps
            opened.load()
            break
        except OSError:
            if not steps:
                raise
            steps -= 1  # the file has fewer resolution levels than we would like
            opened = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(job.data))
    return _finish(to_bgr(opened), width, height, 1, Format.JPEG2000)


def _tiff(job: _Job) -> Decoded:
    pages = tiff_pages(job.data)
    if is_camera_raw(pages[0]):
        name = "camera RAW (DNG, NEF, ARW or alike)"
        raise _Refused(ErrorKind.UNSUPPORTED, f"{name} is not supported: {advice(name)}")
    if job.page >= len(pages):
        raise _Refused(ErrorKind.CORRUPT, f"page {job.page} of a TIFF of {len(pages)} pages")
    page = pages[job.page]
    job.check(page.width, page.height)
    alone = _Job(isolate(job.data, page), 0, job.max_pixels, job.fit)
    try:
        image = to_bgr(_loaded(TiffImagePlugin.TiffImageFile, alone))
    except (SyntaxError, KeyError) as exc:
        # A pixel layout that Pillow does not know; OpenCV knows a few more.
        image = alone.by_opencv(cv2.IMREAD_COLOR)
        if image is None and "unknown" not in str(exc):
            raise
        if image is None:
            raise _Refused(
                ErrorKind.UNSUPPORTED,
                f"TIFF of a kind that is not supported ({exc}): convert it to PNG first",
            ) from exc
    return _finish(image, page.width, page.height, page.orientation, Format.TIFF, pages=len(pages))


_DECODERS: dict[Format, Callable[[_Job], Decoded]] = {
    Format.JPEG: _jpeg,
    Format.PNG: _png,
    Format.WEBP: _webp,
    Format.BMP: _bmp,
    Format.TIFF: _tiff,
    Format.GIF: _gif,
    Format.JPEG2000: _jpeg2000,
}


def _loaded(plugin: Callable[[io.BytesIO], Any], job: _Job) -> Any:
    """Open with one named plug-in and decode.

    Not with Image.open: that tries every plug-in there is on hostile bytes.
    """
    try:
        return _load(plugin, job)
    except Image.DecompressionBombError:
        # Pillow's own limit, which is the process's and not ours to change for good.
        with _PILLOW_LIMIT:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return _load(plugin, job)
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def _load(plugin: Callable[[io.BytesIO], Any], job: _Job) -> Any:
    opened = plugin(io.BytesIO(job.data))
    job.check(*opened.size)
    opened.load()
    return opened


def _finish(
    image: Pixels | None,
    width: int,
    height: int,
    orientation: int,
    found: Format,
    pages: int = 1,
) -> Decoded:
    if image is None:
        raise BrokenHeaderError("its image data cannot be decoded")
    image = upright(image, orientation)
    if orientation >= 5:
        width, height = height, width
    decoded_height, decoded_width = image.shape[:2]
    return Decoded(
        np.ascontiguousarray(image),
        width,
        height,
        decoded_width / width,
        decoded_height / height,
        str(found),
        pages,
        orientation,
    )
