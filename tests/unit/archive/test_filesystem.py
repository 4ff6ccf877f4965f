from __future__ import annotations

import datetime as dt
from pathlib import Path

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from textspot_ray.archive.filesystem import (
    content_tag,
    exclusive_put_options,
    modified_s,
    native_path,
    open_filesystem,
    split_uri,
    walk_remote,
)
from textspot_ray.archive.volume import FileInfo, RemoteVolume
from textspot_ray.errors import UsageError


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
    assert content_tag("s3", {"ETag": '"abc"', "size": 3}) == "etag:abc"
    assert content_tag("gs", {"generation": "17", "etag": "x"}) == "generation:17"
    assert (
        content_tag("abfs", {"last_modified": stamp, "size": 3})
        == f"stat:3-{stamp.timestamp():.6f}"
    )
    assert content_tag("https", {"ETag": "abc"}) is None
    assert content_tag("sftp", {"size": 3}) is None
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
