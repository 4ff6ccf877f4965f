from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from textspot_ray.images import table, tiff_reader
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.images.raster import FileMemory
from textspot_ray.images.tiff import TiffChain, tiff_chain
from textspot_ray.records import ErrorKind, ImageError, Stage

MAX = 200_000_000


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """Four quarters of known colour: red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 10, 10)
    pixels[: height // 2, width // 2 :] = (10, 200, 10)
    pixels[height // 2 :, : width // 2] = (10, 10, 210)
    pixels[height // 2 :, width // 2 :] = 255
    return Image.fromarray(pixels)


def photo(width: int = 160, height: int = 120) -> Image.Image:
    noise = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(cv2.GaussianBlur(noise, (5, 5), 0))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def good(data: bytes, **options: Any) -> Decoded:
    result = decode(data, max_pixels=options.pop("max_pixels", MAX), **options)
    assert isinstance(result, Decoded), result
    image = result.image
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image.flags.c_contiguous
    return result


def bad(data: bytes, kind: ErrorKind, **options: Any) -> str:
    result = decode(data, max_pixels=options.pop("max_pixels", MAX), **options)
    assert isinstance(result, ImageError), "decoded"
    assert (result.stage, result.kind) == (Stage.DECODE, kind), result
    assert "\n" not in result.message
    return result.message


def corners(image: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """Colours (RGB, rounded to 0/255) near the four corners, clockwise from the top left."""
    height, width = image.shape[:2]
    spots = [(2, 2), (2, width - 3), (height - 3, width - 3), (height - 3, 2)]
    return [tuple(255 if c > 127 else 0 for c in image[y, x, ::-1].tolist()) for y, x in spots]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
UPRIGHT = [RED, GREEN, WHITE, BLUE]


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("JPEG", {"quality": 95}, "jpeg"),
        ("JPEG", {"quality": 95, "progressive": True}, "jpeg"),
        ("PNG", {}, "png"),
        ("WEBP", {"quality": 95}, "webp"),
        ("WEBP", {"lossless": True}, "webp"),
        ("BMP", {}, "bmp"),
        ("TIFF", {}, "tiff"),
        ("TIFF", {"compression": "tiff_lzw"}, "tiff"),
        ("TIFF", {"compression": "jpeg"}, "tiff"),
        ("GIF", {}, "gif"),
        ("JPEG2000", {}, "jpeg2000"),
        ("JPEG2000", {"no_jp2": True}, "jpeg2000"),
    ],
)
def test_formats(kind: str, options: dict[str, Any], name: str) -> None:
    result = good(encode(scene(), kind, **options))
    assert corners(result.image) == UPRIGHT
    assert (result.width, result.height, result.format, result.pages) == (120, 80, name, 1)
    assert (result.scale_x, result.scale_y, result.exif_orientation) == (1.0, 1.0, 1)


STORED = {  # what to do with the upright scene to get what a camera stores for each orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def oriented(kind: str, orientation: int, size: tuple[int, int] = (120, 80)) -> bytes:
    transpose = STORED[orientation]
    image = scene(*size)
    if transpose is not None:
        image = image.transpose(transpose)
    if kind == "TIFF":
        return encode(image, kind, tiffinfo={0x0112: orientation}, compression="tiff_lzw")
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_recorded(kind: str, orientation: int) -> None:
    result = good(oriented(kind, orientation))
    assert corners(result.image) == UPRIGHT
    assert result.image.shape == (80, 120, 3)
    assert (result.width, result.height, result.exif_orientation) == (120, 80, orientation)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("fit", "divisor"), [((120, 80), 8), ((121, 80), 4), ((480, 320), 2), ((481, 1), 1)]
)
def test_reduced_jpeg_stays_at_least_fit(
    orientation: int, fit: tuple[int, int], divisor: int
) -> None:
    result = good(oriented("JPEG", orientation, (960, 640)), fit=fit)
    assert (result.width, result.height) == (960, 640)
    assert result.image.shape[:2] == (640 // divisor, 960 // divisor)
    assert result.scale_x == result.scale_y == 1 / divisor
    assert corners(result.image) == UPRIGHT


def test_reduced_odd_sizes_report_the_true_scale() -> None:
    result = good(encode(photo(1001, 777), "JPEG"), fit=(100, 50))
    assert result.image.shape[:2] == (98, 126)
    assert result.scale_x == 126 / 1001
    assert result.scale_y == 98 / 777


def test_reduced_jpeg2000_and_one_without_enough_levels() -> None:
    data = encode(scene(960, 640), "JPEG2000", num_resolutions=6)
    assert good(data, fit=(240, 160)).image.shape == (160, 240, 3)
    data = encode(scene(960, 640), "JPEG2000", num_resolutions=2)
    result = good(data, fit=(100, 100))
    assert result.image.shape == (320, 480, 3)
    assert corners(result.image) == UPRIGHT


def test_grey_palette_bilevel_and_sixteen_bits() -> None:
    grey = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (64, 1))
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF"):
        image = good(encode(Image.fromarray(grey), kind)).image
        assert np.abs(image[..., 1].astype(int) - grey).max() <= 3
    deep = (np.arange(65536, dtype=np.uint16)).reshape(256, 256)
    for suffix in (".png", ".tif"):
        for pixels in (deep, np.dstack([deep] * 3)):
            data = cv2.imencode(suffix, pixels)[1].tobytes()
            assert np.array_equal(good(data).image[..., 0], (deep >> 8).astype(np.uint8))
    assert corners(good(encode(scene().quantize(8), "PNG")).image) == UPRIGHT
    bits = Image.new("1", (40, 40), 1)
    for kind in ("PNG", "TIFF", "BMP"):
        assert good(encode(bits, kind)).image.min() == 255
    assert good(encode(bits, "TIFF", compression="group4")).image.min() == 255


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[:, 20:40] = (255, 0, 0, 255)
    rgba[:, 40:] = (0, 0, 0, 128)
    image = Image.fromarray(rgba)
    for kind in ("PNG", "TIFF", "WEBP"):
        result = good(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {}))).image
        assert result[20, 10].tolist() == [255, 255, 255]
        assert result[20, 30].tolist() == [0, 0, 255]
        assert result[20, 50].tolist() == [127, 127, 127]
    grey_alpha = Image.merge("LA", (Image.new("L", (9, 9), 0), Image.new("L", (9, 9), 0)))
    assert good(encode(grey_alpha, "PNG")).image.min() == 255
    palette = Image.new("P", (9, 9), 3)
    palette.putpalette([0] * 768)
    for kind in ("PNG", "GIF"):
        assert good(encode(palette, kind, transparency=3)).image.min() == 255
    deep = np.zeros((9, 9, 4), np.uint16)
    assert good(cv2.imencode(".png", deep)[1].tobytes()).image.min() == 255
    opaque = encode(scene().convert("RGBA"), "PNG")
    assert corners(good(opaque).image) == UPRIGHT


def test_bmp_whose_fourth_byte_is_filling_is_not_blank() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 200
    data = bytearray(encode(Image.fromarray(rgba), "BMP"))
    assert good(bytes(data)).image[4, 4].tolist() == [0, 0, 200]


def test_cmyk_with_and_without_adobe_marker() -> None:
    cmyk = scene().convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data
    assert corners(good(data).image) == UPRIGHT
    at = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    inverted = Image.merge("CMYK", [b.point(lambda v: 255 - v) for b in cmyk.split()])
    plain = encode(inverted, "JPEG", quality=95)
    plain = plain[:at] + plain[at + 2 + length :]
    assert corners(good(plain).image) == UPRIGHT
    assert corners(good(encode(cmyk, "TIFF")).image) == UPRIGHT
    large = encode(scene(960, 640).convert("CMYK"), "JPEG")
    reduced = good(large, fit=(240, 160))
    assert reduced.image.shape == (160, 240, 3)
    assert corners(reduced.image) == UPRIGHT


def test_float_tiff_with_nan_has_an_image() -> None:
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[0, 0] = np.nan
    result = good(encode(Image.fromarray(values), "TIFF")).image
    assert result[0, 0, 0] == 0 and result[-1, -1, 0] == 255


def test_pages_of_a_tiff() -> None:
    pages = [Image.new("RGB", (50 + i, 40), (i * 40, 0, 0)) for i in range(5)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    for i in range(5):
        result = good(data, page=i)
        assert (result.width, result.pages) == (50 + i, 5)
        assert result.image[5, 5].tolist() == [0, 0, i * 40]
    bad(data, ErrorKind.CORRUPT, page=5)
    bad(encode(scene(), "PNG"), ErrorKind.CORRUPT, page=1)


def test_directories_that_loop_give_the_pages_before_and_one_error() -> None:
    data = bytearray(encode(scene(), "TIFF"))
    page = tiff_chain(bytes(data)).pages[0]
    (count,) = struct.unpack_from("<H", data, page.offset)
    struct.pack_into("<I", data, page.offset + 2 + 12 * count, page.offset)
    result = good(bytes(data))
    assert result.pages == 2 and corners(result.image) == UPRIGHT
    assert "loop" in bad(bytes(data), ErrorKind.CORRUPT, page=1)
    bad(bytes(data), ErrorKind.CORRUPT, page=2)


def test_first_frame_of_animations() -> None:
    frames = [scene(), Image.new("RGB", (120, 80), (0, 0, 0))]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        result = good(data)
        assert corners(result.image) == UPRIGHT
        assert result.pages == 1


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bomb(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


def test_header_bombs_are_refused_before_decoding() -> None:
    message = bad(png_bomb(60_000, 60_000), ErrorKind.TOO_LARGE)
    assert "60000 x 60000" in message and "200 Mpx" in message
    jpeg = bytearray(encode(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    bad(bytes(jpeg), ErrorKind.TOO_LARGE)
    bad(bytes(jpeg[: at + 40]), ErrorKind.TOO_LARGE)
    gif = bytearray(encode(scene(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_000, 65_000)
    bad(bytes(gif), ErrorKind.TOO_LARGE)
    bmp = bytearray(encode(scene(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    bad(bytes(bmp), ErrorKind.TOO_LARGE)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000"):
        bad(encode(scene(), kind), ErrorKind.TOO_LARGE, max_pixels=120 * 80 - 1)
        good(encode(scene(), kind), max_pixels=120 * 80)
    bad(png_bomb(0, 10), ErrorKind.CORRUPT)


def test_an_icon_is_checked_by_its_own_header() -> None:
    def icon(data: bytes) -> bytes:  # the directory cannot say more than 256 pixels
        entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(data), 22)
        return struct.pack("<HHH", 0, 1, 1) + entry + data

    assert "60000 x 60000" in bad(icon(png_bomb(60_000, 60_000)), ErrorKind.TOO_LARGE)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 50_000, 100_000, 1, 32, 0, 0, 0, 0, 0, 0)
    bad(icon(bitmap), ErrorKind.TOO_LARGE)
    picture = encode(scene(), "PNG")
    bad(icon(picture), ErrorKind.TOO_LARGE, max_pixels=120 * 80 - 1)
    assert good(icon(picture), max_pixels=120 * 80).width == 120


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_jpeg_xl_is_checked_however_its_stream_is_cut() -> None:
    codecs = pytest.importorskip("imagecodecs")
    stream = codecs.jpegxl_encode(np.zeros((300, 700, 3), np.uint8), effort=1)
    assert stream.startswith(b"\xff\x0a")
    start = b"\0\0\0\x0cJXL \r\n\x87\n" + _box(b"ftyp", b"jxl \0\0\0\0jxl ")
    for cuts in ((1,), (2,), (3, 5), (2, 3, 4, 5, 6)):
        edges = [0, *cuts, len(stream)]
        parts = [stream[a:b] for a, b in itertools.pairwise(edges)]
        data = start
        for number, part in enumerate(parts):
            last = 0x80000000 if number == len(parts) - 1 else 0
            data += _box(b"jxlp", struct.pack(">I", number | last) + part)
        result = good(data, max_pixels=300 * 700)
        assert (result.width, result.height) == (700, 300)
        bad(data, ErrorKind.TOO_LARGE, max_pixels=300 * 700 - 1)


def test_of_a_jpeg_xl_animation_one_frame_is_decoded() -> None:
    codecs = pytest.importorskip("imagecodecs")
    frames = np.zeros((60, 200, 300, 3), np.uint8)
    frames[0], frames[1:] = 40, 200
    data = codecs.jpegxl_encode(frames, effort=1)
    tracemalloc.start()
    try:
        result = good(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.image.shape == (200, 300, 3) and abs(int(result.image.mean()) - 40) < 3
    assert peak < frames.nbytes / 4


def test_jpeg_xr_is_checked_by_its_code_stream() -> None:
    codecs = pytest.importorskip("imagecodecs")
    data = bytearray(codecs.jpegxr_encode(np.zeros((300, 700, 3), np.uint8), level=80))
    at = int.from_bytes(data[4:8], "little")
    for number in range(int.from_bytes(data[at : at + 2], "little")):
        entry = at + 2 + 12 * number
        if struct.unpack_from("<H", data, entry)[0] in (0xBC80, 0xBC81):
            struct.pack_into("<I", data, entry + 8, 16)
    assert good(bytes(data), max_pixels=300 * 700).width == 700
    bad(bytes(data), ErrorKind.TOO_LARGE, max_pixels=300 * 700 - 1)


def test_pillows_own_limit_neither_counts_nor_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("TIFF", "GIF", "BMP", "JPEG2000"):
        good(encode(scene(), kind))
        bad(encode(scene(), kind), ErrorKind.TOO_LARGE, max_pixels=9000)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("size", [(1, 1), (20, 8000), (8000, 20), (7, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_odd_shapes(size: tuple[int, int], kind: str) -> None:
    result = good(encode(Image.new("RGB", size, (255, 255, 255)), kind), fit=(1280, 768))
    assert result.image.shape == (size[1], size[0], 3)
    assert result.image.min() >= 253


CUTTABLE = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"restart_marker_rows": 1}),
    ("JPEG", {"optimize": True, "subsampling": 0}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize(("kind", "options"), CUTTABLE)
def test_cut_files_are_told_wherever_they_are_cut(kind: str, options: dict[str, Any]) -> None:
    data = encode(photo(), kind, **options)
    cuts = [*range(1, 51), *range(51, len(data), max(1, len(data) // 150))]
    for cut in cuts:
        result = decode(data[:-cut], max_pixels=MAX)
        if isinstance(result, Decoded):
            assert result.damage, f"{cut} bytes cut off were not noticed"
            assert "\n" not in result.damage
            assert kind == "JPEG" or cut <= 12, "half a picture of a format that has no filling"
        else:
            kinds = (ErrorKind.TRUNCATED, ErrorKind.CORRUPT, ErrorKind.NOT_AN_IMAGE)
            assert result.kind in kinds
    if kind == "JPEG" and "progressive" not in options:  # what libjpeg fills is read
        assert "filling" in (good(data[: len(data) * 2 // 3]).damage or "")
    elif kind in ("PNG", "WEBP", "JPEG2000", "BMP"):
        bad(data[: len(data) // 2], ErrorKind.TRUNCATED)


def test_whole_files_have_no_damage() -> None:
    for kind, options in CUTTABLE:
        assert good(encode(photo(), kind, **options)).damage is None


def test_cut_gif_never_gives_less_than_the_whole_frame() -> None:
    data = encode(photo().quantize(), "GIF")
    whole = good(data).image
    for cut in range(1, len(data) - 6, 7):
        result = decode(data[:-cut], max_pixels=MAX)
        if isinstance(result, Decoded):
            assert cut <= 2 and np.array_equal(result.image, whole)


def test_cut_jpeg_whose_thumbnail_has_an_end_marker() -> None:
    thumbnail = encode(scene(16, 16), "JPEG")
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail
    data = encode(photo(), "JPEG", exif=exif)
    assert data.count(b"\xff\xd9") == 2
    assert good(data).damage is None
    assert good(data[: len(data) // 2 + len(thumbnail)]).damage
    bad(data[: len(thumbnail)], ErrorKind.TRUNCATED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_bytes_behind_the_end_do_not_matter(kind: str) -> None:
    data = encode(photo(), kind)
    whole = good(data).image
    for tail in (b"\0" * 3, b"junk" * 1000, data):
        assert np.array_equal(good(data + tail).image, whole)


def test_files_made_to_keep_us_busy_are_refused_soon() -> None:
    import time

    jpeg = encode(scene(), "JPEG", progressive=True)
    first, end = jpeg.index(b"\xff\xda"), len(jpeg) - 2
    png = encode(scene(), "PNG")
    files = [
        jpeg[:first] + jpeg[first:end] * 600 + jpeg[end:],
        jpeg[:2] + b"\xff" * 20_000_000 + jpeg[2:],
        jpeg[:2] + b"\xff\xfe\0\x02" * 5_000_000 + jpeg[2:],
        png[:33] + chunk(b"teXt", b"") * 2_000_000 + png[33:],
        b"RIFF" + struct.pack("<I", 24_000_004) + b"WEBP" + b"XXXX\0\0\0\0" * 3_000_000,
    ]
    for data in files:
        start = time.thread_time()
        result = decode(data, max_pixels=MAX)
        assert time.thread_time() - start < 10
        if data is not files[1]:
            assert isinstance(result, ImageError) and result.kind is ErrorKind.CORRUPT


def test_big_tiff_with_orientation() -> None:
    stored = scene().transpose(Image.Transpose.ROTATE_90)
    data = encode(stored, "TIFF", big_tiff=True, tiffinfo={0x0112: 6})
    assert data[2] == 43
    result = good(data)
    assert (result.pages, result.exif_orientation) == (1, 6)
    assert corners(result.image) == UPRIGHT


def test_second_picture_behind_the_first_is_left_alone() -> None:
    data = encode(scene(), "MPO", save_all=True, append_images=[photo()])
    result = good(data)
    assert (result.format, result.pages) == ("jpeg", 1)
    assert corners(result.image) == UPRIGHT


def test_flipped_byte_in_png_data_is_corrupt() -> None:
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 0x40
    assert "checksum" in bad(bytes(data), ErrorKind.CORRUPT)


def test_png_with_too_little_data_is_an_error() -> None:
    bad(png_bomb(1000, 1000), ErrorKind.CORRUPT)


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"", ErrorKind.EMPTY_FILE, "empty"),
        (b"just some words\n" * 20, ErrorKind.NOT_AN_IMAGE, "text"),
        (b"<!DOCTYPE html><html>404</html>", ErrorKind.NOT_AN_IMAGE, "HTML"),
        (b'{"error": "not found"}', ErrorKind.NOT_AN_IMAGE, "JSON"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            ErrorKind.NOT_AN_IMAGE,
            "git lfs pull",
        ),
        (bytes(5000), ErrorKind.CORRUPT, "zero bytes"),
        (bytes(range(256)) * 4, ErrorKind.NOT_AN_IMAGE, "unknown"),
        (b"8BPS\0\x02", ErrorKind.UNSUPPORTED, "PSB"),
        (b"AT&TFORM\0\0", ErrorKind.UNSUPPORTED, "ddjvu"),
        (b"<?xml version='1.0'?>\n<svg xmlns=''></svg>", ErrorKind.UNSUPPORTED, "SVG"),
        (b"\xff\xd8\xff", ErrorKind.TRUNCATED, "jpeg"),
        (b"\xff\xd8\xff\xd9", ErrorKind.CORRUPT, "jpeg"),
    ],
)
def test_what_is_no_image_is_told_apart(data: bytes, kind: ErrorKind, says: str) -> None:
    assert says in bad(data, kind)


def test_what_an_extra_reads_is_refused_by_its_name_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "is_installed", lambda module: False)
    jpeg = bytearray(encode(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 4] = 12
    twelve = bytes(jpeg)
    jpeg[at + 4], jpeg[at + 1] = 8, 0xC3
    for data, says, extra in (
        (twelve, "12-bit JPEG", "[tiff]"),
        (bytes(jpeg), "lossless JPEG", "[tiff]"),
        (b"%PDF-1.7\n%....", "PDF", "[pdf]"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIF", "[heif]"),
        (b"\xff\x0a" + bytes(20), "JPEG XL", "[jxl]"),
        (b"II\xbc\x01" + bytes(20), "JPEG XR", "[tiff]"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "RAW", "[raw]"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "RAW", "[raw]"),
        (b"FUJIFILMCCD-RAW 0201", "RAW", "[raw]"),
    ):
        message = bad(data, ErrorKind.UNSUPPORTED)
        assert says in message and f"textspot-ray{extra}" in message, message
    avif = bad(b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", ErrorKind.UNSUPPORTED)
    assert "AVIF" in avif


def test_decoding_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    for kind, options in CUTTABLE:
        data = encode(photo(), kind, **options)
        decode(data[: len(data) // 2], max_pixels=MAX)
        decode(data[:-3], max_pixels=MAX)
    assert capfd.readouterr() == ("", "")


SEEDS = [
    encode(photo(64, 48), kind, **options)
    for kind, options in [*CUTTABLE, ("GIF", {}), ("TIFF", {"compression": "jpeg"})]
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, len(SEEDS) - 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
    page=st.integers(0, 2),
    fit=st.sampled_from([None, (16, 12), (1, 1)]),
)
def test_damaged_files_never_raise(
    seed: int, flips: list[tuple[float, int]], cut: float, page: int, fit: tuple[int, int] | None
) -> None:
    data = bytearray(SEEDS[seed])
    for where, value in flips:
        # Half of all damage in the first 100 bytes, where headers are.
        span = min(100, len(data)) if value % 2 else len(data)
        data[int(where * (span - 1))] = value
    data = data[: max(1, int(len(data) * max(cut, 0.05)))] if cut < 0.5 else data
    result = decode(bytes(data), page=page, max_pixels=10_000_000, fit=fit)
    if isinstance(result, Decoded):
        assert result.image.shape[2] == 3
        assert result.width * result.height <= 10_000_000


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"II*\0", b"MM\0+", b"GIF89a", b"\x89PNG\r\n\x1a\n"]),
    st.binary(max_size=400),
)
def test_random_bytes_never_raise(magic: bytes, tail: bytes) -> None:
    assert isinstance(decode(magic + tail, max_pixels=MAX), (Decoded, ImageError))


def test_the_directories_of_a_tiff_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(shades: range) -> bytes:
        pages = [Image.new("L", (40, 30), shade) for shade in shades]
        file = io.BytesIO()
        pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
        return file.getvalue()

    looks = 0
    real = tiff_reader.tiff_chain

    def counted(data: bytes, **options: bool) -> TiffChain:
        nonlocal looks
        looks += 1
        return real(data, **options)

    monkeypatch.setattr(tiff_reader, "tiff_chain", counted)
    memory = FileMemory()
    files = [make(range(0, 60)), make(range(100, 160))]
    for _ in range(2):
        for data in files:
            for page in range(60):
                found = decode(data, page=page, max_pixels=10_000, memory=memory)
                assert isinstance(found, Decoded) and found.pages == 60
                assert found.image[0, 0, 0] == page + (100 if data is files[1] else 0)
    assert looks == 4
    single = make(range(1))
    decode(single, max_pixels=10_000, memory=memory)
    assert memory.found(files[1]) is None  # another file's bytes are not held on to
