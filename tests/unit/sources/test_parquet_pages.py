"""Pages of Parquet files that are too large to be unpacked in memory."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import config, listed, picture, read_all
from textspot_ray.config import ImageConfig
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.kinds import access_of, parquet
from textspot_ray.sources.kinds.base import SourceFile, Streamed
from textspot_ray.sources.kinds.parquet_pages import LargeColumn
from textspot_ray.sources.listing import list_items
from textspot_ray.storage.volumes import open_volume

MEGABYTE = ImageConfig(max_bytes=1 << 20)


def packable(seed: int) -> bytes:
    """An image, then what Snappy finds repetitions in, near and far, and what it does not."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(1, 90)) for _ in range(40)]
    tail = b"".join(rng.choice(words) for _ in range(rng.randint(0, 300)))
    return (
        picture(seed) + tail + rng.randbytes(rng.choice([0, 70_000])) + bytes(rng.randint(0, 999))
    )


@pytest.fixture
def by_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every page is a large one; how many chunks were read that way."""
    read: list[int] = []
    real = LargeColumn.values

    def values(self: LargeColumn, start: int) -> Any:
        read.append(start)
        return real(self, start)

    monkeypatch.setattr(parquet, "_BY_DISK_BYTES", -1)
    monkeypatch.setattr(parquet, "_PAGE_SHARE", 0)
    monkeypatch.setattr(parquet, "_PAGE_OVERHEAD", 0)
    monkeypatch.setattr(LargeColumn, "values", values)
    monkeypatch.setattr(parquet._ParquetTable, "_check_pages", lambda *_: None)
    return read


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "brotli"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_values_by_way_of_the_disk_are_those_that_arrow_reads(
    tmp_path: Path, by_disk: list[int], version: str, codec: str, dictionary: bool
) -> None:
    images: list[bytes | None] = [packable(i % 23) for i in range(60)]
    images[3] = images[17] = images[59] = None
    options = {"data_page_version": version, "compression": codec, "use_dictionary": dictionary}
    structs = [{"bytes": d, "path": f"{i}.jpg"} if i != 17 else None for i, d in enumerate(images)]
    tables = {
        "plain": {"image": images, "n": list(range(60))},
        "struct": {"image": structs},
        "pathless": {"image": [{"bytes": d} for d in images]},
        "deep": {"doc": [{"page": {"scan": s, "n": 1}} if s else None for s in structs]},
    }
    for name, columns in tables.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=25, **options)
        items, _ = listed(path)
        by_disk.clear()
        got = read_all(items)
        assert [e.data for e in got] == images and len(by_disk) >= 3, name
        assert {e.error.kind for e in got if e.error} == {ErrorKind.EMPTY_FILE}
        assert [e.data for e in read_all([items[44], items[7]])] == [images[44], images[7]]


def test_required_columns_and_a_dictionary_that_fell_back(
    tmp_path: Path, by_disk: list[int]
) -> None:
    images = [picture(i) + os.urandom(900) for i in range(2500)]
    schema = pa.schema([pa.field("image", pa.binary(), nullable=False)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}, schema=schema), path, dictionary_pagesize_limit=4096)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert {"PLAIN", "RLE_DICTIONARY"} <= set(chunk.encodings)
    assert [e.data for e in read_all(listed(path)[0])] == images and by_disk


def test_a_page_of_a_thousand_images_as_pandas_writes_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what is unpacked in memory, with little of Arrow's and no page refused."""
    images = [picture(i) + os.urandom(20_000) for i in range(1024)]
    monkeypatch.setattr(parquet, "_BY_DISK_BYTES", 4 << 20)
    for dictionary in (False, True):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"image": images}), path, use_dictionary=dictionary)
        items = [i for i in list_items(config(path), MEGABYTE) if isinstance(i, Item)]
        largest, before = 0, pa.total_allocated_bytes()
        for n, encoded in enumerate(read_all(items, image=MEGABYTE)):
            assert encoded.data == images[n]
            largest = max(largest, pa.total_allocated_bytes() - before)
        assert largest < 4 << 20


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_long_unpacking_gives_signs_of_life(tmp_path: Path, kind: str) -> None:
    """Else it is taken to hang, once it takes longer than an answer of storage may."""
    images = pa.table({"image": [picture(i) + os.urandom(9_000) for i in range(3000)]})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(images, path, use_dictionary=False)
    else:
        with pa.ipc.new_file(path, images.schema, options=pa.ipc.IpcWriteOptions()) as writer:
            writer.write_table(images)
    file = SourceFile(open_volume("file"), str(path))
    item = listed(path)[0][2999]
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    access = access_of(item.container)
    assert isinstance(access, Streamed)
    with file.open() as opened:
        stream = access.open(opened, file, item, beat)
        before = beats
        assert len(stream.read(item)) > 9_000 and beats > before
        stream.close()


def test_what_cannot_go_by_disk_is_refused_beyond_the_limit(tmp_path: Path) -> None:
    """Both sides of it: lists of images, and a codec of one block."""
    image = picture(1) + os.urandom(50_000)
    for name, column, codec in (
        ("lists", [[image] * 2] * 8, "snappy"),
        ("lz4", [image] * 16, "lz4"),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": column}), path, compression=codec, use_dictionary=False)
        for max_bytes, refused in ((10 << 20, False), (300_000, True)):
            limits = ImageConfig(max_bytes=max_bytes)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(parquet, "_PAGE_OVERHEAD", 0)
                items = [i for i in list_items(config(path), limits) if isinstance(i, Item)]
                kinds = {e.error.kind for e in read_all(items, image=limits) if e.error}
            assert kinds == ({ErrorKind.TOO_LARGE} if refused else set()), name


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_value_that_is_too_large_costs_itself_and_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool
) -> None:
    monkeypatch.setattr(parquet, "_BY_DISK_BYTES", -1)
    images = [picture(1), picture(2) + bytes(5 << 20), picture(3), picture(4) + bytes(9 << 20)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}), path, use_dictionary=dictionary)
    items = [i for i in list_items(config(path), MEGABYTE) if isinstance(i, Item)]
    got = read_all(items, image=MEGABYTE)
    large = ErrorKind.TOO_LARGE
    assert [e.data or (e.error and e.error.kind) for e in got] == [
        images[0], large, images[2], large
    ]  # fmt: skip
    assert got[3].error and f"{len(images[3])} bytes" in got[3].error.message


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_a_damaged_page_is_told(tmp_path: Path, by_disk: list[int], codec: str) -> None:
    images = [packable(i)[:3000] for i in range(40)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images}), path, compression=codec, use_dictionary=False)
    good = path.read_bytes()
    for at in [*range(4, 100, 3), *range(200, len(good) - 400, 4999)]:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        got = read_all(listed(path)[0])
        assert len(got) >= 1 and all(e.data is not None or e.error is not None for e in got)
        assert len(got) == 40 or any(e.error for e in got)
