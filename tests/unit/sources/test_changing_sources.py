"""Files that grow, shrink or are replaced while they are read: never a mix, and nothing unsaid."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import IMAGE, config, listed, picture, read_all, tar_bytes
from textspot_ray.errors import SourceError
from textspot_ray.records import Encoded, ErrorKind, Item, Skipped
from textspot_ray.sources.kinds import tables
from textspot_ray.sources.listing import list_items
from textspot_ray.storage import volume as volume_module
from textspot_ray.storage.faults import SourceChangedError
from textspot_ray.storage.volume import LocalVolume, RemoteVolume

OLD, NEW = b"\xff\xd8\xff" + b"o" * 9_997, b"\xff\xd8\xff" + b"n" * 9_997


def in_place(path: Path, data: bytes) -> None:
    """Write into the file that is there, and see to it that its date tells."""
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()
    os.utime(path, ns=(before + 10**9, before + 10**9))


def by_rename(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(10**18, 10**18))
    other.replace(path)


def halfway(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], times: int = 1) -> list[int]:
    """Have the next local reads come in two halves, with an act of others between them."""
    real, calls = volume_module._pread, [0]

    def pread(descriptor: int, start: int, stop: int) -> bytes:
        calls[0] += 1
        if calls[0] > times:
            return real(descriptor, start, stop)
        middle = (start + stop) // 2
        first = real(descriptor, start, middle)
        act()
        return first + real(descriptor, middle, stop)

    monkeypatch.setattr(volume_module, "_pread", pread)
    return calls


def whole(encoded: Encoded) -> bytes | None:
    """An item's bytes, after a look at the digest that goes into the tables."""
    if encoded.data is not None:
        assert encoded.sha256 == hashlib.sha256(encoded.data).hexdigest()
    return encoded.data


@pytest.mark.parametrize("change", [in_place, by_rename])
@pytest.mark.parametrize("now", [NEW, NEW + b"more", NEW[:5_000]], ids=["same", "grown", "shrunk"])
@pytest.mark.parametrize("is_planned", [True, False])
def test_an_image_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, now: bytes, is_planned: bool
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(OLD)
    (item,) = listed(path)[0]
    if not is_planned:  # as a list of URIs names it
        item = replace(item, size=None, content_tag=None)
    halfway(monkeypatch, lambda: change(path, now))
    (got,) = read_all([item])
    if change is by_rename:  # whoever has opened a file keeps it
        assert whole(got) == OLD
    elif is_planned:
        assert got.error is not None and got.error.kind is ErrorKind.CHANGED
    else:
        assert whole(got) == now


def test_an_image_that_never_keeps_still_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(OLD)
    item = replace(listed(path)[0][0], size=None, content_tag=None)
    halfway(monkeypatch, lambda: in_place(path, NEW), times=99)
    (got,) = read_all([item])
    assert got.error is not None and got.error.kind is ErrorKind.CHANGED
    assert got.error.attempts == 3 and "while it was read" in got.error.message


def tar_of(first: bytes, *more: bytes) -> bytes:
    return tar_bytes([(f"{n}.jpg", data) for n, data in enumerate([first, *more])])


def test_a_member_of_a_tar_that_is_overwritten_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(OLD))
    items, _ = listed(path)
    halfway(monkeypatch, lambda: in_place(path, tar_of(NEW)))
    assert [whole(e) for e in read_all(items)] == [NEW]  # the same header: nothing else can tell


def test_what_is_appended_to_a_tar_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(OLD, NEW))
    items, _ = listed(path)
    count = iter(range(1_000_000))

    def append() -> None:
        in_place(path, tar_of(OLD, NEW, *[picture(1)] * (1 + next(count))))

    halfway(monkeypatch, append, times=99)
    assert [whole(e) for e in read_all(items)] == [OLD, NEW]


