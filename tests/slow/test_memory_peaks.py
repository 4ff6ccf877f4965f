"""The most memory that hostile and very large inputs can take: a row a kind, measured.

Every process of a run with the local engine is sampled (USS) while it works on one input. The table
of docs/reliability.md is what this prints::

    python -m pytest -m slow -s tests/slow/test_memory_peaks.py
"""

from __future__ import annotations

import http.server
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from textspot_ray.config import ImageConfig
from textspot_ray.tables.open import open_tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MIB = 2**20
MAX_DETECTOR = 2560 * MIB
MAX_DRIVER = 700 * MIB
LARGEST = ImageConfig().max_bytes
SAMPLE_S = 0.1


def png(width: int, height: int, channels: int, bits: int) -> bytes:
    """A blank PNG of any size, packed in a few hundred kB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    size = height * (1 + width * channels * bits // 8)
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands by itself
    rest = packer.compress(bytes(size % MIB)) + packer.flush()
    adler = struct.pack(">HH", size % 65521, 1)  # of zeros
    body = b"\x78\xda" + block * (size // MIB) + rest + adler
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def large_rows(folder: Path) -> str:
    """Parquet rows of nearly `image.max_bytes` each, and of less in dictionaries: some 50 kB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("image", pa.binary())])
    for name, size, in_dictionary in (("x", LARGEST, False), ("y", LARGEST * 3 // 4, True)):
        path = folder / f"{name}.parquet"
        options = {"compression": "zstd", "use_dictionary": in_dictionary}
        with pq.ParquetWriter(path, schema, **options) as writer:
            for _ in range(4):
                row = pa.array([b"\x89PNG\r\n\x1a\n" + bytes(size - 8)], pa.binary())
                writer.write_table(pa.table({"image": row}, schema=schema))
    return str(folder)


def _noise(rows: int, size: int) -> Iterator[bytes]:
    """Images, by their heads, that no codec makes smaller."""
    noise = os.urandom(size + rows)
    for i in range(rows):
        yield b"\xff\xd8\xff\xe0" + noise[i : i + size]


def large_pages(folder: Path) -> str:
    """A Parquet page of 1,024 images of 300 kB, as pandas writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.array(list(_noise(1024, 300_000)), pa.binary())
    pq.write_table(pa.table({"image": image}), folder / "x.parquet", use_dictionary=False)
    return str(folder / "x.parquet")


def large_batches(folder: Path) -> str:
    """Arrow record batches: 1,000 images of 300 kB, four of nearly `image.max_bytes` packed."""
    import pyarrow as pa

    schema = pa.schema([("image", pa.binary())])
    zeros = (b"\x89PNG\r\n\x1a\n" + bytes(LARGEST - 8) for _ in range(4))
    for name, codec, images in (("x", None, _noise(1000, 300_000)), ("y", "zstd", zeros)):
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_file(folder / f"{name}.arrow", schema, options=options) as writer:
            column = pa.array(list(images), pa.binary())
            writer.write_batch(pa.record_batch([column], schema=schema))
    return str(folder)


def long_captions(folder: Path) -> str:
    """Parquet tables of 1 GiB each that repeat one caption: of 256 KiB, and of all that is kept.

    Their images are cut off: each costs a row, and no time with a model.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, size, rows in (("x", 256 << 10, 4000), ("y", 1_000_000, 1000)):
        caption = pa.array(["x" * size]).dictionary_encode().dictionary
        column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), caption)
        image = pa.array([png(8, 8, 3, 8)[:20]] * rows, pa.binary())
        pq.write_table(pa.table({"image": image, "caption": column}), folder / f"{name}.parquet")
    return str(folder)


