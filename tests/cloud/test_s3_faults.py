"""S3 that throttles, drops, truncates and dribbles: what is asked for comes all the same."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fault_proxy import FaultPlan, FaultProxy
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.records import Item
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.stores import open_store

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
s3fs = pytest.importorskip("s3fs")

EACH = ["slow_down", "error", "reset", "lost", "truncated", "slow"]


def options_of(url: str) -> dict[str, dict[str, Any]]:
    client = {"region_name": "us-east-1"}
    return {"s3": {"key": "t", "secret": "t", "endpoint_url": url, "client_kwargs": client}}


@pytest.fixture
def faulty(moto: tuple[str, int], request: pytest.FixtureRequest) -> Iterator[Any]:
    host, port = moto
    direct = s3fs.S3FileSystem(**options_of(f"http://{host}:{port}")["s3"])
    if not direct.exists("faulty"):
        direct.call_s3("create_bucket", Bucket="faulty")
    shares = getattr(request, "param", {})
    proxy = FaultProxy(moto, FaultPlan(6, shares=shares, slow_s=0.5))
    url = proxy.start()
    yield proxy, options_of(url), direct
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("faulty", [{fault: 0.3} for fault in EACH], ids=EACH, indirect=True)
def test_files_are_put_once_listed_and_read_whole(faulty: Any, request: Any) -> None:
    proxy, options, direct = faulty
    (fault,) = proxy.plan.shares
    store = open_store(f"s3://faulty/{fault}", options)
    wanted = {f"d/{n:03d}": bytes([n]) * (1000 + n) for n in range(12)}
    for path, data in wanted.items():
        assert store.put_if_absent(path, data) or store.read(path) == data
        assert not store.put_if_absent(path, b"another")
    assert {e.path: store.read(e.path) for e in store.list("d/")} == wanted
    assert all(direct.cat_file(f"faulty/{fault}/{path}") == d for path, d in wanted.items())
    assert proxy.counts[fault] > 3, proxy.counts


@pytest.mark.parametrize("faulty", [dict.fromkeys(EACH, 0.04)], ids=["all"], indirect=True)
def test_images_of_a_faulty_store_come_whole(faulty: Any) -> None:
    proxy, options, direct = faulty
    pictures = {f"{n:03d}.png": b"\x89PNG\r\n\x1a\n" + bytes([n]) * 3000 for n in range(60)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in pictures.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    direct.pipe_file("faulty/src/a.tar", packed.getvalue())
    direct.pipe({f"faulty/src/loose/{name}": data for name, data in pictures.items()})
    config = SourceConfig(uris=("s3://faulty/src",), storage_options=options)
    items = [item for item in list_items(config, ImageConfig()) if isinstance(item, Item)]
    with Reader(config, ImageConfig()) as reader:
        got = [encoded.data for encoded in reader.read(items)]
    assert got == [*pictures.values(), *pictures.values()]
    assert sum(proxy.counts.values()) > proxy.counts["none"]
