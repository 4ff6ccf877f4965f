"""Readers of everything but TIFF and documents: one library each, chosen by `table`."""

from __future__ import annotations

import importlib
import io
import math
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from textspot_ray.images.formats import Format
from textspot_ray.images.headers import ORIENTATION_TAG, BrokenHeaderError, CutError, Header
from textspot_ray.images.pixels import (
    bands,
    cmyk_to_bgr,
    from_pillow,
    integer_scale,
    on_background,
    real_scale,
    unmultiply,
    value_range,
)
from textspot_ray.images.raster import DecodeJob, Raster, RefusedError, check_shape
from textspot_ray.records import ErrorKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_PILLOW_LIMIT = threading.Lock()
# A pixel: Pillow's own 4 and the result, and as many again for codecs that decode into a buffer.
_PILLOW_BYTES = 7.5
_PILLOW_BUFFER_BYTES = 11.5
_DARK = 64  # 16-bit data that look darker than this as 8 bits may have fewer bits than declared
_LEFT_OVER = "extraneous bytes before marker 0xd9"
_MAX_LOST = 0.9  # of a JPEG's rows; with less left it is taken for lost as a whole
# Complaints of libjpeg that are about what stands beside the picture.
_HARMLESS = ("JFIF", "Adobe color transform", "Invalid SOS parameters")


def _raster(
    job: DecodeJob,
    header: Header,
    image: Pixels,
    found: Format,
    note: str | None = None,
    *,
    damage: str | None = None,
    may_be_reduced: bool = False,
) -> Raster:
    """Pixels with what the header says of them."""
    if not may_be_reduced:
        check_shape(image, header.width, header.height)
    start, stop = header.payload
    return Raster(
        image,
        header.width,
        header.height,
        found,
        header.orientation,
        damage=damage or header.damage,
        note=note,
        payload=memoryview(job.data)[start:stop],
    )


# --- JPEG -----------------------------------------------------------------------------------------