def greedy_xz(folder: Path) -> str:
    """A tar in an xz stream that declares a dictionary of 1.5 GiB, the most that xz lets write."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo("a.png")
        data = png(64, 64, 3, 8)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 16 * MIB}]
    packed = bytearray(lzma.compress(raw.getvalue(), filters=filters))
    # block header behind the stream's 12 bytes: size, flags, filter id, size of properties, bits
    assert packed[14:16] == b"\x21\x01"
    packed[16] = 39  # (2 | 1) << (39 / 2 + 11): 3 GiB
    size = (packed[12] + 1) * 4
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    (folder / "x.tar.xz").write_bytes(packed)
    return str(folder / "x.tar.xz")


def large_members(folder: Path) -> str:
    """Zip members, stored and deflated, and files of nearly `image.max_bytes`."""
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) * 2):
            body = b"\x89PNG\r\n\x1a\n" + bytes(LARGEST - 8)
            archive.writestr(f"{number}.png", body, compress_type=method)
    with (folder / "y.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(LARGEST)
    with tarfile.open(folder / "z.tar", "w") as tar:
        tar.add(folder / "y.png", "y.png")
    return str(folder)


def many_pixels(folder: Path) -> str:
    """A PNG of 200 megapixels, four channels of 16 bits: 1.6 GB of samples."""
    (folder / "x.png").write_bytes(png(20_000, 10_000, 4, 16))
    return str(folder / "x.png")


def much_text(folder: Path) -> str:
    """A page of some 4,000 words that is looked at in 84 passes and more."""
    import cv2

    page = np.full((11_000, 14_000, 3), 255, np.uint8)
    for row in range(90):
        for column in range(46):
            place = (40 + column * 302, 100 + row * 120)
            cv2.putText(page, f"word{row}", place, cv2.FONT_HERSHEY_SIMPLEX, 2.2, (0, 0, 0), 5)
    cv2.imwrite(str(folder / "x.png"), page, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return str(folder / "x.png")


class _Liar(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(3000):
                self.wfile.write(bytes(MIB))
        except OSError:
            return  # the reader has had enough

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def lying_server() -> Iterator[str]:
    """HEAD says 10 bytes, GET sends 3 GB."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x.png"
    finally:
        server.shutdown()


