"""Objects on S3 that are replaced while they are read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.faults import RetryPolicy

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
s3fs = pytest.importorskip("s3fs")

PART = 5 << 20  # of an object that s3fs reads at a time, its least
OLD, NEW = (b"\x89PNG\r\n\x1a\n" + letter * (3 * PART) for letter in (b"o", b"n"))


def tar_of(data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def table_of(data: bytes) -> bytes:
    made = io.BytesIO()
    table = pa.table({"image": [data]})
    pq.write_table(table, made, compression="none", use_dictionary=False, write_statistics=False)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["png", "tar", "parquet"])
@pytest.mark.parametrize("now", [NEW, NEW[: 2 * PART], NEW + NEW], ids=["same", "less", "more"])
@pytest.mark.parametrize("is_planned", [True, False])
def test_an_object_that_is_replaced_between_its_parts(
    s3_options: Any, monkeypatch: pytest.MonkeyPatch, kind: str, now: bytes, is_planned: bool
) -> None:
    packs: dict[str, Callable[[bytes], bytes]]
    packs = {"png": bytes, "tar": tar_of, "parquet": table_of}
    pack = packs[kind]
    options = {"s3": {**s3_options["s3"], "default_block_size": PART}}
    fs = s3fs.S3FileSystem(**options["s3"], use_listings_cache=False)
    if not fs.exists("changes"):
        fs.call_s3("create_bucket", Bucket="changes")
    name = f"{kind}{len(now)}{is_planned}.{kind}"
    fs.pipe_file(f"changes/{name}", pack(OLD))
    config = SourceConfig(uris=(f"s3://changes/{name}",), storage_options=options)
    (item,) = [i for i in list_items(config, ImageConfig()) if isinstance(i, Item)]
    if not is_planned and kind != "tar":  # as a list names it; of a tar its member's header tells
        item = replace(item, size=None, content_tag=None)
    reads, real = [0], s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        reads[0] += method == "get_object"
        if method == "get_object" and reads[0] == 2:
            await self._pipe_file(f"changes/{name}", pack(now))
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    with Reader(config, ImageConfig(), retry=RetryPolicy(4, 0.0)) as reader:
        (got,) = reader.read([item])
    assert reads[0] >= 2
    # a tar's members are told by their headers, which hold a size and no digest
    is_told = len(now) != len(OLD) if kind == "tar" else is_planned
    assert got.data == (None if is_told else now)
    assert (got.error.kind if got.error else None) == (ErrorKind.CHANGED if is_told else None)