def decode_jpeg_stream(
    data: bytes, space: str, header: Header, divisor: int = 1
) -> tuple[NDArray[np.uint8], str | None]:
    """Decode a JPEG and say what libjpeg warned of.

    Args:
        data: A whole stream.
        space: ``BGR`` or ``CMYK``.
        header: Its header.
        divisor: 1, 2, 4 or 8: the scale to decode at.

    Returns:
        Pixels, and the first warning or None.

    Raises:
        ValueError: libjpeg gave up.
    """
    import simplejpeg

    least: dict[str, Any] = {}
    if divisor > 1:
        least["min_height"] = -(-header.height // divisor)
        least["min_width"] = -(-header.width // divisor)
    try:
        return simplejpeg.decode_jpeg(data, space, **least), None
    except ValueError as exc:
        warning = " ".join(str(exc).split())
    # The first pass stops at a warning; only then is a second one needed.
    pixels = simplejpeg.decode_jpeg(data, space, strict=False, **least)
    harmless = any(words in warning for words in _HARMLESS)
    return pixels, None if harmless else warning


def read_jpeg(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Grey or colour of 8 bits."""
    divisor = job.reduction(header)
    image, warning = decode_jpeg_stream(_ended(job.data, header), "BGR", header, divisor)
    return _jpeg_raster(job, header, image, warning)


def read_jpeg_cmyk(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Four inks of 8 bits."""
    divisor = job.reduction(header)
    inks, warning = decode_jpeg_stream(_ended(job.data, header), "CMYK", header, divisor)
    if header.adobe:
        np.subtract(255, inks, out=inks)
    image = np.empty((*inks.shape[:2], 3), np.uint8)
    cmyk_to_bgr(inks, image)
    return _jpeg_raster(job, header, image, warning)


def _ended(data: bytes, header: Header) -> bytes:
    """With the end mark that is missing: what libjpeg warns of then is more than that."""
    if header.damage is None:
        return data
    return data + b"\xff\xd9"


def _jpeg_raster(job: DecodeJob, header: Header, image: Pixels, warning: str | None) -> Raster:
    damage = header.damage
    if damage is not None and warning is not None and _LEFT_OVER in warning:
        warning = None  # the mark was overwritten, and nothing but the mark
    if warning is not None:
        lost = _filled_rows(image)
        if lost > _MAX_LOST * len(image):
            raise CutError(f"hardly anything of the image could be decoded ({warning})")
        damage = f"{damage}; {warning}" if damage else warning
        if lost > max(8, len(image) // 100):
            damage += f"; the last {100 * lost // len(image)} % of its rows are filling"
    return _raster(job, header, image, Format.JPEG, damage=damage, may_be_reduced=True)


def _filled_rows(image: Pixels) -> int:
    """Rows at the end that are one colour: what libjpeg puts where data end early."""
    same = (image == image[-1, -1]).all(axis=(1, 2))
    return len(same) if same.all() else int(np.argmin(same[::-1]))


def read_jpeg_pillow(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Unusual sampling factors."""
    from PIL import JpegImagePlugin

    opened: Any = JpegImagePlugin.JpegImageFile(io.BytesIO(_ended(job.data, header)))
    divisor = job.reduction(header)
    if divisor > 1:
        opened.draft("RGB", (header.width // divisor, header.height // divisor))
    opened.load()
    image, _ = from_pillow(opened)
    return _jpeg_raster(job, header, image, None)


def read_jpeg_imagecodecs(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Lossless JPEG, JPEG-LS, and lossy JPEG of 12 bits."""
    import imagecodecs

    if header.damage is not None:
        raise CutError(header.damage)  # CharLS (2.4.3) searches what is cut off for minutes
    if header.process == 0xF7:
        values = imagecodecs.jpegls_decode(job.data)
    else:
        # jpeg_decode would ask for the sample's bits; the codecs themselves read the header.
        values = imagecodecs.jpeg_decode(job.data, bitspersample=header.bits)
    image, note = from_integers(values, header.bits)
    return _raster(job, header, image, Format.JPEG, note)


def from_integers(
    values: NDArray[Any], bits: int, *, rgb: bool = True
) -> tuple[Pixels, str | None]:
    """Unsigned grey, grey and alpha, colour, or colour and alpha as BGR.

    Args:
        values: H x W or H x W x 1..4, of 8 or 16 bits.
        bits: Bits that the file declares.
        rgb: Colours come red first.

    Returns:
        The pixels, and what was assumed of the depth.
    """
    if values.ndim == 2:
        values = values[..., None]
    height, width, channels = values.shape
    colours = channels - 1 if channels in (2, 4) else channels
    if colours not in (1, 3):
        raise RefusedError(ErrorKind.UNSUPPORTED, f"an image of {channels} channels")
    high = int(values[::8, ::8, :colours].max())
    if high < 1 << max(bits - 2, 0):  # only then do all the others matter
        high = int(values[..., :colours].max())
    scale = integer_scale(bits, 0, high)
    if channels == 4 and not rgb and scale.shift == bits - 8:  # all four alike
        narrow = np.empty(values.shape, np.uint8)
        for rows in bands(height, width):
            narrow[rows] = scale.apply(values[rows])
        return on_background(narrow), None
    out = np.empty((height, width, 4 if channels > colours else 3), np.uint8)
    for rows in bands(height, width):
        narrow = scale.apply(values[rows][..., :colours])
        if colours == 1:
            out[rows][..., :3] = narrow
        else:
            out[rows][..., :3] = narrow[..., ::-1] if rgb else narrow
        if channels > colours:
            opacity = integer_scale(bits, 0, (1 << bits) - 1)
            out[rows][..., 3] = opacity.apply(values[rows][..., colours])
    return (out if channels == colours else on_background(out)), scale.note


# --- OpenCV ---------------------------------------------------------------------------------------


def _by_opencv(data: bytes, flags: int) -> Any:
    """Decode with OpenCV as stored, without turning.

    Raises:
        BrokenHeaderError: It cannot.
    """
    buffer = np.frombuffer(data, np.uint8)
    found = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise BrokenHeaderError("its image data cannot be decoded")
    return found


_IEND = b"\0\0\0\0IEND\xaeB`\x82"


def _whole_png(job: DecodeJob, header: Header) -> bytes:
    """The file without broken chunks, with an end chunk where its own is not there."""
    if header.damage is None:
        return job.data
    stop = header.payload[1] + 4  # image data and their sum
    parts, at = [], 0
    for first, last in header.skipped:
        if first < stop:
            parts.append(job.data[at:first])
            at = last
    return b"".join([*parts, job.data[at:stop], _IEND])


def _depth(header: Header, channels: int) -> float:
    """Bytes per pixel at OpenCV's peak: its PNG reader holds two copies of the image as stored."""
    return 2.0 * channels * (2 if header.bits == 16 else 1)


def read_opencv(job: DecodeJob, header: Header, found: Format) -> Raster:
    """PNG or WebP without transparency; 16 bits are looked at again where they come out dark."""
    if found is Format.WEBP:
        return _raster(job, header, _by_opencv(job.data, cv2.IMREAD_COLOR), found)
    job.reserve(header.size, 6, "a PNG")
    data = _whole_png(job, header)
    image, note = _by_opencv(data, cv2.IMREAD_COLOR), None
    if header.bits == 16 and _is_dark(image):
        job.reserve(header.size, 3 + _depth(header, 3), "a 16-bit PNG")
        image, note = from_integers(_by_opencv(data, cv2.IMREAD_UNCHANGED), 16, rgb=False)
    return _raster(job, header, image, found, note)


def read_opencv_alpha(job: DecodeJob, header: Header, found: Format) -> Raster:
    """PNG of 8 or 16 bits or WebP, with opacity."""
    data = job.data
    if found is Format.PNG:
        per_pixel = max(_depth(header, 4), 3 + _depth(header, 4) / 2)
        job.reserve(header.size, per_pixel, "an RGBA PNG")
        data = _whole_png(job, header)
    values = _by_opencv(data, cv2.IMREAD_UNCHANGED)
    if found is Format.WEBP and values.shape[2:] == (3,):
        return _raster(job, header, values, found)  # it says so, and has none
    if values.ndim != 3 or values.shape[2] != 4:
        raise BrokenHeaderError(f"decoded to {values.shape}, not four channels")
    note = None
    if values.dtype == np.uint16:
        image, note = from_integers(values, 16, rgb=False)
    else:
        image = on_background(values)
    return _raster(job, header, image, found, note)


def pam_header(data: bytes) -> tuple[Header, int, int]:
    """Size, largest value and start of the samples of a PAM (Netpbm's pam(5)).

    Raises:
        BrokenHeaderError: A line is missing or no number.
    """
    text, end, _ = data[:4096].partition(b"ENDHDR\n")
    lines = (line.split(None, 1) for line in text.split(b"\n") if not line.startswith(b"#"))
    pairs = {parts[0]: parts[1] for parts in lines if len(parts) == 2}
    try:
        width, height = int(pairs[b"WIDTH"]), int(pairs[b"HEIGHT"])
        depth, most = int(pairs[b"DEPTH"]), int(pairs[b"MAXVAL"])
    except (KeyError, ValueError) as exc:
        raise BrokenHeaderError("no size in its header") from exc
    if not end or not 1 <= most <= 65_535 or not 1 <= depth <= 4:
        raise BrokenHeaderError("a header that makes no sense")
    return Header(width, height, channels=depth, bits=most.bit_length()), most, len(text) + len(end)


def read_pam(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Grey or colour, with or without opacity, of up to 16 bits."""
    header, most, start = pam_header(job.data)
    dtype = np.dtype(">u2" if most > 255 else np.uint8)
    shape = (header.height, header.width, header.channels)
    if start + math.prod(shape) * dtype.itemsize > len(job.data):
        raise CutError("the file ends before its samples do")
    values = np.frombuffer(job.data, dtype, math.prod(shape), start).reshape(shape)
    narrow = np.empty(shape, np.uint8)
    for rows in bands(*shape[:2]):
        narrow[rows] = np.minimum(values[rows].astype(np.uint32) * 255 // most, 255)
    image, _ = from_integers(narrow, 8)
    return _raster(job, header, image, found)


def read_pfm(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Floats, grey or colour."""
    values = _by_opencv(job.data, cv2.IMREAD_UNCHANGED)
    scale = real_scale(*value_range(values))
    image, _ = from_integers(scale.apply(values), 8, rgb=False)
    return _raster(job, header, image, found, scale.note)


def _is_dark(image: Pixels) -> bool:
    return not (image[::31, ::37] >= _DARK).any() and int(image.max()) < _DARK


def _whole_stream(job: DecodeJob, header: Header) -> bytes:
    """The file up to the end of its code stream, with the end marker that may be missing.

    A last tile part of unknown length runs to the end of what OpenJPEG is given.
    """
    stop = header.payload[1]
    if header.damage is not None:
        return job.data[:stop] + b"\xff\xd9"
    return job.data[:stop] if stop < len(job.data) and header.open_end else job.data


def read_jpeg2000_opencv(job: DecodeJob, header: Header, found: Format) -> Raster:
    """More than 8 bits per sample, signed or not."""
    values = _by_opencv(_whole_stream(job, header), cv2.IMREAD_UNCHANGED)
    image, note = from_integers(values, header.bits if values.dtype != np.uint8 else 8, rgb=False)
    return _raster(job, header, image, found, note)


def read_jpeg2000(job: DecodeJob, header: Header, found: Format) -> Raster:
    """8 bits and fewer, at a lower resolution where that is enough or all that memory allows."""
    from PIL import Jpeg2KImagePlugin

    area = header.width * header.height
    divisor = job.reduction(header)
    # OpenJPEG keeps 4 bytes per sample, twice while it undoes the wavelet; Pillow 4 per pixel.
    per_pixel = 8 * max(header.channels, 1) + 8
    while divisor < 8 and area * per_pixel / divisor**2 > 2.2 * 2**30:
        divisor *= 2
    steps = divisor.bit_length() - 1
    data = _whole_stream(job, header)
    least = steps if area * per_pixel > 2.2 * 2**30 else 0
    while True:
        opened: Any = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data))
        try:
            if steps:
                opened.reduce = steps
            opened.load()
            break
        except OSError:
            if not steps:
                raise
            if steps <= least:
                job.reserve(header.size, per_pixel, "a JPEG 2000 in one tile")
            steps -= 1  # the file has fewer resolution levels than we would like
    image, note = from_pillow(opened)
    return _raster(job, header, image, Format.JPEG2000, note, may_be_reduced=True)


# --- Apple's PNG ----------------------------------------------------------------------------------


def read_apple_png(job: DecodeJob, header: Header, found: Format) -> Raster:
    """CgBI: a raw deflate stream of premultiplied BGRA (or BGR) rows with PNG's filters."""
    data, colour = job.data, job.data[_ihdr(job.data) + 9]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 0)
    if header.bits != 8 or not channels or header.interlaced:
        raise RefusedError(ErrorKind.UNSUPPORTED, "a CgBI PNG that is interlaced or not of 8 bits")
    size = header.height * (1 + channels * header.width)
    inflate = zlib.decompressobj(-15)
    packed, ihdr = bytearray(), b""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        elif kind == b"IHDR":
            ihdr = data[at : at + 12 + length]
        elif kind == b"IEND":
            break
        at += 12 + length
    rows = inflate.decompress(bytes(packed), size)
    if len(rows) < size:
        raise CutError("the image data end early")
    body = zlib.compress(rows, 0)
    del rows
    idat = struct.pack(">I", len(body)) + b"IDAT" + body
    idat += struct.pack(">I", zlib.crc32(body, zlib.crc32(b"IDAT")))
    plain = data[:8] + ihdr + idat + _IEND
    values = _by_opencv(plain, cv2.IMREAD_UNCHANGED)
    if channels == 4:  # stored as BGRA, so that OpenCV's swap gives RGBA; and premultiplied
        unmultiply(values)
        image = on_background(values, cv2.COLOR_RGBA2BGR)
    elif channels == 3:
        image = np.ascontiguousarray(values[..., ::-1])
    else:
        image, _ = from_integers(values, 8, rgb=False)
    return _raster(job, header, image, found)


def _ihdr(data: bytes) -> int:
    """Where IHDR's body starts: behind CgBI in Apple's files."""
    return data.index(b"IHDR", 8, 128) + 4


# --- Pillow ---------------------------------------------------------------------------------------


def read_pillow(job: DecodeJob, header: Header, found: Format) -> Raster:
    """Formats that Pillow reads whole; the header's size is checked by the caller or on opening."""
    data = _whole_png(job, header) if found is Format.PNG else job.data
    opened = load_pillow(_plugin(found), io.BytesIO(data), job)
    if not header.width:
        header = Header(*opened.size)
    if found is Format.AVIF:
        stored = int(opened.getexif().get(ORIENTATION_TAG, 1))
        header = replace(header, orientation=stored if 1 <= stored <= 8 else 1)
    if found is Format.BMP and opened.mode == "RGBA":
        alpha = opened.getchannel("A").getextrema()
        if alpha == (0, 0):
            opened = opened.convert("RGB")  # the fourth byte of many BMPs is filling, not alpha
    image, note = from_pillow(opened)
    return _raster(job, header, image, found, note)


def _plugin(found: Format) -> Callable[[Any], Any]:
    """Pillow's own class for one format.

    Not Image.open: that tries every plug-in there is on hostile bytes.
    """
    name = {Format.PNM: "Ppm", Format.WEBP: "WebP"}.get(found, found.capitalize())
    module = importlib.import_module(f"PIL.{name}ImagePlugin")
    plugin: Callable[[Any], Any] = getattr(module, f"{name}ImageFile")
    return plugin


def load_pillow(plugin: Callable[[Any], Any], file: Any, job: DecodeJob) -> Any:
    """Open with one named plug-in and decode, whatever Pillow's own limit of pixels.

    Args:
        plugin: Class of Pillow's image file.
        file: The encoded image.
        job: What is asked for.
    """
    try:
        return _load(plugin, file, job)
    except Image.DecompressionBombError:
        # The limit is the process's and not ours to change for good.
        with _PILLOW_LIMIT:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                file.seek(0)
                return _load(plugin, file, job)
            finally:
                Image.MAX_IMAGE_PIXELS = limit


def _load(plugin: Callable[[Any], Any], file: Any, job: DecodeJob) -> Any:
    opened = plugin(file)
    job.check(*opened.size)
    buffered = opened.format in ("WEBP", "AVIF")
    per_pixel = _PILLOW_BUFFER_BYTES if buffered else _PILLOW_BYTES
    job.reserve(opened.size, per_pixel, f"a {opened.format}")
    opened.load()
    return opened
