from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.archives import (
    config,
    listed,
    names,
    picture,
    read_all,
    tar_bytes,
    zip_bytes,
)
from textspot_ray.config import ImageConfig
from textspot_ray.errors import MissingExtraError, SourceError, UsageError
from textspot_ray.records import ErrorKind
from textspot_ray.sources.listing import list_items


def write(folder: Path, *paths: str, data: bytes | None = None) -> None:
    for i, path in enumerate(paths):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture(i) if data is None else data)


def test_folder_is_recursive_sorted_and_counts_what_it_passes(tmp_path: Path) -> None:
    write(tmp_path, "b/2.jpg", "b/10.PNG", "a.jpeg", "c/d/e.webp", "notes.txt", ".hidden.jpg")
    write(tmp_path, ".git/x.jpg", "__MACOSX/a.jpg", "b/._2.jpg", "movie.mp4")
    write(tmp_path, "scan", "a.heic")
    write(tmp_path, "data", data=b"no image at all")
    items, reasons = listed(tmp_path)
    base = f"file://{tmp_path}/"
    assert [i.image_id.removeprefix(base) for i in items] == [
        "a.heic",
        "a.jpeg",
        "b/10.PNG",
        "b/2.jpg",
        "c/d/e.webp",
        "scan",
    ]
    assert reasons == {"hidden file": 2, "macOS metadata": 2, "not an image": 3}
    assert all(i.container == "file" and i.source == i.image_id for i in items)
    assert items[0].size == (tmp_path / "a.heic").stat().st_size
    assert len({i.content_tag for i in items}) >= 1 and None not in {i.content_tag for i in items}


def test_links_pipes_and_holes(tmp_path: Path) -> None:
    write(tmp_path, "real/a.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real/a.jpg")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    items, reasons = listed(tmp_path)
    assert names(items) == ["broken.jpg", "link.jpg", "a.jpg"]
    assert reasons == {"symbolic link to a folder": 1, "not a regular file": 1}
    broken, link, _ = read_all(items)
    assert broken.error is not None and broken.error.kind is ErrorKind.MISSING
    assert link.data == (tmp_path / "real/a.jpg").read_bytes()


def test_pipe_given_by_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    items, _ = listed(tmp_path / "pipe.jpg")
    assert read_all(items)[0].error is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_folder_that_may_not_be_read_is_a_row(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "shut/b.jpg")
    (tmp_path / "shut").chmod(0)
    items, _ = listed(tmp_path)
    (tmp_path / "shut").chmod(0o700)
    assert [i.error.kind if i.error else None for i in items] == [None, ErrorKind.DENIED]


def test_unlistable_folder_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.jpg", "shut/b.jpg", "z.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    items, _ = listed(tmp_path)
    assert names(items) == ["a.jpg", "shut", "z.jpg"]
    assert items[1].error is not None and items[1].error.kind is ErrorKind.DENIED
    assert read_all(items)[1].error == items[1].error


