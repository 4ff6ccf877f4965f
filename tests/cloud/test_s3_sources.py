from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator

import pytest
from PIL import Image

from textspot_ray.archive.listing import list_items
from textspot_ray.archive.reader import Reader
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import SourceError
from textspot_ray.records import ErrorKind, Item

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")

Options = dict[str, dict[str, object]]


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (seed % 256, seed // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def options() -> Iterator[Options]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    chosen: Options = {
        "s3": {
            "key": "test",
            "secret": "test",
            "endpoint_url": f"http://{host}:{port}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
    }
    fs = s3fs.S3FileSystem(**chosen["s3"])
    fs.call_s3("create_bucket", Bucket="photos")
    for i in range(1050):
        fs.pipe_file(f"photos/many/{i:05d}.png", picture(i))
    tar, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive, zipfile.ZipFile(packed, "w", 8) as zipped:
        for i in range(40):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(picture(i))
            archive.addfile(info, io.BytesIO(picture(i)))
            zipped.writestr(f"{i}.png", picture(i))
    fs.pipe_file("photos/mixed/a.tar", tar.getvalue())
    fs.pipe_file("photos/mixed/b.zip", packed.getvalue())
    fs.pipe_file("photos/mixed/sp ace é%20.png", picture(1))
    fs.pipe_file("photos/mixed/.hidden/x.png", picture(2))
    yield chosen
    server.stop()


def items_of(uri: str, options: Options) -> tuple[SourceConfig, list[Item]]:
    config = SourceConfig(uris=(uri,), storage_options=dict(options))
    return config, [i for i in list_items(config, ImageConfig()) if isinstance(i, Item)]


def test_prefix_of_more_than_one_page(options: Options) -> None:
    config, items = items_of("s3://photos/many/", options)
    assert [i.image_id for i in items] == [f"s3://photos/many/{i:05d}.png" for i in range(1050)]
    assert all(i.content_tag and i.content_tag.startswith("etag:") and i.size for i in items)
    with Reader(config, ImageConfig()) as reader:
        assert [e.data for e in reader.read(items[::50])] == [
            picture(i) for i in range(0, 1050, 50)
        ]


def test_archives_and_odd_keys(options: Options) -> None:
    config, items = items_of("s3://photos/mixed", options)
    assert len(items) == 81
    with Reader(config, ImageConfig()) as reader:
        got = [e.data for e in reader.read(items)]
    want = [picture(i) for i in range(40)]
    assert got == [*want, *want, picture(1)]
    assert items[-1].image_id == "s3://photos/mixed/sp%20ace%20%C3%A9%2520.png"


def test_glob_and_object_that_changes_or_goes(options: Options) -> None:
    config, items = items_of("s3://photos/many/0000*.png", options)
    assert len(items) == 10
    fs = s3fs.S3FileSystem(**options["s3"])
    fs.pipe_file("photos/many/00003.png", picture(77))
    fs.rm_file("photos/many/00004.png")
    with Reader(config, ImageConfig()) as reader:
        kinds = [e.error.kind if e.error else None for e in reader.read(items)]
    fs.pipe_file("photos/many/00003.png", picture(3))
    fs.pipe_file("photos/many/00004.png", picture(4))
    assert kinds[3:5] == [ErrorKind.CHANGED, ErrorKind.MISSING]
    assert kinds.count(None) == 8


def test_what_is_not_there(options: Options) -> None:
    for uri in ("s3://photos/none", "s3://nobucket/x", "s3://photos/none/*.jpg"):
        with pytest.raises(SourceError, match="no such"):
            items_of(uri, options)
