"""Pixels of a TIFF page: by libtiff in Pillow, by tifffile strip by strip, or as a JPEG stream."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from textspot_ray.images import tiff
from textspot_ray.images.formats import Format
from textspot_ray.images.headers import (
    LOSSLESS_JPEG,
    BrokenHeaderError,
    CutError,
    Header,
    jpeg2000_header,
    jpeg_header,
    jpegxl_header,
    jpegxr_size,
    png_size,
    webp_header,
)
from textspot_ray.images.libtiff_messages import libtiff_messages
from textspot_ray.images.pixels import (
    Scale,
    bands,
    cmyk_to_bgr,
    from_pillow,
    integer_scale,
    on_background,
    real_scale,
    unmultiply,
    value_range,
)
from textspot_ray.images.raster import DecodeJob, Raster, RefusedError, check_shape, unsupported
from textspot_ray.images.readers import decode_jpeg_stream, load_pillow
from textspot_ray.images.strips import CHECKED, is_bomb, stream_damage
from textspot_ray.images.table import ImageKind, choose, is_installed
from textspot_ray.images.tiff import (
    OnePageFile,
    TiffChain,
    TiffLayout,
    TiffPage,
    compression_name,
    layout_of,
    tiff_chain,
    without_levels,
)
from textspot_ray.records import ErrorKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

Segment = tuple["NDArray[Any] | None", int, int, int]  # decoded; plane; top, left corner
_PREMULTIPLIED, _PLAIN_ALPHA = 1, 2
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _INKS, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {_MINISWHITE: 1, _MINISBLACK: 1, _RGB: 3, _PALETTE: 1, _INKS: 4, _YCBCR: 3, _LAB: 3}
_SAMPLES = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}
# Codecs of bytes; the others are of pictures.
_BYTE_CODECS = tiff.DEFLATES | {tiff.RAW, tiff.LZW, tiff.PACKBITS, tiff.LZMA, tiff.ZSTD}
_ADVICE = "convert it to PNG first, for example with: convert in.tif out.png"
# Two pages are compared at the smaller one's size, or at this, after a blur of two pixels. Half and
# quarter sizes by area, cubic and linear filters, also as JPEG of quality 75, differ by up to 27
# levels; one other letter makes 40 and more.
_LEVEL_SIDE = 1024
_MAX_DIFFERENCE = 30


def pages_of(job: DecodeJob) -> TiffChain:
    """The pages that are read, in file order; raises as `tiff_chain`."""
    memory = job.memory
    known: TiffChain | None = None if memory is None else memory.found(job.data)
    if known is not None:
        return known
    chain = tiff_chain(job.data, all_levels=job.tiff_levels)
    if not job.tiff_levels and len(chain.pages) > 1:
        kept = without_levels(chain.pages, lambda a, b: _show_the_same(job, a, b))
        chain = TiffChain(kept, chain.fault)
    if memory is not None and len(chain.pages) > 1:
        memory.keep(job.data, chain)
    return chain


def read_tiff_page(job: DecodeJob, page: TiffPage, pages: int) -> Raster:
    """One page by the reader that the table names.

    Args:
        job: What is asked for.
        page: The page's directory.
        pages: How many the file has.

    Raises:
        RefusedError: No library here reads it.
        CutError, BrokenHeaderError: Its data are not there, or are not what they should be.
    """
    layout = layout_of(job.data, page)
    _check_extent(job.data, layout)
    row = choose(kind_of(job.data, page, layout), _advice(layout))
    if row.bytes_per_pixel:
        # Pillow hands libtiff a copy of what is compressed.
        copy = len(job.data) if layout.compression != tiff.RAW else 0
        job.reserve((page.width, page.height), row.bytes_per_pixel, "a TIFF page", beside=copy)
    image, damage, note = READERS[row.reader](job, page, layout)
    check_shape(image, page.width, page.height)
    payload = None
    if layout.compression != tiff.RAW and layout.segments:
        offset, count = max(layout.segments, key=lambda s: s[1])
        payload = memoryview(job.data)[offset : offset + count]
    return Raster(
        image,
        page.width,
        page.height,
        Format.TIFF,
        page.orientation,
        pages,
        damage=damage,
        note=note,
        payload=payload,
    )


def _advice(layout: TiffLayout) -> str:
    if layout.compression in tiff.JBIGS:
        return "convert it first, for example with: tiffcp -c g4 in.tif out.tif"
    return _ADVICE


def kind_of(data: bytes, page: TiffPage, layout: TiffLayout) -> ImageKind:
    """What the directory says of a page, as the table wants it.

    Args:
        data: The file.
        page: The page's directory.
        layout: What it says of the data.
    """
    words = set()
    bits = max(layout.bits)
    samples = _SAMPLES.get(layout.sample_format, "odd")
    if layout.planar:
        words.add("planar")
    if layout.photometric == _INKS and layout.ink_set == 1:
        words.add("cmyk")
    colours = _COLOURS.get(_photometric(layout))
    if colours is None or layout.samples < colours or samples in ("odd", "complex"):
        words.add("odd")
    if layout.photometric == _INKS and layout.ink_set != 1:
        words.add("odd")
    if len(set(layout.bits)) > 1 or bits not in (1, 2, 4, 8, 16, 32, 64):
        words.add("packed")
    if layout.compression in tiff.JPEGS:
        header = _segment_jpeg(data, layout)
        if header is not None and header.process in LOSSLESS_JPEG:
            words.add("lossless")
        if layout.planar:
            words.add("planar-jpeg")  # planes in strips, which libtiff (4.7.2) refuses
    if layout.planar and layout.compression in tiff.WEBPS:
        words.add("odd")  # libtiff writes planes as WebP that it cannot read itself
    if layout.compression == tiff.OLD_JPEG and _old_jpeg(data, layout) is not None:
        words.add("stream")
    return ImageKind(Format.TIFF, layout.compression, bits, samples, frozenset(words))


def _photometric(layout: TiffLayout) -> int:
    if layout.photometric is not None:
        return layout.photometric
    return _RGB if layout.samples >= 3 else _MINISBLACK


def _check_extent(data: bytes, layout: TiffLayout) -> None:
    """Refuse image data behind the end of the file, whichever library would decode it."""
    if not layout.segments and layout.jpeg_stream is None:
        raise BrokenHeaderError("a directory without image data")
    if layout.segments and not any(count for _, count in layout.segments):
        raise BrokenHeaderError(
            "all its strips or tiles are empty: whoever wrote it stopped before the image data"
        )
    # What is not compressed has counts that are wrong in files that are whole; its reader notices.
    last = max(
        (offset + (count if layout.compression != tiff.RAW else 1))
        for offset, count in layout.segments or ((0, 0),)
    )
    if last > len(data):
        raise CutError("the file ends before the image data of this page do")


def _segment_jpeg(data: bytes, layout: TiffLayout) -> Header | None:
    """Header of the first strip's or tile's JPEG, None where it has none."""
    if not layout.segments:
        return None
    offset, count = layout.segments[0]
    with contextlib.suppress(CutError, BrokenHeaderError):
        return jpeg_header(data[offset : offset + count], lambda width, height: None)
    return None


def _jpeg_stream(data: bytes, layout: TiffLayout, number: int) -> bytes:
    """The JPEG of a strip or tile, behind the tables that all of them share."""
    offset, count = layout.segments[number]
    stream = data[offset : offset + count]
    if layout.jpeg_tables:
        return layout.jpeg_tables.removesuffix(b"\xff\xd9") + stream[2:]
    return stream


def _old_jpeg(data: bytes, layout: TiffLayout) -> bytes | None:
    """The whole JPEG stream of an old-style JPEG page (TIFF 6.0, section 22), if there is one."""
    spans = [layout.jpeg_stream] if layout.jpeg_stream else []
    if len(layout.segments) == 1:
        spans.append(layout.segments[0])
    for offset, count in spans:
        stream = data[offset : offset + count] if count else data[offset:]
        if not stream.startswith(b"\xff\xd8"):
            continue
        with contextlib.suppress(CutError, BrokenHeaderError):
            jpeg_header(stream, lambda width, height: None)
            return stream
    return None


# --- readers --------------------------------------------------------------------------------------

_Read = tuple["Pixels", str | None, str | None]


def _by_stream(job: DecodeJob, page: TiffPage, layout: TiffLayout) -> _Read:
    stream = _old_jpeg(job.data, layout)
    assert stream is not None
    header = jpeg_header(stream, job.check)
    if header.channels == 4:
        raise unsupported("old-style JPEG in TIFF with four inks", _ADVICE)
    image, warning = decode_jpeg_stream(stream, "BGR", header)
    return image, warning or header.damage, None


def _by_pillow(job: DecodeJob, page: TiffPage, layout: TiffLayout) -> _Read:
    from PIL import TiffImagePlugin

    file = io.BufferedReader(OnePageFile(job.data, page))
    try:
        with libtiff_messages() as messages:
            opened = load_pillow(TiffImagePlugin.TiffImageFile, file, job)
    except OSError as exc:
        if not messages:
            raise
        raise BrokenHeaderError(messages[0]) from exc
    except (SyntaxError, KeyError) as exc:
        name = compression_name(layout.compression)
        what = f"TIFF ({name}, {layout.samples} samples of {max(layout.bits)} bits: {exc})"
        raise unsupported(what, _ADVICE) from exc
    damage = messages[0] if messages else None
    if len(messages) > 1:
        damage = f"{damage} ({len(messages)} such messages)"
    if layout.compression in tiff.JPEGS and damage is None:
        damage = _jpeg_damage(job, layout)
    if layout.compression in CHECKED and damage is None:
        damage = stream_damage(job.data, page, layout)
    if opened.mode == "LAB":
        return _lab_to_bgr(np.asarray(opened)), damage, None
    image, note = from_pillow(opened)
    return image, damage, note


def _jpeg_damage(job: DecodeJob, layout: TiffLayout) -> str | None:
    """What libjpeg warns of in the strips or tiles, which libtiff keeps to itself.

    They are decoded a second time at an eighth of the size, which costs their entropy coding.
    """
    for number in range(len(layout.segments)):
        stream = _jpeg_stream(job.data, layout, number)
        try:
            header = jpeg_header(stream, job.check)
            if header.channels not in (1, 3) or header.bits != 8:
                return None
            _, warning = decode_jpeg_stream(stream, "GRAY", header, 8)
        except (ValueError, RefusedError):
            continue
        if warning or header.damage:
            return f"{warning or header.damage} (in a strip or tile)"
    return None


def _lab_to_bgr(lab: NDArray[np.uint8]) -> Pixels:
    """CIE L*a*b* of 8 bits as Pillow gives it: a and b as two's complement (TIFF 6.0, 23)."""
    out = np.empty(lab.shape, np.uint8)
    for rows in bands(*lab.shape[:2]):
        part = np.ascontiguousarray(lab[rows]).astype(np.float32)
        part[..., 0] *= 100 / 255
        part[..., 1:] -= 256 * (part[..., 1:] > 127)
        bgr = cv2.cvtColor(part, cv2.COLOR_Lab2BGR)
        out[rows] = np.clip(np.rint(bgr * 255), 0, 255).astype(np.uint8)
    return out