def peaks(source: str, out: Path) -> tuple[int, int, str]:
    """Most USS of driver and detector while a source is done, and how the run ended."""
    command = [sys.executable, "-m", "textspot_ray", "run", source, "--out", str(out)]
    command += ["--engine", "local", "--quiet", "--set", "engine.min_deadline_s=600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    driver, most = psutil.Process(process.pid), {"driver": 0, "detector": 0}
    while process.poll() is None:
        for name, found in (("driver", [driver]), ("detector", driver.children())):
            for one in found:
                try:
                    most[name] = max(most[name], one.memory_full_info().uss)
                except psutil.Error:
                    continue
        time.sleep(SAMPLE_S)
    said = process.stdout.read() if process.stdout is not None else ""
    return most["driver"], most["detector"], f"exit {process.returncode}: {said}"


FILES: list[Callable[[Path], str]] = [
    large_rows, large_pages, large_batches, large_members, long_captions, greedy_xz, many_pixels,
    much_text,
]  # fmt: skip


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_peak_of_a_file(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = make(tmp_path)
    check(make.__name__, source, tmp_path / "out")
    if make is much_text:  # it measures what its name says
        (row,) = open_tables(str(tmp_path / "out")).read("images").to_pylist()
        assert row["tiles"] >= 60
        assert row["n_words"] + row["n_unread"] > 3000


def test_peak_of_a_server_that_lies(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with lying_server() as url:
        check("lying_server", url, tmp_path / "out")


# 200 megapixels, or as many as the format or `image.max_bytes` lets through.
_SAMPLES = """
import io, sys
import cv2, imagecodecs, numpy as np, tifffile
from PIL import Image
Image.MAX_IMAGE_PIXELS = None

def page(width=20_000, height=10_000):
    grey = np.full((height, width), 250, np.uint8)
    for row in range(100, height, 900):
        for column in range(100, width - 600, 900):
            cv2.putText(grey, "words", (column, row), 0, 5.0, 0, 9)
    return grey

def colour(**size):
    return cv2.cvtColor(page(**size), cv2.COLOR_GRAY2BGR)

def opaque(grey):
    return cv2.merge([grey, grey, grey, np.full_like(grey, 200)])

def deep(values):
    return values.astype(np.uint16) << 8

def pillow(values, kind, mode=None, **options):
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(out := io.BytesIO(), kind, **options)
    return out.getvalue()

def opencv(suffix, values):
    return cv2.imencode(suffix, values, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()

def tiff(values, **options):
    tifffile.imwrite(out := io.BytesIO(), values, **{"rowsperstrip": 64, **options})
    return out.getvalue()

ZLIB = {"compression": "zlib", "compressionargs": {"level": 1}}
J2K = {"level": 40, "codecformat": "jp2", "numthreads": 1}
WEBP = {"width": 16_383, "height": 12_200}
HALF = {"width": 16_000, "height": 12_500}
data = eval(sys.argv[2])
open(sys.argv[1], "wb").write(data)
"""
_DECODING = """
import resource, sys
from textspot_ray.images.decode import decode
found = decode(open(sys.argv[1], "rb").read(), max_pixels=200_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, getattr(found, "kind", "pixels"))
"""
_MODELS = 300  # MiB that the models and their libraries take beside the picture
FORMATS = {
    "jpeg": "imagecodecs.jpeg8_encode(colour(), level=85)",
    "jpeg, progressive": "pillow(colour(), 'JPEG', progressive=True)",
    "jpeg, CMYK": "pillow(colour(), 'JPEG', 'CMYK')",
    "png": "opencv('.png', colour())",
    "png, 16 bits": "opencv('.png', deep(colour()))",
    "png, 16 bits, dark": "opencv('.png', colour().astype(np.uint16))",
    "png, alpha": "opencv('.png', opaque(page()))",
    "png, 16 bits, alpha": "opencv('.png', deep(opaque(page())))",
    "png, palette": "pillow(page(), 'PNG', 'P', transparency=3, compress_level=1)",
    "webp": "pillow(np.full((12_200, 16_383, 3), 250, np.uint8), 'WEBP', method=2)",
    "webp, lossless, alpha": "pillow(opaque(page(**WEBP)), 'WEBP', lossless=True, method=0)",
    "tiff, strips": "tiff(colour(), **ZLIB)",
    "tiff, tiles": "tiff(colour(), tile=(256, 256), **ZLIB)",
    "tiff, one strip": "tiff(colour(), **{**ZLIB, 'rowsperstrip': 10_000})",
    "tiff, LZW": "tiff(colour(), compression='lzw')",
    "tiff, JPEG": "tiff(colour(), compression='jpeg', tile=(256, 256))",
    "tiff, 16 bits": "tiff(deep(colour()), **ZLIB)",
    "tiff, 16 bits, one strip": "tiff(deep(opaque(page())), **{**ZLIB, 'rowsperstrip': 10_000})",
    "tiff, floats": "tiff(page().astype(np.float32) / 255, **ZLIB)",
    "tiff, CMYK": "tiff(opaque(page()), photometric='separated', **ZLIB)",
    "tiff, fax": "pillow(page(), 'TIFF', '1', compression='group4')",
    "tiff, raw": "tiff(page(width=19_900))",
    "bmp": "pillow(page(width=19_900), 'BMP')",
    "bmp, 66 Mpx": "pillow(colour(width=10_000, height=6_600), 'BMP')",
    "gif": "pillow(page(), 'GIF')",
    "pgm": "pillow(page(width=19_900), 'PPM')",
    "pbm": "pillow(page(), 'PPM', '1')",
    "qoi": "imagecodecs.qoi_encode(colour())",
    "tga": "pillow(colour(), 'TGA', compression='tga_rle')",
    "pcx": "pillow(page(), 'PCX')",
    "jpeg 2000": "imagecodecs.jpeg2k_encode(colour(), **J2K)",
    "jpeg 2000, 16 bits": "imagecodecs.jpeg2k_encode(deep(page()), **J2K)",
    "jpeg 2000, one level": "imagecodecs.jpeg2k_encode(colour(), resolutions=1, **J2K)",
    "avif": "imagecodecs.avif_encode(colour(**HALF), speed=10, level=60, numthreads=1)",
    "jpeg xl": "imagecodecs.jpegxl_encode(colour(), effort=1, distance=2.0, numthreads=1)",
    "jpeg xr": "imagecodecs.jpegxr_encode(colour(), level=80)",
    "pdf": "pillow(colour(), 'PDF')",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_peak_of_decoding(name: str, tmp_path: Path) -> None:
    """200 megapixels at full size in a process of their own: pixels, or a refusal that says so."""
    for module in ("imagecodecs", "tifffile"):
        pytest.importorskip(module)
    path = str(tmp_path / "picture")
    subprocess.run([sys.executable, "-c", _SAMPLES, path, FORMATS[name]], check=True)
    command = [sys.executable, "-c", _DECODING, path]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    size = os.path.getsize(path)  # noqa: PTH202
    print(f"\n| {name} | {size / 1e6:,.0f} MB | {said[0]} MiB | {said[1]} |", file=sys.stderr)
    assert int(said[0]) <= MAX_DETECTOR // MIB - _MODELS
    assert said[1] in ("pixels", "too_large")


def check(name: str, source: str, out: Path) -> None:
    driver, detector, ended = peaks(source, out)
    print(f"\n| {name} | {driver / MIB:,.0f} MiB | {detector / MIB:,.0f} MiB |", file=sys.stderr)
    assert "exit 0" in ended or "exit 3" in ended, ended
    assert open_tables(str(out)).read("images").num_rows >= 1
    assert driver <= MAX_DRIVER, ended
    assert detector <= MAX_DETECTOR, ended
