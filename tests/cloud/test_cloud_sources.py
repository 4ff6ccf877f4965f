"""Images on every object store: listed in order, a page at a time, and read whole."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.cloud.conftest import Cloud
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import SourceError
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.filesystem import open_filesystem, split_uri
from textspot_ray.storage.stores import open_store

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]

MANY = 1030  # more than a page


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (seed % 256, seed // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos(cloud: Cloud) -> Iterator[Cloud]:
    store = open_store(f"{cloud.root}/photos", cloud.options)
    cloud.put({f"photos/many/{n:05d}.png": picture(n) for n in range(MANY)})
    tar, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive, zipfile.ZipFile(packed, "w", 8) as zipped:
        for n in range(40):
            info = tarfile.TarInfo(f"{n}.png")
            info.size = len(picture(n))
            archive.addfile(info, io.BytesIO(picture(n)))
            zipped.writestr(f"{n}.png", picture(n))
    store.put("mixed/a.tar", tar.getvalue())
    store.put("mixed/b.zip", packed.getvalue())
    store.put("mixed/deeper/still/c é%20.png", picture(1))
    store.put("mixed/.hidden/x.png", picture(2))
    store.put("mixed2/not-asked-for.png", picture(3))
    yield cloud


def items_of(cloud: Cloud, path: str) -> tuple[SourceConfig, list[Item]]:
    config = SourceConfig(uris=(f"{cloud.root}/photos/{path}",), storage_options=cloud.options)
    return config, [item for item in list_items(config, ImageConfig()) if isinstance(item, Item)]


def test_a_prefix_of_more_than_one_page(photos: Cloud) -> None:
    config, items = items_of(photos, "many/")
    want = [f"{photos.root}/photos/many/{n:05d}.png" for n in range(MANY)]
    assert [item.image_id for item in items] == want
    assert all(item.content_tag and item.size for item in items)
    with Reader(config, ImageConfig()) as reader:
        got = [encoded.data for encoded in reader.read(items[::50])]
    assert got == [picture(n) for n in range(0, MANY, 50)]


def test_no_more_than_a_page_is_held(photos: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first item is there before the second page was asked for."""
    from textspot_ray.storage import filesystem

    monkeypatch.setattr(filesystem, "_PAGE", 100)
    protocol, rest = split_uri(f"{photos.root}/photos/many")
    fs = open_filesystem(protocol, photos.options)
    monkeypatch.setattr(fs, "_ls", None)
    monkeypatch.setattr(fs, "_find", None)
    entries = filesystem.walk_remote(fs, rest)
    assert next(entries).path.endswith("photos/many/00000.png")
    fs_put = open_store(f"{photos.root}/photos/many", photos.options)
    fs_put.put("zzzzz.png", picture(1))  # would not be seen by a listing that is over
    try:
        assert [entry.path.rpartition("/")[2] for entry in entries][-1] == "zzzzz.png"
    finally:
        fs_put.delete("zzzzz.png")


def test_archives_folders_and_odd_keys(photos: Cloud) -> None:
    config, items = items_of(photos, "mixed")
    assert len(items) == 81
    with Reader(config, ImageConfig()) as reader:
        got = [encoded.data for encoded in reader.read(items)]
    want = [picture(n) for n in range(40)]
    assert got == [*want, *want, picture(1)]
    assert items[-1].image_id.endswith("photos/mixed/deeper/still/c%20%C3%A9%2520.png")


def test_a_glob_and_objects_that_change_or_go(photos: Cloud) -> None:
    config, items = items_of(photos, "many/0000*.png")
    assert len(items) == 10
    store = open_store(f"{photos.root}/photos/many", photos.options)
    store.put("00003.png", picture(77))
    store.delete("00004.png")
    with Reader(config, ImageConfig()) as reader:
        kinds = [e.error.kind if e.error else None for e in reader.read(items)]
    store.put("00003.png", picture(3))
    store.put("00004.png", picture(4))
    assert kinds[3:5] == [ErrorKind.CHANGED, ErrorKind.MISSING]
    assert kinds.count(None) == 8


def test_what_is_not_there_is_one_line(photos: Cloud) -> None:
    for uri in (
        f"{photos.root}/photos/none",
        f"{photos.no_bucket}/x",
        f"{photos.root}/photos/none/*.jpg",
    ):
        config = SourceConfig(uris=(uri,), storage_options=photos.options)
        with pytest.raises(SourceError, match="no such") as caught:
            list(list_items(config, ImageConfig()))
        assert "\n" not in str(caught.value)