def _by_tifffile(job: DecodeJob, page: TiffPage, layout: TiffLayout) -> _Read:
    """Strip by strip, so that only the result and one strip are in memory at full depth."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its faults reach us as exceptions
    photometric = _photometric(layout)
    colours = _COLOURS[photometric]
    alpha = _alpha_sample(layout, colours)
    item = max(1, -(-max(layout.bits) // 8))
    per_strip = 1 if layout.planar else layout.samples
    strip = layout.segment_rows * layout.segment_columns * per_strip * item
    wide = 4 if colours == 4 or alpha is not None else 3
    job.reserve(
        (page.width, page.height),
        wide + (3 if wide == 4 else 0),
        f"a TIFF page in strips or tiles of {strip / 2**20:.0f} MiB",
        beside=_copies(layout) * strip,
    )
    _check_segments(job, layout)
    with tifffile.TiffFile(io.BufferedReader(OnePageFile(job.data, page))) as file:
        first: Any = file.pages.first
        if (first.imagewidth, first.imagelength) != (page.width, page.height):
            raise BrokenHeaderError("its directory is read in two ways")
        if first.imagedepth != 1:
            raise unsupported("a TIFF volume", _ADVICE)
        planes_of_jpeg = layout.planar and layout.compression in tiff.JPEGS

        def segments() -> Iterator[Segment]:
            return _planes_of_jpeg(job, page, layout) if planes_of_jpeg else _segments(first)

        scale = _guess(segments, layout, photometric)
        chosen = (*range(colours), *([alpha] if alpha is not None else []))
        size = (page.height, page.width)
        out, high = _fill(segments, size, layout, chosen, colours, scale)
        better = _better(layout, photometric, scale, high)
        if better is not None:
            scale = better
            out, _ = _fill(segments, size, layout, chosen, colours, scale)
        palette = first.colormap if photometric == _PALETTE else None
    if photometric in (_RGB, _YCBCR):
        photometric = _YCBCR if _is_ycbcr(job.data, layout) else _RGB
    image = _to_bgr(out, photometric, layout, palette)
    if image.shape[2] == 4:
        if layout.extra[:1] == (_PREMULTIPLIED,):
            unmultiply(image)
        image = on_background(image)
    holes = sum(not count for _, count in layout.segments)
    damage = None
    if holes:
        damage = f"{holes} of {len(layout.segments)} strips or tiles are empty and come out black"
    return np.ascontiguousarray(image), damage, scale.note


def _is_ycbcr(data: bytes, layout: TiffLayout) -> bool:
    """Whether samples of three colours are luma and chroma once the codec has decoded them.

    The JPEG decoders convert. JPEG 2000 streams do so if they were made with its own transform;
    without, Aperio's 33003 is YCbCr. So is 33004 of libvips (8.14), which converts and then has
    the codec transform again, while the directory says RGB; Bio-Formats' 33004 is RGB.
    """
    if layout.compression in tiff.JPEGS:
        return False
    if layout.compression == tiff.JPEG2000_LOSSY:
        return layout.samples == 3 and b"OME" not in data[:65_536] + data[-65_536:]
    if layout.compression in tiff.JPEG2000S:
        offset, count = next(s for s in layout.segments if s[1])
        if jpeg2000_header(data[offset : offset + count]).colour_transform:
            return False
        if layout.compression == tiff.APERIO_YCBCR:
            return layout.samples == 3
        if layout.compression == tiff.APERIO_RGB:
            return False
    return layout.photometric == _YCBCR


def _copies(layout: TiffLayout) -> float:
    """How many times a decoded strip or tile is in memory while tifffile makes it."""
    if layout.compression in tiff.JPEG2000S:
        return 9.0  # OpenJPEG: 32 bits per sample, twice
    if layout.compression not in _BYTE_CODECS:
        return 4.0  # a picture codec, some of which work in floats
    plain = layout.predictor == 1 and set(layout.bits) <= {8, 16, 32}
    return 1.1 if plain and not layout.big_endian else 3.0


def _alpha_sample(layout: TiffLayout, colours: int) -> int | None:
    """Number of the sample that is opacity."""
    if layout.samples <= colours or layout.photometric in (_PALETTE, _LAB):
        return None
    for number, meaning in enumerate(layout.extra):
        if meaning in (_PREMULTIPLIED, _PLAIN_ALPHA) and colours + number < layout.samples:
            return colours + number
    return None


def _planes_of_jpeg(job: DecodeJob, page: TiffPage, layout: TiffLayout) -> Iterator[Segment]:
    """As `_segments`, of strips and tiles that are grey JPEGs, a plane each."""
    across = -(-page.width // max(layout.segment_columns, 1))
    down = -(-page.height // max(layout.segment_rows, 1))
    for number, (_, count) in enumerate(layout.segments):
        plane, place = divmod(number, across * down)
        if plane >= layout.samples:
            return
        top = place // across * layout.segment_rows
        left = place % across * layout.segment_columns
        if not count:
            yield None, plane, top, left
            continue
        stream = _jpeg_stream(job.data, layout, number)
        header = jpeg_header(stream, job.check)
        high = min(layout.segment_rows, page.height - top)
        wide = min(layout.segment_columns, page.width - left)
        if header.channels != 1 or header.width < wide or header.height < high:
            raise unsupported("TIFF with planes of subsampled JPEG", _ADVICE)
        pixels, _ = decode_jpeg_stream(stream, "GRAY", header)
        yield pixels.reshape(header.height, header.width, 1), plane, top, left


def _segments(first: Any) -> Iterator[Segment]:
    """Decoded strips or tiles: rows x columns x samples, plane, and the top left corner."""
    for segment, where, _ in first.segments(maxworkers=1):
        plane, depth, top, left, _ = where
        if depth:
            continue
        yield (None if segment is None else segment[0]), plane, top, left


def _guess(
    segments: Callable[[], Iterator[Segment]], layout: TiffLayout, photometric: int
) -> Scale:
    """Scale by what is declared; reals and signed numbers need a look at all values first."""
    bits = max(layout.bits)
    if photometric == _PALETTE:
        return Scale(0)
    if layout.sample_format == 1 or layout.sample_format == 4:
        if bits < 8:
            return Scale(None, 0.0, 255 / ((1 << bits) - 1))
        return Scale(bits - 8)
    low, high = math.inf, -math.inf
    colours = _COLOURS[photometric]
    for segment, plane, _, _ in segments():
        if segment is None or (layout.planar and plane >= colours):
            continue
        values = segment if layout.planar else segment[..., :colours]
        small, large = value_range(values)
        low, high = min(low, small), max(high, large)
    if low > high:
        low = high = 0
    if layout.sample_format == 3:
        return real_scale(low, high)
    return integer_scale(bits, int(low), int(high), signed=True)


def _better(layout: TiffLayout, photometric: int, scale: Scale, high: int) -> Scale | None:
    """Another scale where unsigned values fill less than a quarter of what is declared."""
    bits = max(layout.bits)
    if layout.sample_format not in (1, 4) or photometric == _PALETTE or bits <= 8 or bits % 8:
        return None
    found = integer_scale(bits, 0, high)
    return None if found.shift == scale.shift else found


def _fill(
    segments: Callable[[], Iterator[Segment]],
    size: tuple[int, int],
    layout: TiffLayout,
    chosen: tuple[int, ...],
    colours: int,
    scale: Scale,
) -> tuple[Pixels, int]:
    """All samples that are wanted as 8 bits, and the largest colour value that was stored.

    Args:
        segments: Decodes the strips or tiles, from the first one.
        size: Height and width of the page.
        layout: How it is stored.
        chosen: Samples, colours first.
        colours: How many of them are colours.
        scale: Of the colours; opacity is always taken as declared.
    """
    height, width = size
    out = np.zeros((height, width, len(chosen)), np.uint8)
    place = {sample: index for index, sample in enumerate(chosen)}
    bits = max(layout.bits)
    opacity = (
        Scale(None, 0.0, 255.0)
        if layout.sample_format == 3
        else (Scale(bits - (layout.sample_format == 2) - 8) if bits >= 8 else scale)
    )
    high = 0
    for segment, plane, top, left in segments():
        if segment is None:
            continue  # a hole, which stands for zeros
        part = segment[: height - top, : width - left]
        rows = slice(top, top + part.shape[0])
        columns = slice(left, left + part.shape[1])
        if part.ndim != 3 or part.shape[0] == 0 or part.shape[1] == 0:
            raise BrokenHeaderError("a strip or tile of another shape")
        for sample in (plane,) if layout.planar else chosen:
            if sample not in place:
                continue
            index = place[sample]
            if not layout.planar and sample >= part.shape[2]:
                raise BrokenHeaderError("a strip or tile with too few samples")
            values = part[..., 0 if layout.planar else sample]
            if index < colours and values.dtype.kind == "u":
                high = max(high, int(values.max()))
            target = out[rows, columns, index]
            for band in bands(*values.shape):
                target[band] = (scale if index < colours else opacity).apply(values[band])
    return out, high


def _to_bgr(
    out: Pixels,
    photometric: int,
    layout: TiffLayout,
    palette: NDArray[np.uint16] | None,
) -> Pixels:
    """Samples of 8 bits as BGR, or BGRA where there is opacity."""
    height, width, channels = out.shape
    colours = _COLOURS[photometric]
    if photometric == _MINISWHITE:
        out[..., 0] = 255 - out[..., 0]
    if photometric in (_MINISWHITE, _MINISBLACK, _PALETTE):
        if palette is not None:
            table = palette.T.astype(np.uint16)
            if int(table.max()) > 255:
                table >>= 8
            image: Pixels = table.astype(np.uint8)[np.minimum(out[..., 0], len(table) - 1)][
                ..., ::-1
            ]
            return image
        if channels == colours:
            return np.asarray(cv2.cvtColor(out[..., 0], cv2.COLOR_GRAY2BGR), np.uint8)
        return np.dstack([out[..., 0]] * 3 + [out[..., 1]])
    if photometric == _INKS:
        image = np.empty((height, width, 3), np.uint8)
        cmyk_to_bgr(out[..., :4], image)
        return image if channels == 4 else np.dstack([image, out[..., 4]])
    if photometric == _LAB:
        return _lab_to_bgr(out)
    if photometric == _YCBCR:
        for rows in bands(height, width):
            ycc = np.ascontiguousarray(out[rows][..., [0, 2, 1]])
            out[rows][..., :3] = cv2.cvtColor(ycc, cv2.COLOR_YCrCb2BGR)
        return out
    for rows in bands(height, width):  # in place: a swap needs no second image
        out[rows][..., :3] = out[rows][..., 2::-1].copy()
    return out


def _check_segments(job: DecodeJob, layout: TiffLayout) -> None:
    """Refuse strips and tiles that are pictures of their own, far larger than they may be.

    Their decoders go by what stands in the strip, not by what the directory says.
    """
    limit = max(4 * layout.segment_rows * layout.segment_columns, 1 << 22)
    if not is_installed("imagecodecs"):  # which holds its decoders to the size of a strip
        area = layout.segment_rows * layout.segment_columns
        samples = 1 if layout.planar else layout.samples
        most_bytes = max(area * samples * max(1, -(-max(layout.bits) // 8)), 1 << 22)
        for offset, count in layout.segments:
            if is_bomb(job.data[offset : offset + count], layout.compression, most_bytes):
                raise RefusedError(
                    ErrorKind.TOO_LARGE,
                    f"a strip or tile that unpacks to more than {most_bytes / 2**20:,.0f} MiB",
                )

    def check(width: int, height: int) -> None:
        if width * height > limit:
            raise RefusedError(
                ErrorKind.TOO_LARGE, f"a strip or tile that claims {width} x {height} pixels"
            )

    for offset, count in layout.segments:
        data = job.data[offset : offset + min(count, 1 << 20)]
        if offset + count > len(job.data):
            raise CutError("the file ends inside its image data")
        with contextlib.suppress(CutError, BrokenHeaderError):
            if layout.compression in tiff.JPEGS:
                jpeg_header(data, check)
            elif layout.compression in tiff.JPEG2000S:
                header = jpeg2000_header(data)
                check(*header.size)
            elif layout.compression == tiff.PNG:
                check(*png_size(data))
            elif layout.compression in tiff.WEBPS:
                header = webp_header(job.data[offset : offset + count])
                check(*header.size)
            elif layout.compression in tiff.JPEGXLS:
                header = jpegxl_header(data)
                check(*header.size)
                if header.animated:  # all its frames would be decoded
                    raise unsupported("TIFF with an animation in a strip or tile", _ADVICE)
            elif layout.compression == tiff.JPEGXR:
                check(*jpegxr_size(data))
            else:
                return


def _show_the_same(job: DecodeJob, a: TiffPage, b: TiffPage) -> bool:
    """Whether two pages show the same picture at different sizes."""
    small = []
    side = (
        min(_LEVEL_SIDE, a.width, b.width),
        min(_LEVEL_SIDE, a.height, b.height),
    )
    for page in (a, b):
        try:
            job.check(page.width, page.height)
            image = read_tiff_page(job, page, 1).image
        except Exception:  # such a page is reported when it is read itself
            return False
        resized = cv2.resize(image, side, interpolation=cv2.INTER_AREA)
        small.append(cv2.GaussianBlur(resized, (0, 0), 2.0).astype(np.int16))
    return int(np.abs(small[0] - small[1]).max()) <= _MAX_DIFFERENCE


READERS = {
    "simplejpeg, stream in a TIFF": _by_stream,
    "Pillow, TIFF": _by_pillow,
    "tifffile": _by_tifffile,
}
