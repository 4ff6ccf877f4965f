"""Damage is told and words are kept; what cannot be believed is not given out as an image."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from jobs.compat.pictures import words
from jobs.compat.png_kinds import chunk
from textspot_ray.images import decode as decode_module
from textspot_ray.images import raster
from textspot_ray.images.decode import Decoded, decode
from textspot_ray.images.pixels import background_for, edge_levels, on_background
from textspot_ray.images.strips import stream_damage
from textspot_ray.images.tiff import layout_of, tiff_chain
from textspot_ray.records import ErrorKind, ImageError

MAX = 200_000_000


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 400, height: int = 300) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(cv2.GaussianBlur(pixels, (3, 3), 0))


def read(data: bytes) -> Decoded:
    result = decode(data, max_pixels=MAX)
    assert isinstance(result, Decoded), result
    return result


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_with_a_hole_is_read_and_marked(options: dict[str, Any]) -> None:
    data = encode(noise(), "JPEG", quality=90, **options)
    middle = len(data) // 2
    holed = data[:middle] + bytes(2048) + data[middle + 2048 :]
    result = read(holed)
    assert result.damage and "JPEG" in result.damage
    whole = read(data)
    assert whole.damage is None
    if not options.get("progressive"):
        assert np.array_equal(result.image[:100], whole.image[:100])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("tail", [b"", b"\0\0", b"\xff", b"\xff\xd9"])
def test_jpeg_that_ends_early_is_read_and_marked(mode: str, tail: bytes) -> None:
    data = encode(noise().convert(mode), "JPEG", quality=90)
    result = read(data[: len(data) * 3 // 4] + tail)
    assert result.damage and "% of its rows" in result.damage
    only_the_end = read(data[:-2] + (b"" if tail == b"\xff\xd9" else tail))
    assert only_the_end.damage
    assert np.array_equal(only_the_end.image, read(data).image)


def test_jpeg_without_a_single_row_is_no_image() -> None:
    data = encode(noise(), "JPEG", quality=90)
    scan = data.index(b"\xff\xda")
    for cut in (scan, scan + 2, scan + 14, scan + (len(data) - scan) // 20):
        for end in (b"", b"\xff\xd9"):
            result = decode(data[:cut] + end, max_pixels=MAX)
            assert isinstance(result, ImageError) and result.kind is not ErrorKind.UNSUPPORTED


def test_flat_picture_without_its_end_mark_has_lost_nothing_else() -> None:
    blank = np.full((300, 400, 3), 255, np.uint8)
    letters = blank.copy()
    letters[:20, ::7] = 0
    for pixels in (blank, letters, np.asarray(noise())):
        for options in ({}, {"progressive": True}, {"subsampling": 0}):
            data = encode(Image.fromarray(pixels), "JPEG", **options)
            for changed in (data[:-2], data[:-1], data[:-2] + bytes(2), data[:-2] + bytes(900)):
                result = read(changed)
                assert result.damage == "the end-of-image marker is missing"
                assert np.array_equal(result.image, read(data).image)


def test_png_without_its_end_is_read_and_marked() -> None:
    data = encode(noise(), "PNG")
    whole = read(data)
    for changed in (data[:-12], data[:-1], data[:-12] + bytes(12), data[:-12] + b"junk"):
        result = read(changed)
        assert result.damage and np.array_equal(result.image, whole.image)
    for mode in ("P", "LA", "RGBA"):
        image = noise().convert(mode)
        assert read(encode(image, "PNG")[:-12]).damage


def test_png_with_a_broken_text_chunk_is_read_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = encode(noise(), "PNG")
    whole = read(data).image
    broken = chunk(b"tEXt", b"Title\0x")[:-1] + b"?"
    for changed in (data[:33] + broken + data[33:], data[:-12] + broken + data[-12:]):
        result = read(changed)
        assert "tEXt" in (result.damage or "") and np.array_equal(result.image, whole)
    assert capfd.readouterr() == ("", "")


def test_fax_with_wrong_codes_is_read_and_marked_in_its_own_thread() -> None:
    page = Image.fromarray(words(400, 240)).convert("1")
    data = encode(page, "TIFF", compression="group4")
    at = len(data) // 2
    broken = data[:at] + b"\xa5\x5a\x13\x77" + data[at + 4 :]
    results: dict[int, Decoded] = {}

    def work(number: int) -> None:
        for _ in range(20):
            results[number] = read(broken if number % 2 else data)
            assert bool(results[number].damage) == bool(number % 2)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and "Fax4Decode" in (results[1].damage or "")
    assert results[0].damage is None


def test_jpeg_strips_of_a_tiff_are_looked_at() -> None:
    data = encode(noise(), "TIFF", compression="jpeg")
    at = len(data) // 2
    broken = data[:at] + bytes(600) + data[at + 600 :]
    assert "JPEG" in (read(broken).damage or "")
    assert read(data).damage is None


def test_broken_tiff_strips_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "group4", "jpeg", "zstd"):
        image = noise().convert("1") if compression == "group4" else noise()
        data = encode(image, "TIFF", compression=compression)
        for at in range(200, len(data) - 200, len(data) // 20):
            decode(data[:at] + b"\xff\0\xff\0" + data[at + 4 :], max_pixels=MAX)
    assert capfd.readouterr() == ("", "")


def test_varied_data_that_come_out_in_one_colour_are_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(noise(), "PNG")

    def zeros(job: raster.DecodeJob, header: Any, found: Any) -> raster.Raster:
        start, stop = header.payload
        image = np.zeros((header.height, header.width, 3), np.uint8)
        payload = memoryview(job.data)[start:stop]
        return raster.Raster(image, header.width, header.height, found, payload=payload)

    readers = dict.fromkeys(decode_module.READERS, zeros)
    monkeypatch.setattr(decode_module, "READERS", readers)
    result = decode(data, max_pixels=MAX)
    assert isinstance(result, ImageError) and result.kind is ErrorKind.CORRUPT
    assert "one colour" in result.message


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 10, 90)])
def test_pages_of_one_colour_are_believed(colour: tuple[int, int, int]) -> None:
    for kind, side, options in (
        ("JPEG", 3000, {}),
        ("JPEG", 3000, {"progressive": True}),
        ("PNG", 400, {}),
        ("PNG", 400, {"compress_level": 0}),
        ("TIFF", 400, {}),
        ("TIFF", 400, {"compression": "tiff_lzw"}),
        ("TIFF", 3000, {"compression": "jpeg"}),
        ("BMP", 400, {}),
        ("GIF", 400, {}),
        ("WEBP", 400, {}),
    ):
        result = read(encode(Image.new("RGB", (side, side), colour), kind, **options))
        off = np.abs(result.image[::50, ::50, ::-1].astype(int) - colour)
        assert off.max() <= 8


def text(value: int, ground: int | None = None) -> np.ndarray[Any, Any]:
    """Letters of a grey level on a transparent ground, on a panel of another level if given."""
    letters = np.zeros((120, 300), np.uint8)
    cv2.putText(letters, "HELLO", (40, 80), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 4)
    bgra = np.zeros((120, 300, 4), np.uint8)
    if ground is not None:
        bgra[10:110, 20:280] = (ground, ground, ground, 255)
    bgra[letters > 0, :3] = value
    bgra[..., 3] = np.maximum(bgra[..., 3], letters)
    return bgra


def test_the_ground_shows_what_is_opaque() -> None:
    assert on_background(text(255))[2, 2].tolist() == [0, 0, 0]
    assert on_background(text(230))[2, 2].tolist() == [0, 0, 0]
    assert on_background(text(0))[2, 2].tolist() == [255, 255, 255]
    assert on_background(text(120))[2, 2].tolist() == [255, 255, 255]
    both = np.vstack([text(0), text(255)])
    assert on_background(both)[2, 2].tolist() == [128, 128, 128]
    assert on_background(np.zeros((9, 9, 4), np.uint8)).min() == 255


def test_a_panel_has_its_own_ground() -> None:
    assert on_background(text(0, ground=255))[2, 2].tolist() == [255, 255, 255]
    assert on_background(text(255, ground=0))[2, 2].tolist() == [255, 255, 255]


def test_grounds_by_edge_levels() -> None:
    assert background_for(np.zeros(256, np.int64)) == 255
    assert background_for(edge_levels(text(255))) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG2000"])
def test_white_letters_on_nothing_are_seen(kind: str) -> None:
    image = Image.fromarray(text(255))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert read(encode(image, kind, **options)).image[2, 2].tolist() == [0, 0, 0]
    if kind in ("PNG", "TIFF"):
        grey = image.convert("LA")
        assert read(encode(grey, kind)).image[2, 2].tolist() == [0, 0, 0]


def test_what_needs_too_much_memory_is_refused_with_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raster, "MAX_DECODE_BYTES", 100_000)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        result = decode(encode(noise(), kind), max_pixels=MAX)
        assert isinstance(result, ImageError) and result.kind is ErrorKind.TOO_LARGE
        assert "GiB" in result.message


def strips(compression: str, shade: int = 0) -> bytes:
    """A TIFF of eight strips; some noise, so that nothing in it is short."""
    pixels = np.asarray(noise().convert("L")) // 4 + shade
    file = io.BytesIO()
    tifffile.imwrite(
        file, pixels.astype(np.uint8), compression=compression, rowsperstrip=40,
        photometric="minisblack",
    )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize("compression", ["zlib", "zstd", "packbits"])
def test_strips_that_libtiff_does_not_look_at_to_their_end(compression: str) -> None:
    pytest.importorskip("imagecodecs")
    data = strips(compression)
    whole = read(data)
    assert whole.damage is None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages.first
        offset, count = page.dataoffsets[3], page.databytecounts[3]
    broken = bytearray(data)
    if compression == "zlib":
        third = count // 3
        broken[offset + third : offset + 2 * third] = bytes(third)
    elif compression == "packbits":  # a run of 128 where there was none
        broken[offset : offset + 2] = b"\x81\x77"
    else:  # the last block, and with it the end of the frame
        broken[offset + count - 3 : offset + count] = b"\xff\xff\xff"
    result = decode(bytes(broken), max_pixels=MAX)
    if isinstance(result, Decoded):
        assert result.damage and "1 of 8 strips or tiles" in result.damage
        assert np.array_equal(result.image[:120], whole.image[:120])
    else:
        assert compression == "zstd" and result.kind is ErrorKind.CORRUPT


@pytest.mark.parametrize("compression", ["zlib", "zstd", "packbits"])
def test_strips_whose_bytes_have_their_bits_turned_are_whole(compression: str) -> None:
    pytest.importorskip("imagecodecs")
    data = strips(compression)
    page = tiff_chain(data).pages[0]
    layout = layout_of(data, page)
    turned = bytearray(data)
    for offset, count in layout.segments:
        bits = np.unpackbits(np.frombuffer(data, np.uint8, count, offset), bitorder="little")
        turned[offset : offset + count] = np.packbits(bits).tobytes()
    low_first = replace(layout, low_bit_first=True)
    assert stream_damage(bytes(turned), page, low_first) is None
    assert stream_damage(data, page, low_first) is not None


def test_the_last_strip_may_be_padded() -> None:
    rows = bytes([0x81, 7]) * 3  # 384 bytes, of rows of 128
    for packed, damage in ((rows, None), (rows[:2], None), (rows + rows[:2], "wrong length")):
        image = Image.new("L", (128, 4))
        file = io.BytesIO()
        image.save(file, "TIFF", compression="packbits", tiffinfo={278: 3})
        chain = tiff_chain(file.getvalue())
        layout = layout_of(file.getvalue(), chain.pages[0])
        assert len(layout.segments) == 2 and layout.segment_rows == 3
        layout = replace(layout, segments=((0, 6), (8, len(packed))))
        found = stream_damage(rows + b"\0\0" + packed, chain.pages[0], layout)
        assert (found is None) is (damage is None) and (damage or "") in (found or "")
