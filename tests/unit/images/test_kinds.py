"""A small part of the compatibility matrix (jobs/compat), from generators alone."""

from __future__ import annotations

import io
import lzma
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.compat import jpeg2000_kinds, png_kinds, tiff_kinds, tiff_tools
from jobs.compat import judge as compat_judge
from jobs.compat.judge import Made, judge
from jobs.compat.other_kinds import bitmap, digital_negative, exif_block, scan_pdf
from jobs.compat.pictures import words
from jobs.compat.registry import Verdict
from textspot_ray.images import tiff_reader
from textspot_ray.images.decode import READERS, Decoded, decode
from textspot_ray.images.formats import Format
from textspot_ray.images.pixels import real_scale
from textspot_ray.images.table import TABLE
from textspot_ray.records import ErrorKind, ImageError

MAX = 200_000_000
imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def _no_second_opinions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders that happen to be installed have no say in what is right."""
    monkeypatch.setattr(compat_judge, "second_opinions", lambda *_: [])


def read(data: bytes, **options: Any) -> Decoded:
    result = decode(data, max_pixels=MAX, **options)
    assert isinstance(result, Decoded), result
    return result


def refused(data: bytes, kind: ErrorKind, **options: Any) -> str:
    result = decode(data, max_pixels=MAX, **options)
    assert isinstance(result, ImageError) and result.kind is kind, result
    return result.message


def is_right(made: Made) -> None:
    cell = judge(made)
    assert cell.verdict is Verdict.RIGHT, cell


def test_every_format_has_a_row_and_every_reader_a_function_and_a_row() -> None:
    assert set(TABLE) == set(Format)
    of_tiff = {row.reader for row in TABLE[Format.TIFF]}
    others = {row.reader for found in set(Format) - {Format.TIFF} for row in TABLE[found]}
    assert of_tiff == set(tiff_reader.READERS) and others == set(READERS)


def test_some_tiffs_of_the_matrix() -> None:
    made = list(tiff_kinds.tifffile_kinds(every=13))
    assert len(made) > 60 and len({one.kind for one in made}) > 20
    for one in made:
        is_right(one)


def test_pngs_of_every_layout(tmp_path: Path) -> None:
    made = [one for one in png_kinds.kinds(tmp_path) if one.maker == "own"]
    assert len(made) >= 40
    for one in made:
        is_right(one)


def test_jpeg_2000_of_more_than_8_bits_keeps_white_white() -> None:
    picture = words()
    for bits in (9, 10, 12, 16):
        values = np.rint(picture.astype(np.float64) * ((1 << bits) - 1) / 255).astype(np.uint16)
        data = imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits)
        image = read(data).image[..., ::-1]
        assert np.abs(image.astype(int) - picture).max() <= 1, bits


def test_jpeg_2000_without_a_length_or_an_end() -> None:
    buffer = io.BytesIO()
    Image.fromarray(words()).save(buffer, "JPEG2000")
    whole = buffer.getvalue()
    truth = read(whole).image
    for tail in (b"", bytes(9)):
        open_end = read(jpeg2000_kinds._psot0(whole) + tail)
        assert open_end.damage is None and np.array_equal(open_end.image, truth)
    cut = read(whole[:-2])
    assert "end-of-codestream" in (cut.damage or "") and np.array_equal(cut.image, truth)


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "jpegxr", "png", "webp", "lerc"])
@pytest.mark.parametrize("installed", [True, False])
def test_codecs_that_libtiff_lacks_are_read_or_named(
    compression: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = words()
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture, photometric="rgb", compression=compression)
    if installed:
        image = read(buffer.getvalue()).image[..., ::-1]
        assert np.abs(image.astype(int) - picture).mean() < 3
        return
    from textspot_ray.images import table

    monkeypatch.setattr(table, "is_installed", lambda module: False)
    message = refused(buffer.getvalue(), ErrorKind.UNSUPPORTED)
    assert "TIFF with compression" in message and "textspot-ray[tiff]" in message


@pytest.mark.parametrize("compression", [8, 32773, 34925])
@pytest.mark.parametrize("installed", [True, False])
def test_a_strip_that_unpacks_to_far_too_much_costs_no_memory(
    compression: int, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With imagecodecs, and with what tifffile has of its own, which knows no limit."""

    monkeypatch.setattr(tiff_reader, "is_installed", lambda module: installed)
    picture = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 15
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture, compression=compression)
    assert read(buffer.getvalue()).image.shape == (64, 64, 3)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        tags = file.pages[0].tags
        places = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    pack = {8: zlib.compress, 32773: lambda b: b"\x81\0" * (len(b) // 128), 34925: lzma.compress}
    bomb = pack[compression](bytes(50_000_000))
    data = bytearray(buffer.getvalue())
    for place, value in zip(places, (len(data), len(bomb)), strict=True):
        struct.pack_into("<I", data, place, value)
    tracemalloc.start()
    try:
        result = decode(bytes(data) + bomb, max_pixels=MAX)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000 + len(bomb) * 4
    if not installed:
        assert not isinstance(result, Decoded) and result.kind is ErrorKind.TOO_LARGE, result


def test_an_animation_in_a_strip_is_refused() -> None:
    """Its decoder would make all the frames."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, words(), photometric="rgb", compression="jpegxl")
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        tags = file.pages[0].tags
        assert tags["StripOffsets"].count == 1
        places = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    moving = imagecodecs.jpegxl_encode(np.stack([words()] * 3), effort=1)
    data = bytearray(buffer.getvalue())
    for place, value in zip(places, (len(data), len(moving)), strict=True):
        struct.pack_into("<I", data, place, value)
    assert "animation" in refused(bytes(data) + moving, ErrorKind.UNSUPPORTED)


@pytest.mark.parametrize("number", [34661, 34676, 65000, 12345])
def test_other_compressions_are_named(number: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(words()).save(buffer, "TIFF")
    data = buffer.getvalue()
    entry = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    changed = data[:entry] + struct.pack("<H", number) + data[entry + 2 :]
    if number == 65000:
        assert not isinstance(decode(changed, max_pixels=MAX), Decoded)
    else:
        assert str(number) in refused(changed, ErrorKind.UNSUPPORTED)


def test_a_directory_whose_strips_are_empty_is_no_black_page() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, words(), photometric="rgb", rowsperstrip=96)
    data = bytearray(buffer.getvalue())
    for tag in (273, 279):
        for kind in (3, 4):
            at = data.find(struct.pack("<HHI", tag, kind, 1))
            if at >= 0:
                data[at + 8 : at + 12] = bytes(4)
    assert "empty" in refused(bytes(data), ErrorKind.CORRUPT)


@pytest.mark.parametrize("strips", [True, False])
def test_old_style_jpeg_in_tiff(strips: bool) -> None:
    picture = words()
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    data = tiff_tools.old_jpeg(buffer.getvalue(), 160, 96, strips=strips)
    image = read(data).image[..., ::-1]
    assert np.abs(image.astype(int) - picture).mean() < 5


def test_pages_before_a_broken_chain_are_read() -> None:
    pages = [Image.fromarray(words()).resize((200 + i, 90)) for i in range(5)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    data = buffer.getvalue()[: len(buffer.getvalue()) * 3 // 4]
    first = read(data)
    assert 2 < first.pages <= 5
    results = [decode(data, page=page, max_pixels=MAX) for page in range(first.pages)]
    fine = [isinstance(result, Decoded) for result in results]
    assert fine == sorted(fine, reverse=True) and sum(fine) >= 2 and not fine[-1]
    last = results[-1]
    assert isinstance(last, ImageError) and last.kind is ErrorKind.TRUNCATED


def pyramid(pages: list[Image.Image], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], **options)
    return buffer.getvalue()


def test_levels_without_marks_are_one_page_and_other_pages_stay() -> None:
    full = Image.fromarray(words(640, 384))
    levels = [full.resize((640 // n, 384 // n), Image.Resampling.BOX) for n in (1, 2, 4, 8)]
    for options in ({}, {"compression": "jpeg"}):
        data = pyramid(levels, **options)
        assert read(data).pages == 1
        assert read(data, tiff_levels=True).pages == 4
        assert read(data, tiff_levels=True, page=2).width == 160
    assert read(pyramid([*levels[:2], *levels[:3]])).pages == 2
    assert (read(pyramid(levels[::-1])).pages, read(pyramid(levels[::-1])).width) == (1, 640)
    other = Image.fromarray(words(640, 384))
    other.paste((250, 244, 220), (400, 100, 600, 200))
    changed = np.asarray(other).copy()
    changed[100:140, 300:330] = 0  # as large as a letter
    half = Image.fromarray(changed).resize((320, 192), Image.Resampling.BOX)
    assert read(pyramid([full, half])).pages == 2
    assert read(pyramid([full, full])).pages == 2


@pytest.mark.parametrize("mark", [(254, 4, 1, 1, True), (255, 3, 1, 2, True)])
def test_a_page_marked_as_reduced_is_no_page(mark: tuple[Any, ...]) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(words(), photometric="rgb", metadata=None)
        small = np.zeros((40, 70, 3), np.uint8)
        options: dict[str, Any] = {"subfiletype": 1} if mark[0] == 254 else {"extratags": [mark]}
        writer.write(small, photometric="rgb", metadata=None, **options)
    assert read(buffer.getvalue()).pages == 1
    assert read(buffer.getvalue(), tiff_levels=True, page=1).width == 70


def test_the_first_exif_block_with_an_orientation_counts() -> None:
    buffer = io.BytesIO()
    Image.fromarray(words()).transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG")
    plain = buffer.getvalue()
    for blocks in (
        exif_block(6) + exif_block(None),
        exif_block(None) + exif_block(6),
        exif_block(6) + exif_block(3),
        exif_block(6, 65_000) + exif_block(None, 3_000),
    ):
        result = read(plain[:2] + blocks + plain[2:])
        assert (result.exif_orientation, result.width, result.height) == (6, 160, 96)


@pytest.mark.parametrize(("header", "bits"), [(12, 24), (40, 16), (64, 24), (108, 32), (124, 24)])
def test_bitmaps_of_every_header(header: int, bits: int) -> None:
    picture = words(161, 96)
    for options in ({}, {"reserved": 7}):
        image = read(bitmap(picture, header, bits, **options)).image[..., ::-1]
        assert np.abs(image.astype(int) - picture).max() <= (8 if bits == 16 else 0)


@pytest.mark.parametrize("kind", ["TGA", "PCX", "PPM", "ICO"])
def test_old_formats(kind: str) -> None:
    image = Image.fromarray(words(160, 160))
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"sizes": [(160, 160)]} if kind == "ICO" else {}))
    assert np.array_equal(read(buffer.getvalue()).image[..., ::-1], np.asarray(image))


def test_scans_in_pdf_keep_their_resolution_and_text_is_drawn() -> None:
    pytest.importorskip("pypdfium2")
    picture = words(640, 384)
    for rotate in (0, 90):
        stored = np.ascontiguousarray(np.rot90(picture, rotate // 90))
        image = read(scan_pdf(stored, rotate=rotate)).image[..., ::-1]
        assert image.shape == picture.shape
        assert np.abs(image.astype(int) - picture).mean() < 3
    empty = scan_pdf(picture, points=144).replace(b"/I Do", b"     ")
    assert read(empty, pdf_dpi=100).image.shape == (120, 200, 3)
    assert read(empty, pdf_dpi=200).image.shape == (240, 400, 3)
    refused(empty, ErrorKind.CORRUPT, page=1)
    refused(empty[:200], ErrorKind.CORRUPT)


def test_camera_raw_is_developed_where_it_has_no_preview() -> None:
    pytest.importorskip("rawpy")
    picture = words(640, 384)
    result = read(digital_negative(picture))
    assert (result.format, result.image.shape) == ("raw_developed", picture.shape)
    shown = np.corrcoef(result.image[..., 1].ravel(), picture[..., 1].ravel())[0, 1]
    assert shown > 0.9


def test_images_in_pdf_are_checked_by_their_own_headers() -> None:
    """The page says 160 x 96; PDFium would take 20 GiB for what the JPEG says, and draw nothing."""
    pytest.importorskip("pypdfium2")
    picture = Image.fromarray(words(160, 96))
    buffer = io.BytesIO()
    picture.save(buffer, "PDF", quality=95)
    whole = buffer.getvalue()
    assert np.abs(read(whole).image[..., ::-1].astype(int) - np.asarray(picture)).mean() < 9
    sof = whole.index(b"\xff\xc0\0\x11")
    for marker in (0xC2, 0xC6):
        data = bytearray(whole)
        struct.pack_into(">BHBHH", data, sof + 1, marker, 17, 8, 60_000, 60_000)
        assert "60000 x 60000" in refused(bytes(data), ErrorKind.TOO_LARGE)
    stream = imagecodecs.jpeg2k_encode(words(160, 96), codecformat="jp2", level=30)
    stream += bytes(max(0, whole.index(b"\xff\xd9", sof) - whole.index(b"\xff\xd8") - len(stream)))
    start = whole.index(b"\xff\xd8")
    packed = whole[:start] + stream + whole[start + len(stream) :]
    packed = packed.replace(b"/DCTDecode", b"/JPXDecode")
    assert np.abs(read(packed).image[..., ::-1].astype(int) - np.asarray(picture)).mean() < 20
    siz = packed.index(b"\xff\x4f\xff\x51") + 8
    huge = packed[:siz] + struct.pack(">II", 30_000, 30_000) + packed[siz + 8 :]
    huge = huge[: siz + 16] + struct.pack(">II", 30_000, 30_000) + huge[siz + 24 :]
    assert "30000 x 30000" in refused(huge, ErrorKind.TOO_LARGE)


def test_heif_avif_and_jpeg_xl() -> None:
    picture = Image.fromarray(words(320, 192))
    files = {"jpegxl": imagecodecs.jpegxl_encode(np.asarray(picture), lossless=True)}
    buffer = io.BytesIO()
    picture.save(buffer, "AVIF", quality=95)
    files["avif"] = buffer.getvalue()
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    buffer = io.BytesIO()
    picture.save(buffer, "HEIF", quality=95)
    files["heif"] = buffer.getvalue()
    for name, data in files.items():
        result = read(data)
        assert (result.format, result.width, result.height) == (name, 320, 192)
        assert np.abs(result.image[..., ::-1].astype(int) - np.asarray(picture)).mean() < 4
        assert isinstance(decode(data, max_pixels=320 * 192 - 1), ImageError)
        for cut in range(1, len(data), max(1, len(data) // 40)):
            decode(data[:cut], max_pixels=MAX)


def test_floats_by_their_range() -> None:
    values = np.array([0.0, 0.5, 1.0])
    assert real_scale(0, 1).apply(values).tolist() == [0, 127, 255]
    assert real_scale(0, 255).apply(values * 255).tolist() == [0, 127, 255]
    assert real_scale(0, 1000).apply(values * 1000).tolist() == [0, 125, 250]
    assert real_scale(0, 0.1).apply(values / 10).tolist() == [0, 127, 255]
    assert real_scale(-5, 5).apply(values * 10 - 5).tolist() == [0, 127, 255]


def test_cut_lossless_jpeg_and_endless_tiles_are_refused_at_once() -> None:
    whole = imagecodecs.jpegls_encode(words())
    refused(whole[: len(whole) // 2], ErrorKind.TRUNCATED)
    buffer = io.BytesIO()
    Image.fromarray(words()).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\x4f\xff\x51")
    data[at + 8 : at + 16] = struct.pack(">II", 7000, 7000)
    data[at + 24 : at + 32] = struct.pack(">II", 1, 1)
    assert "tiles" in refused(bytes(data), ErrorKind.CORRUPT)


@pytest.mark.parametrize("size", [(16, 16), (640, 384), (320, 191)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_container_that_says_another_size_is_told(
    kind: str, mode: str, size: tuple[int, int]
) -> None:
    """libavif would scale the picture to it without a word."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    picture = Image.fromarray(words(320, 192)).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=95)
    data = buffer.getvalue()
    assert read(data).width == 320
    right, wrong = struct.pack(">II", 320, 192), struct.pack(">II", *size)
    assert data.count(b"ispe\0\0\0\0" + right) >= 1
    refused(data.replace(b"ispe\0\0\0\0" + right, b"ispe\0\0\0\0" + wrong), ErrorKind.CORRUPT)
