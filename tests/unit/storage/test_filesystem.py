from __future__ import annotations

import datetime as dt
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from textspot_ray.errors import UsageError
from textspot_ray.storage.filesystem import (
    content_tag,
    exclusive_put_options,
    modified_s,
    native_path,
    open_filesystem,
    split_uri,
    walk_remote,
)
from textspot_ray.storage.volume import FileInfo, RemoteVolume


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b", ("file", "/a/b")),
        ("a b/c", ("file", "a b/c")),
        ("file:///a", ("file", "/a")),
        ("S3://Bucket/Key", ("s3", "Bucket/Key")),
        ("gcs://b/k", ("gs", "b/k")),
        ("C at 12://x", ("file", "C at 12://x")),
    ],
)
def test_split_uri(uri: str, expected: tuple[str, str]) -> None:
    assert split_uri(uri) == expected


def test_native_paths() -> None:
    assert native_path("https", "h/a?b=1") == "https://h/a?b=1"
    assert native_path("memory", "/x/y/") == "/x/y"
    assert native_path("s3", "bucket/key/") == "bucket/key"


def test_any_driver_is_walked_level_by_level_in_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    fs = fsspec.filesystem("file")
    found = [e.path.removeprefix(f"{tmp_path}/") for e in walk_remote(fs, str(tmp_path))]
    assert found == ["a", "b/1", "b/2", "c/d/e"]
    volume = RemoteVolume("other", fs)
    entries = [e for e in volume.walk(str(tmp_path)) if isinstance(e, FileInfo)]
    assert [e.size for e in entries] == [1] * 4
    assert volume.info(str(tmp_path / "b")).is_folder
    with pytest.raises(FileNotFoundError):
        list(walk_remote(fs, str(tmp_path / "none")))


def test_what_tells_that_content_changed() -> None:
    stamp = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    assert content_tag({"ETag": '"abc"', "size": 3}) == "etag:abc"
    assert content_tag({"generation": "17", "etag": "x"}) == "generation:17"
    assert content_tag({"last_modified": stamp, "size": 3}) == f"stat:3-{stamp.timestamp():.6f}"
    assert content_tag({"size": 3}) is None
    assert modified_s({"updated": "2024-01-02T00:00:00Z"}) == stamp.timestamp()
    assert modified_s({"updated": "not a date"}) == 0.0


def test_look_then_write_does_not_count_as_exclusive() -> None:
    assert exclusive_put_options(fsspec.filesystem("file")) is None
    assert exclusive_put_options(fsspec.filesystem("memory")) == {"mode": "create"}


def test_options_by_any_of_a_protocols_names() -> None:
    fs = open_filesystem("memory", {"memory": {"global_store": True}})
    assert fs.protocol == "memory"
    with pytest.raises(UsageError, match=r"needs a driver|unknown scheme"):
        open_filesystem("nosuchthing")


def test_a_driver_that_only_knows_overwrite_puts_exclusively_by_that() -> None:
    class Azure(AsyncFileSystem):
        """As adlfs has it."""

        async def _pipe_file(
            self, path: str, value: bytes, overwrite: bool = True, **kwargs: object
        ) -> None: ...

    assert exclusive_put_options(Azure(skip_instance_cache=True)) == {"overwrite": False}


class Paged(AsyncFileSystem):
    """A bucket of 2,500 objects, given 1,000 at a time, and what was asked for."""

    def __init__(self) -> None:
        super().__init__(skip_instance_cache=True)
        self.asked: list[dict[str, object]] = []
        self.names = ["dir/", *(f"dir/{n:04d}.jpg" for n in range(2499))]

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None


class PagedLikeGoogle(Paged):
    """As gcsfs: a call of the JSON API for each page."""

    async def _call(self, method: str, path: str, bucket: str, **query: object) -> dict:
        self.asked.append({"method": method, "path": path, "bucket": bucket, **query})
        begin = int(str(query.get("pageToken") or 0))
        found = self.names[begin : begin + 1000]
        items = [{"name": name, "size": "0" if name.endswith("/") else "7"} for name in found]
        more = {"nextPageToken": str(begin + 1000)} if begin + 1000 < len(self.names) else {}
        return {"items": items, **more}

    def _process_object(self, bucket: str, found: dict) -> dict:
        return {**found, "name": f"{bucket}/{found['name']}", "size": int(found["size"])} | {
            "type": "file"
        }


class PagedLikeAzure(Paged):
    """As adlfs: the SDK's client, and records made of its blobs."""

    @property
    def service_client(self) -> PagedLikeAzure:
        return self

    def get_container_client(self, container: str) -> PagedLikeAzure:
        return self

    async def __aenter__(self) -> PagedLikeAzure:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def list_blobs(self, **query: object) -> PagedLikeAzure:
        self.query = query
        return self

    async def by_page(self):
        for begin in range(0, len(self.names), 1000):
            self.asked.append({"prefix": self.query["name_starts_with"]})
            yield self._page(self.names[begin : begin + 1000])

    async def _page(self, names: list[str]):
        for name in names:
            yield name

    async def _details(self, blobs: list[str]) -> list[dict]:
        kinds = {True: "directory", False: "file"}
        return [{"name": f"b/{b}", "size": 7, "type": kinds[b.endswith("/")]} for b in blobs]


@pytest.mark.parametrize("driver", [PagedLikeGoogle, PagedLikeAzure])
def test_a_bucket_is_listed_flat_and_a_page_at_a_time(driver: type[Paged]) -> None:
    fs = driver()
    entries = walk_remote(fs, "b/dir")
    assert next(entries).path == "b/dir/0000.jpg"  # the folder's own object is no file
    assert len(fs.asked) == 1 and fs.asked[0]["prefix"] == "dir/"
    assert [e.path for e in entries] == [f"b/dir/{n:04d}.jpg" for n in range(1, 2499)]
    assert len(fs.asked) == 3


def test_what_a_driver_raises_while_listing_is_an_oserror() -> None:
    class Broken(PagedLikeGoogle):
        async def _call(self, *_: object, **__: object) -> dict:
            raise ValueError("Request had invalid authentication credentials")

    with pytest.raises(OSError, match="invalid authentication"):
        list(walk_remote(Broken(), "b/dir"))
