"""Formats that an optional library reads: HEIF, JPEG XL, JPEG XR, PDF and camera raw."""

from __future__ import annotations

import ctypes
import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from textspot_ray.images.formats import Format
from textspot_ray.images.headers import (
    BrokenHeaderError,
    CutError,
    Header,
    jpeg2000_header,
    jpeg_header,
    jpegxl_header,
    jpegxr_size,
)
from textspot_ray.images.pdf_streams import JPEG2000_BYTES, JPEG_BYTES, large_images
from textspot_ray.images.pixels import bands, from_pillow, real_scale, value_range
from textspot_ray.images.raster import (
    MAX_DECODE_BYTES,
    DecodeJob,
    Raster,
    RefusedError,
    unsupported,
)
from textspot_ray.images.readers import decode_jpeg_stream, from_integers
from textspot_ray.records import ErrorKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_PDFIUM = threading.Lock()  # PDFium is not thread-safe
_POINT_DPI = 72
_PAGE_SHARE = 0.9  # of a PDF page's sides that an image must cover to be its scan
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})  # SOF markers: all coefficients at once
_LARGE_BYTES = MAX_DECODE_BYTES // 8  # to unpack an image; smaller ones fit beside any page
_SCAN_DEPTH = 3  # of groups in groups in which a scan is looked for
_SMALL_PREVIEW = 0.5  # of the sensor's longer side; a smaller preview is not used


# --- HEIF -----------------------------------------------------------------------------------------


def read_heif(job: DecodeJob, header: Header, found: Format) -> Raster:
    """The primary image; libheif turns it as its properties say."""
    import pillow_heif

    file = pillow_heif.open_heif(job.data, convert_hdr_to_8bit=True)
    image = file[file.primary_index] if len(file) > 1 else file[0]
    width, height = image.size
    job.check(width, height)
    job.reserve((width, height), 12, "a HEIF")
    pixels, note = from_pillow(image.to_pillow())
    return Raster(pixels, width, height, found, note=note, payload=memoryview(job.data))


# --- JPEG XL --------------------------------------------------------------------------------------