def test_archives_in_a_folder_are_opened(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    write(tmp_path, "b.tar", data=tar_bytes([("x.jpg", picture(1)), ("x.txt", b"caption")]))
    write(tmp_path, "c.zip", data=zip_bytes([("y.png", picture(2, "PNG")), ("in.tar", b"...")]))
    items, reasons = listed(tmp_path)
    assert names(items) == ["a.jpg", "b.tar#x.jpg", "c.zip#y.png"]
    assert reasons == {"not an image": 1, "archive inside an archive": 1}
    assert [e.error for e in read_all(items)] == [None] * 3


def test_output_of_an_earlier_run_is_no_source(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "out/_textspot/table.json", "out/words/x.parquet", "out/b.jpg")
    items, reasons = listed(tmp_path)
    assert names(items) == ["a.jpg"]
    assert reasons == {"output of textspot": 1}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ("*/c.jpg", ["c.jpg"]),
        ("sub/*", ["c.jpg", "d.jpg", "e.png"]),
        ("s*", ["c.jpg", "d.jpg", "e.png"]),
        ("[ab].jpg", ["a.jpg", "b.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("{a,b}.jpg", ["a.jpg", "b.jpg"]),
        ("sub/deep/*.{jpg,png}", ["d.jpg"]),
    ],
)
@pytest.mark.parametrize("where", ["local", "memory"])
def test_globs(pattern: str, expected: list[str], where: str, tmp_path: Path) -> None:
    paths = ["a.jpg", "b.jpg", "sub/c.jpg", "sub/deep/d.jpg", "sub/e.png", "notes.txt"]
    write(tmp_path, *paths)
    base = str(tmp_path)
    if where == "memory":
        base = f"memory:/{tmp_path}"
        put_memory(tmp_path, base)
    if pattern == "sub/deep/*.{jpg,png}":
        with pytest.raises(SourceError, match="nothing matches"):
            listed(f"{base}/{pattern}")
        return
    assert names(listed(f"{base}/{pattern}")[0]) == expected


def put_memory(folder: Path, base: str) -> None:
    from textspot_ray.storage.stores import open_store

    store = open_store(base)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(str(path.relative_to(folder)), path.read_bytes())


def test_a_name_with_pattern_characters_is_a_name_first(tmp_path: Path) -> None:
    write(tmp_path, "a[1].jpg", "a1.jpg", "x{1,2}.jpg")
    assert names(listed(tmp_path / "a[1].jpg")[0]) == ["a%5B1%5D.jpg"]
    assert names(listed(tmp_path / "x{1,2}.jpg")[0]) == ["x%7B1,2%7D.jpg"]


def test_memory_folder_like_local(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "s p/b.png", "s p/x.txt", ".h/c.jpg", "t.tar", "t.zip")
    write(tmp_path, "t.tar", data=tar_bytes([("m.jpg", picture(1))]))
    write(tmp_path, "t.zip", data=zip_bytes([("m.jpg", picture(1))], 8))
    base = f"memory:/{tmp_path}"
    put_memory(tmp_path, base)
    remote, remote_reasons = listed(base)
    local, local_reasons = listed(tmp_path)
    assert sorted(names(remote)) == sorted(names(local))
    assert remote_reasons == local_reasons
    assert {e.data for e in read_all(remote)} == {e.data for e in read_all(local)}
    assert all(i.content_tag for i in remote)


def test_overlapping_sources_give_one_item(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg")
    items, reasons = listed(tmp_path, tmp_path / "*.jpg", tmp_path / "a.jpg", f"file://{tmp_path}")
    assert names(items) == ["a.jpg", "b.jpg"]
    assert reasons == {"listed twice": 5}


def test_same_bytes_under_two_names_are_two_items(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg", data=picture())
    assert len(listed(tmp_path)[0]) == 2


def test_include_exclude_limit_and_sample(tmp_path: Path) -> None:
    write(tmp_path, *(f"{d}/{i:03d}.jpg" for d in ("x", "y") for i in range(100)))
    write(tmp_path, "x/t.tar", data=tar_bytes([("in/1.jpg", picture()), ("in/2.png", picture())]))
    items, reasons = listed(tmp_path, include=("*.jpg",), exclude=("y/*",))
    assert len(items) == 101
    assert reasons == {"excluded by pattern": 100, "not included by any pattern": 1}
    assert len(listed(tmp_path, exclude=("x/*",))[0]) == 100
    assert len(listed(tmp_path, limit=7)[0]) == 7
    assert listed(tmp_path, limit=0)[0] == []
    sample, reasons = listed(tmp_path, sample=0.3)
    assert 35 <= len(sample) <= 90
    assert reasons["not in the sample"] == 202 - len(sample)
    more = {i.image_id for i in listed(tmp_path, sample=0.6)[0]}
    assert {i.image_id for i in sample} <= more


def test_base_keeps_ids_over_mounts(tmp_path: Path) -> None:
    for mount in ("m1", "m2"):
        write(tmp_path / mount, "in/a b.jpg")
        write(tmp_path / mount, "in/t.tar", data=tar_bytes([("x.jpg", picture())]))
    ids = [
        [i.image_id for i in listed(tmp_path / m / "in", base=str(tmp_path / m))[0]]
        for m in ("m1", "m2")
    ]
    assert ids[0] == ids[1] == ["in/a%20b.jpg", "in/t.tar#x.jpg"]


def test_hostile_file_names_survive_the_whole_way(tmp_path: Path) -> None:
    raws = [
        b"sp ace.jpg",
        b"quo'te\".jpg",
        b"new\nline.jpg",
        "né日.jpg".encode(),
        b"by\xff\xfete.jpg",
    ]
    raws += [b"per%20cent.jpg", b"hash#1.jpg", b"tilde~2.jpg", b"back\\slash.jpg", b"-dash.jpg"]
    for i, raw in enumerate(raws):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)).write_bytes(picture(i))
    items, _ = listed(tmp_path)
    assert len(items) == len(raws)
    data = {e.item.image_id: e.data for e in read_all(items)}
    assert None not in data.values()
    assert sorted(d for d in data.values() if d) == sorted(picture(i) for i in range(len(raws)))
    again, reasons = listed(*(i.image_id for i in items))
    assert (len(again), reasons) == (len(raws), {})


def test_order_is_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path, *(f"{i % 7}/{i * 7919 % 1000}.jpg" for i in range(200)))
    first = [i.image_id for i in listed(tmp_path)[0]]
    assert first == [i.image_id for i in listed(tmp_path)[0]]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("/no/such/folder", "no such file or folder"),
        ("memory://no/such/place", "no such file or folder"),
        ("/no/such/*.jpg", "no such file or folder"),
        ("file:///no/such.tar", "no such file or folder"),
    ],
)
def test_what_is_not_there_is_one_line(uri: str, says: str) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        listed(uri)
    assert "\n" not in str(caught.value) and uri in str(caught.value)


def test_the_nearest_name_beside_what_is_not_there_is_told(tmp_path: Path) -> None:
    write(tmp_path, "photos/a.jpg", "scans/b.jpg")
    with pytest.raises(SourceError, match=r"phots; did you mean photos\?$"):
        listed(tmp_path / "phots")
    with pytest.raises(SourceError, match=r"letters$"):
        listed(tmp_path / "letters")


def test_other_wrong_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown scheme s4"):
        listed("s4://bucket/x")
    with pytest.raises(SourceError, match="no source"):
        list(list_items(config(), ImageConfig()))
    (tmp_path / "what").write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(SourceError, match=r"HTML page.*give a folder"):
        listed(tmp_path / "what")

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", absent)
    with pytest.raises(MissingExtraError, match=r"textspot-ray\[s3\]"):
        listed("s3://bucket/x")


def test_archives_and_images_are_known_by_content_where_the_name_is_silent(tmp_path: Path) -> None:
    write(tmp_path, "t", data=tar_bytes([("x.jpg", picture())]))
    write(tmp_path, "z.cbz", data=zip_bytes([("x.jpg", picture())]))
    write(tmp_path, "i.bin", data=picture())
    assert names(listed(tmp_path / "t")[0]) == ["t#x.jpg"]
    assert names(listed(tmp_path / "z.cbz")[0]) == ["z.cbz#x.jpg"]
    assert names(listed(tmp_path / "i.bin")[0]) == ["i.bin"]


def test_deep_nesting_needs_no_recursion(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d"] * 400)
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(picture())
    assert len(listed(tmp_path)[0]) == 1