def test_a_large_member_is_not_made_of_two_tars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header is read first, and then its data."""
    path = tmp_path / "a.tar"
    large = [b"\xff\xd8\xff" + letter * (9 << 20) for letter in (b"o", b"n")]
    path.write_bytes(tar_of(large[0]))
    items, _ = listed(path)
    real, reads = LocalVolume.read, [0]

    def read(self: LocalVolume, path_: str, start: int = 0, stop: int | None = None) -> bytes:
        data = real(self, path_, start, stop)
        reads[0] += 1
        if reads[0] == 1:
            by_rename(path, tar_of(large[1]))
        return data

    monkeypatch.setattr(LocalVolume, "read", read)
    (got,) = read_all(items)
    assert whole(got) == large[1] and reads[0] > 2


@pytest.mark.parametrize("change", [in_place, by_rename])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("is_planned", [True, False])
def test_a_table_that_changes_between_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, kind: str, is_planned: bool
) -> None:
    path = tmp_path / f"a.{kind}"
    rows = [[b"\xff\xd8\xff" + bytes([n, m]) * 3_000_000 for m in range(4)] for n in range(2)]

    def table(images: list[bytes]) -> bytes:
        made = pa.table({"image": images})
        sink = pa.BufferOutputStream()
        if kind == "parquet":
            pq.write_table(
                made, sink, compression="none", use_dictionary=False, row_group_size=1,
                write_statistics=False,
            )  # fmt: skip
        else:
            with pa.ipc.new_file(sink, made.schema) as writer:
                writer.write_table(made, max_chunksize=1)
        return bytes(sink.getvalue())

    path.write_bytes(table(rows[0]))
    items, _ = listed(path)
    assert len(items) == 4
    if not is_planned:  # a server that tells nothing of it
        items = [replace(item, content_tag=None) for item in items]
    real, done = tables._TableItems._read, [0]

    def read(self: Any, item: Item) -> bytes:
        done[0] += 1
        if done[0] == 2:
            change(path, table(rows[1]))
        return real(self, item)

    monkeypatch.setattr(tables._TableItems, "_read", read)
    got = read_all(items)
    assert whole(got[0]) == rows[0][0]
    if is_planned:
        assert [e.error and e.error.kind for e in got[1:]] == [ErrorKind.CHANGED] * 3
    else:
        assert [whole(e) for e in got[1:]] == rows[1][1:]


class PartsDriver:
    """As s3fs and gcsfs: a large object is fetched in parts, each of what is there by then."""

    def __init__(self, data: bytes, then: bytes | None) -> None:
        self.data, self._then, self.infos = data, then, 0

    def info(self, path: str) -> dict[str, Any]:
        self.infos += 1
        tag = hashlib.sha256(self.data).hexdigest()
        return {"name": path, "type": "file", "size": len(self.data), "ETag": tag}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        stop = len(self.data) if end is None else end
        whole = bytearray(stop - (start or 0))  # what a part lacks stays zero
        middle = ((start or 0) + stop) // 2
        first = self.data[start or 0 : middle]
        if self._then is not None:
            self.data, self._then = self._then, None
        second = self.data[middle:stop]
        whole[: len(first)] = first
        whole[len(whole) - (stop - middle) :][: len(second)] = second
        parts = first + second
        return parts + bytes(len(whole) - len(parts))


@pytest.mark.parametrize("method", ["read_tagged", "read"])
@pytest.mark.parametrize("then", [b"n" * (9 << 20), b"n" * (7 << 20), b"n" * (11 << 20)])
def test_objects_that_are_fetched_in_parts_are_of_one_version(method: str, then: bytes) -> None:
    driver = PartsDriver(b"o" * (9 << 20), then)
    volume = RemoteVolume("s3", driver)

    def read() -> bytes:
        if method == "read":
            return volume.read("b/x", 0, 9 << 20)
        data, info = volume.read_tagged("b/x", 1 << 30)
        assert data is not None and len(data) == info.size
        return data

    with pytest.raises(SourceChangedError):
        read()
    assert read().rstrip(b"\0") == then[: 9 << 20 if method == "read" else None]


def test_small_objects_cost_no_second_look() -> None:
    driver = PartsDriver(b"o" * 100_000, None)
    volume = RemoteVolume("s3", driver)
    assert volume.read_tagged("b/x", 1 << 30)[0] == driver.data and driver.infos == 1
    assert volume.read("b/x", 0, 99) == driver.data[:99] and driver.infos == 1


def test_a_list_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    for n in range(4):
        (tmp_path / f"{n}.jpg").write_bytes(picture(n))
    path = tmp_path / "list.csv"
    path.write_text("path\n" + "".join(f"{n}.jpg\n" for n in range(3)))
    seen = []
    with pytest.raises(SourceError, match=r"cannot read list .*list\.csv: it changed while"):
        for found in list_items(config(path), IMAGE):
            seen.append(found)
            if len(seen) == 1:
                with path.open("a") as file:
                    file.write("3.jpg\n")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_an_archive_that_changes_while_it_is_listed_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    images = [picture(n) for n in range(3)]

    def write(images: list[bytes]) -> None:
        if kind == "tar":
            path.write_bytes(tar_of(*images))
        else:
            pq.write_table(pa.table({"image": images}), path)

    write(images)
    found: list[Item | Skipped] = []
    for item in list_items(config(path), IMAGE):
        if not found:
            write([*images, picture(4)])
        found.append(item)
    told = [item for item in found if isinstance(item, Item) and item.error is not None]
    assert [item.error.kind for item in told if item.error] == [ErrorKind.CHANGED]
    assert told[0].image_id == listed(path)[0][0].image_id.partition("#")[0]
    assert "run again to list the rest" in str(told[0].error)