def read_jpegxl(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Turned by libjxl as the code stream says, so that sides may be exchanged; the first frame."""
    import imagecodecs

    size = jpegxl_header(job.data).size
    job.check(*size)
    # libjxl works in 32-bit floats, three or four samples per pixel.
    job.reserve(size, 24, "a JPEG XL")
    return _from_imagecodecs(job, imagecodecs.jpegxl_decode(job.data, index=0), size, found)


def _from_imagecodecs(
    job: DecodeJob, values: NDArray[Any], size: tuple[int, int], found: Format
) -> Raster:
    """An array of any type as a raster; its sides must be the header's, turned or not."""
    if values.ndim == 4 or (values.ndim == 3 and values.shape[2] > 4):
        values = values[0]  # the first frame
    if values.shape[:2] not in (size, size[::-1]):
        raise BrokenHeaderError(f"decoded to {values.shape}, not {size[0]} x {size[1]}")
    if values.dtype.kind == "f":
        scale = real_scale(*value_range(values))
        image, note = from_integers(scale.apply(values), 8)[0], scale.note
    elif values.dtype.kind == "b":
        image, note = from_integers(values.astype(np.uint8) * np.uint8(255), 8)
    else:
        image, note = from_integers(values, 8 * values.dtype.itemsize)
    height, width = image.shape[:2]
    return Raster(image, width, height, found, note=note, payload=memoryview(job.data))


# --- JPEG XR --------------------------------------------------------------------------------------


def read_jpegxr(job: DecodeJob, header: Header, found: Format) -> Raster:
    """By jxrlib, as stored."""
    import imagecodecs

    size = jpegxr_size(job.data)
    job.check(*size)
    job.reserve(size, 24, "a JPEG XR")
    return _from_imagecodecs(job, imagecodecs.jpegxr_decode(job.data), size, found)


# --- PDF ------------------------------------------------------------------------------------------


def read_pdf(job: DecodeJob, header: Header, found: Format) -> Raster:
    """A page as it prints: drawn at `pdf_dpi`, or at the resolution of the scan that fills it.

    Words of a text layer are drawn only where the page shows them, as in print.
    """
    import pypdfium2

    with _PDFIUM:
        try:
            document = pypdfium2.PdfDocument(job.data)
        except pypdfium2.PdfiumError as exc:
            if "password" in str(exc).lower():
                advice = "decrypt it first, for example with: qpdf --decrypt"
                raise unsupported("PDF with a password", advice) from exc
            raise
        try:
            pages = len(document)
            if not pages:
                raise BrokenHeaderError("a PDF without pages")
            if job.page >= pages:
                raise RefusedError(ErrorKind.CORRUPT, f"page {job.page} of a PDF of {pages} pages")
            return _draw(job, document, pypdfium2)
        finally:
            document.close()


def _large_images(job: DecodeJob, document: Any, library: Any) -> dict[tuple[int, int], float]:
    """Images anywhere in the file that take much to unpack, and how many bytes."""
    large: dict[tuple[int, int], float] | None
    large = None if job.memory is None else job.memory.found(job.data)
    if large is None:
        data = job.data
        if b"/Encrypt" in data:  # without a password to open it, but nothing can be seen in it
            plain = io.BytesIO()
            document.save(plain, flags=library.raw.FPDF_REMOVE_SECURITY)
            data = plain.getvalue()
        large = large_images(data, _LARGE_BYTES)
        if job.memory is not None:
            job.memory.keep(job.data, large)
    return large


def _draw(job: DecodeJob, document: Any, library: Any) -> Raster:
    page = document[job.page]
    wide, high = page.get_size()  # points, turned
    images = list(page.get_objects(filter=[library.raw.FPDF_PAGEOBJ_IMAGE]))
    scans = [image for image in images if image.level < _SCAN_DEPTH]
    scale = _scan_scale(scans, wide, high, library) or job.pdf_dpi / _POINT_DPI
    width, height = max(1, round(wide * scale)), max(1, round(high * scale))
    try:
        job.check(width, height)
    except RefusedError as exc:
        dpi = scale * _POINT_DPI
        raise RefusedError(exc.kind, f"{exc} at {dpi:.0f} dpi; see source.pdf_dpi") from exc
    per_pixel = 11
    job.reserve((width, height), per_pixel, "a PDF page")
    for image in images:
        _reserve_image(job, image, per_pixel * width * height)
    # Any page may use it: as a soft mask, in a pattern, a font, an annotation or a deep form.
    for size, needed in _large_images(job, document, library).items():
        what = f"a PDF with an image of {size[0]} x {size[1]} pixels"
        job.reserve(size, 0, what, beside=per_pixel * width * height + needed)
    bitmap = library.PdfBitmap.new_native(width, height, library.raw.FPDFBitmap_BGRx)
    try:
        # Into the size that was asked for: PdfPage.render rounds up, and a scan would be resampled.
        library.raw.FPDFBitmap_FillRect(bitmap.raw, 0, 0, width, height, 0xFFFFFFFF)
        library.raw.FPDF_RenderPageBitmap(
            bitmap.raw, page.raw, 0, 0, width, height, 0, library.raw.FPDF_ANNOT
        )
        pixels = bitmap.to_numpy()
        out = np.empty((height, width, 3), np.uint8)
        for rows in bands(height, width):
            out[rows] = pixels[rows][..., :3]
    finally:
        bitmap.close()
        page.close()
    return Raster(out, out.shape[1], out.shape[0], Format.PDF, pages=len(document))


def _reserve_image(job: DecodeJob, image: Any, drawn: float) -> None:
    """Refuse a page whose image PDFium would unpack as a whole, by the image's own header.

    Plain samples and sequential JPEG are drawn row by row; what the page's directory says of the
    size of a stream counts for nothing with PDFium.

    Raises:
        RefusedError: It needs too much memory beside the page.
    """
    packed = image.get_filters(skip_simple=True)
    if packed not in (["DCTDecode"], ["JPXDecode"]):
        return
    sizes = []
    data = bytes(image.get_data(decode_simple=True))
    try:
        if packed == ["DCTDecode"]:
            start = max(0, data.find(b"\xff\xd8"))  # PDFium skips what stands before it
            header = jpeg_header(data[start:], lambda *size: sizes.append(size))
            samples = JPEG_BYTES * max(header.channels, 1)
            each = samples if header.process in _PROGRESSIVE else 0.0
        else:
            header = jpeg2000_header(data)
            sizes.append(header.size)
            each = JPEG2000_BYTES * (header.channels + 1)
    except (CutError, BrokenHeaderError):
        each = 8.0  # PDFium reports it, if there is a size at all
    for size in sizes[-1:]:
        what = f"a PDF page with an image of {size[0]} x {size[1]} pixels"
        job.reserve(size, each, what, beside=drawn)


def _scan_scale(images: list[Any], wide: float, high: float, library: Any) -> float | None:
    """Pixels a point of the image that covers the page; None where no image does."""
    raw = library.raw
    best = None
    for thing in images:
        left, bottom, right, top = thing.get_bounds()
        if min((right - left) / wide, (top - bottom) / high) < _PAGE_SHARE:
            turned = min((right - left) / high, (top - bottom) / wide)
            if turned < _PAGE_SHARE:
                continue
        across, down = ctypes.c_uint(), ctypes.c_uint()
        if not raw.FPDFImageObj_GetImagePixelSize(thing.raw, across, down):
            continue
        long_side = max(across.value, down.value) / max(right - left, top - bottom)
        if best is None or long_side > best:
            best = long_side
    return best


# --- camera raw -----------------------------------------------------------------------------------


def read_raw(job: DecodeJob, header: Header, found: Format) -> Raster:
    """The camera's own JPEG where it has half the sensor's side at least, else developed.

    The format says which: ``raw_preview`` or ``raw_developed``; so do the sizes, which are the
    preview's own.
    """
    import rawpy

    if job.page:
        raise RefusedError(ErrorKind.CORRUPT, f"a camera raw file has no page {job.page}")
    try:
        with rawpy.imread(io.BytesIO(job.data)) as raw:
            sizes = raw.sizes
            job.check(sizes.width, sizes.height)
            preview = _preview(job, raw, max(sizes.width, sizes.height))
            if preview is not None:
                return preview
            # LibRaw: raw samples, four 16-bit colours per pixel, and the result twice.
            job.reserve((sizes.raw_width, sizes.raw_height), 16, "a camera raw")
            pixels = raw.postprocess(use_camera_wb=True, output_bps=8)
    except rawpy.LibRawError as exc:
        if isinstance(exc, rawpy.LibRawFileUnsupportedError | rawpy.LibRawUnspecifiedError):
            raise unsupported(
                f"this camera's raw file ({exc})", "develop it to JPEG or TIFF first"
            ) from exc
        raise
    image, _ = from_integers(pixels, 8)
    return Raster(image, image.shape[1], image.shape[0], "raw_developed")


def _preview(job: DecodeJob, raw: Any, sensor_side: int) -> Raster | None:
    import rawpy

    try:
        thumb = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if thumb.format != rawpy.ThumbFormat.JPEG:
        return None
    try:
        header = jpeg_header(thumb.data, job.check)
    except (CutError, BrokenHeaderError):
        return None
    if max(header.width, header.height) < _SMALL_PREVIEW * sensor_side or header.bits != 8:
        return None
    divisor = job.reduction(header)
    if header.channels == 4:
        return None
    image, warning = decode_jpeg_stream(thumb.data, "BGR", header, divisor)
    # Previews carry the camera's orientation themselves in most files; else the raw file's counts.
    orientation = header.orientation
    if orientation == 1:
        orientation = {3: 3, 5: 8, 6: 6}.get(raw.sizes.flip, 1)
    return Raster(image, header.width, header.height, "raw_preview", orientation, damage=warning)
