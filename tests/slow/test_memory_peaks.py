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
SAMPLE_S = 0.05


def png(width: int, height: int, channels: int, bits: int) -> bytes:
    """A blank PNG of any size, packed in a few hundred kB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    packer, row = zlib.compressobj(9), bytes(1 + width * channels * bits // 8)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
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
    """A Parquet table of 8,000 rows that repeat one caption of 256 KiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    caption = pa.array(["x" * (256 << 10)]).dictionary_encode().dictionary
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 8000, pa.int32()), caption)
    image = pa.array([png(8, 8, 3, 8)] * 8000, pa.binary())
    pq.write_table(pa.table({"image": image, "caption": column}), folder / "x.parquet")
    return str(folder / "x.parquet")


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
    command += ["--engine", "local", "--quiet"]
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


def test_peak_of_a_server_that_lies(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with lying_server() as url:
        check("lying_server", url, tmp_path / "out")


def check(name: str, source: str, out: Path) -> None:
    driver, detector, ended = peaks(source, out)
    print(f"\n| {name} | {driver / MIB:,.0f} MiB | {detector / MIB:,.0f} MiB |", file=sys.stderr)
    assert "exit 0" in ended or "exit 3" in ended, ended
    assert open_tables(str(out)).read("images").num_rows >= 1
    assert driver <= MAX_DRIVER, ended
    assert detector <= MAX_DETECTOR, ended


def test_the_page_of_text_is_what_it_should_be(tmp_path: Path) -> None:
    """So that `much_text` measures what its name says."""
    source = much_text(tmp_path)
    peaks(source, tmp_path / "out")
    (row,) = open_tables(str(tmp_path / "out")).read("images").to_pylist()
    assert row["tiles"] >= 60
    assert row["n_words"] + row["n_unread"] > 3000
    os.unlink(source)  # noqa: PTH108
