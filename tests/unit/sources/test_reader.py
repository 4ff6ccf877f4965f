from __future__ import annotations

import errno
import gc
import gzip
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import (
    FAST,
    IMAGE,
    listed,
    picture,
    read_all,
    tar_bytes,
    zip_bytes,
    zstd,
)
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import StorageError
from textspot_ray.records import ErrorKind, Item, Stage
from textspot_ray.sources import reader as reader_module
from textspot_ray.sources.reader import Reader
from textspot_ray.storage.filesystem import open_filesystem
from textspot_ray.storage.stores import open_store
from textspot_ray.storage.volume import LocalVolume, RemoteVolume

MEMBERS = [(f"{i:03d}.jpg", picture(i)) for i in range(120)]


def make(kind: str, path: Path) -> Path:
    if kind == "parquet":
        table = pa.table({"image": [d for _, d in MEMBERS], "n": list(range(len(MEMBERS)))})
        pq.write_table(table, path, row_group_size=25)
    else:
        data = {
            "tar": lambda: tar_bytes(MEMBERS),
            "tar.gz": lambda: gzip.compress(tar_bytes(MEMBERS)),
            "tar.zst": lambda: zstd(tar_bytes(MEMBERS)),
            "zip": lambda: zip_bytes(MEMBERS, 8),
        }[kind]()
        path.write_bytes(data)
    return path


KINDS = ["tar", "tar.gz", "tar.zst", "zip", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead_bytes", [1, 10_000, 64 << 20])
def test_order_is_kept_whatever_is_read_ahead(tmp_path: Path, kind: str, ahead_bytes: int) -> None:
    items, _ = listed(make(kind, tmp_path / f"a.{kind}"))
    got = read_all(items, ahead_bytes=ahead_bytes)
    assert [e.item for e in got] == items
    assert [e.data for e in got] == [d for _, d in MEMBERS]
    assert all(e.error is None and e.read_s >= 0 for e in got)


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_and_mixed_sources(tmp_path: Path, kind: str) -> None:
    items, _ = listed(make(kind, tmp_path / f"a.{kind}"))
    (tmp_path / "single.jpg").write_bytes(picture(5))
    single = listed(tmp_path / "single.jpg")[0][0]
    mixed = [
        items[90],
        single,
        items[3],
        items[4],
        items[4],
        items[60],
        single,
        items[119],
        items[0],
    ]
    want = [90, 5, 3, 4, 4, 60, 5, 119, 0]
    assert [e.data for e in read_all(mixed)] == [picture(i) for i in want]


@pytest.mark.parametrize("kind", ["tar", "tar.zst", "zip", "parquet"])
def test_the_same_through_a_remote_driver(tmp_path: Path, kind: str) -> None:
    local = make(kind, tmp_path / f"a.{kind}")
    base = f"memory://{uuid.uuid4().hex}"
    open_store(base).put(f"a.{kind}", local.read_bytes())
    items, _ = listed(f"{base}/a.{kind}")
    assert [e.data for e in read_all(items)] == [d for _, d in MEMBERS]


def test_compressed_tar_is_opened_once_for_shards_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, _ = listed(make("tar.zst", tmp_path / "a.tar.zst"))
    opened: list[str] = []
    real = LocalVolume.open

    def count(self: LocalVolume, path: str) -> Any:
        opened.append(path)
        return real(self, path)

    monkeypatch.setattr(LocalVolume, "open", count)
    with Reader(SourceConfig(), IMAGE, retry=FAST) as reader:
        for start in (0, 30, 60, 90):  # the second half of each shard is done already
            shard = items[start : start + 15]
            assert [e.data for e in reader.read(shard)] == [
                d for _, d in MEMBERS[start : start + 15]
            ]
        assert len(opened) == 1
        assert [e.data for e in reader.read(items[:2])] == [picture(0), picture(1)]
        assert len(opened) == 2


def test_neighbours_in_an_archive_cost_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int | None]] = []
    real = LocalVolume.read

    def count(self: LocalVolume, path: str, start: int = 0, stop: int | None = None) -> bytes:
        reads.append((start, stop))
        return real(self, path, start, stop)

    for kind in ("tar", "zip"):
        items, _ = listed(make(kind, tmp_path / f"a.{kind}"))
        with monkeypatch.context() as patch:
            patch.setattr(LocalVolume, "read", count)
            reads.clear()
            assert all(e.data for e in read_all(items))
            assert len(reads) == 2  # at most 64 items a read


def test_file_faults_are_rows(tmp_path: Path) -> None:
    for name in ("gone", "changed", "touched", "empty", "large", "good", "folder"):
        (tmp_path / f"{name}.jpg").write_bytes(b"" if name == "empty" else picture(1))
    items, _ = listed(tmp_path)
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "changed.jpg").write_bytes(picture(2) + b"x")
    os.utime(tmp_path / "touched.jpg", ns=(1, 1))
    (tmp_path / "large.jpg").write_bytes(bytes(10_000))
    (tmp_path / "folder.jpg").unlink()
    (tmp_path / "folder.jpg").mkdir()
    items = [replace(i, content_tag=None) if "large" in i.source else i for i in items]
    got = {
        Path(e.item.source).stem: e.error.kind if e.error else e.data
        for e in read_all(items, image=ImageConfig(max_bytes=9_999))
    }
    assert got == {
        "changed": ErrorKind.CHANGED,
        "empty": ErrorKind.EMPTY_FILE,
        "folder": ErrorKind.MISSING,
        "gone": ErrorKind.MISSING,
        "good": picture(1),
        "large": ErrorKind.TOO_LARGE,
        "touched": ErrorKind.CHANGED,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_archive_that_goes_changes_or_shrinks_between_plan_and_read(
    tmp_path: Path, kind: str
) -> None:
    path = make(kind, tmp_path / f"a.{kind}")
    items, _ = listed(path)
    data = path.read_bytes()
    path.unlink()
    assert {e.error.kind for e in read_all(items) if e.error} == {ErrorKind.MISSING}
    path.write_bytes(data[: len(data) // 2])
    got = read_all(items)
    assert len(got) == len(items)
    failed = {e.error.kind for e in got if e.error}
    assert failed and failed <= {ErrorKind.BROKEN_ARCHIVE, ErrorKind.CHANGED}
    assert all(e.data in (None, d) for e, (_, d) in zip(got, MEMBERS, strict=True))
    others = [(f"{i:03d}.jpg", picture(i + 500)) for i in range(120)]
    if kind == "parquet":
        pq.write_table(pa.table({"image": [d for _, d in others]}), path)
    else:
        packed = {"tar": lambda d: d, "tar.gz": gzip.compress, "tar.zst": zstd}
        path.write_bytes(
            packed[kind](tar_bytes(others)) if kind in packed else zip_bytes(others, 8)
        )
    got = read_all(items)
    if kind == "zip" or kind == "parquet":
        assert {e.error.kind for e in got if e.error} == {ErrorKind.CHANGED}
    errors = [e.error for e in got if e.error and e.error.kind is ErrorKind.CHANGED]
    assert all("--on-changed redo" in e.message for e in errors)


def test_unreadable_zip_member_does_not_hurt_its_neighbours(tmp_path: Path) -> None:
    data = zip_bytes(MEMBERS[:3], 8)
    (tmp_path / "a.zip").write_bytes(data)
    items, _ = listed(tmp_path / "a.zip")
    assert items[1].offset is not None
    damaged = bytearray(data)
    damaged[items[1].offset] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(damaged)
    first, second, third = read_all(items)
    assert first.data == picture(0) and third.data == picture(2)
    assert second.error is not None and second.error.kind is ErrorKind.CHANGED


def test_zip_whose_local_headers_are_longer_than_expected(tmp_path: Path) -> None:
    import struct
    import zipfile

    info = zipfile.ZipInfo("a.jpg")
    info.extra = struct.pack("<HH", 0x9999, 40_000) + bytes(40_000)
    (tmp_path / "a.zip").write_bytes(zip_bytes([(info, picture(1)), ("b.jpg", picture(2))]))
    assert [e.data for e in read_all(listed(tmp_path / "a.zip")[0])] == [picture(1), picture(2)]


class Faulty:
    """Makes a volume's method fail the first times."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.calls = 0

    def wrap(self, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.faults:
                raise self.faults.pop(0)
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("method", ["read", "read_tagged", "open"])
def test_transient_faults_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    kind = {"read": "zip", "read_tagged": "jpg", "open": "tar.gz"}[method]
    path = tmp_path / f"a.{kind}"
    if kind == "jpg":
        path.write_bytes(picture(0))
    else:
        make(kind, path)
    items = listed(path)[0][:1]
    faulty = Faulty(ConnectionResetError("reset"), TimeoutError("slow"))
    with monkeypatch.context() as patch:
        patch.setattr(LocalVolume, method, faulty.wrap(getattr(LocalVolume, method)))
        assert read_all(items)[0].data == picture(0)
    assert faulty.calls == 3
    for fault, error, calls in [
        (ConnectionResetError("reset"), ErrorKind.STORAGE, 3),
        (TimeoutError("slow"), ErrorKind.TIMEOUT, 3),
        (PermissionError(errno.EACCES, "denied"), ErrorKind.DENIED, 1),
        (FileNotFoundError(errno.ENOENT, "gone"), ErrorKind.MISSING, 1),
    ]:
        faulty = Faulty(*[fault] * 9)
        with monkeypatch.context() as patch:
            patch.setattr(LocalVolume, method, faulty.wrap(getattr(LocalVolume, method)))
            got = read_all(items)[0].error
        assert got is not None
        assert (got.stage, got.kind, got.attempts) == (Stage.READ, error, calls)


def test_broken_connection_in_the_middle_of_a_compressed_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tar.gz"
    members = [(f"{i}.jpg", os.urandom(100_000)) for i in range(20)]
    path.write_bytes(gzip.compress(tar_bytes(members)))
    items, _ = listed(path)
    real = LocalVolume.open
    broken = [False]

    class Breaking:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, *args: Any) -> Any:
            if self.file.tell() > 1_000_000 and not broken[0]:
                broken[0] = True
                raise ConnectionResetError("reset")
            return self.file.read(*args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    monkeypatch.setattr(LocalVolume, "open", lambda self, path: Breaking(real(self, path)))
    assert [e.data for e in read_all(items)] == [d for _, d in members]
    assert broken[0]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("kind", ["jpg", "zip", "tar.gz"])
def test_storage_that_never_answers_costs_a_row_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event, kind: str
) -> None:
    for name in ("a", "stuck", "z"):
        if kind == "jpg":
            (tmp_path / f"{name}.jpg").write_bytes(picture(1))
        else:
            make(kind, tmp_path / f"{name}.{kind}")
    items, _ = listed(tmp_path)
    for method in ("read", "read_tagged", "open"):
        real = getattr(LocalVolume, method)

        def hang(self: Any, path: str, *args: Any, real: Any = real) -> Any:
            if "stuck" in path:
                gate.wait(30)
            return real(self, path, *args)

        monkeypatch.setattr(LocalVolume, method, hang)
    start = time.monotonic()
    got = read_all(items, timeout_s=0.2, threads=1)
    assert time.monotonic() - start < 20
    for encoded in got:
        if "stuck" in encoded.item.source:
            assert encoded.error is not None and encoded.error.kind is ErrorKind.TIMEOUT
        else:
            assert encoded.data is not None


def test_a_damaged_row_costs_its_table_no_opening_for_each_row_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [picture(i) for i in range(24)]
    path = tmp_path / "a.parquet"
    table = pa.table({"image": pictures})
    pq.write_table(table, path, row_group_size=4, use_dictionary=False, compression="none")
    items, _ = listed(path)
    data = bytearray(path.read_bytes())
    at = data.index(pictures[4])
    data[at - 4 : at] = b"\xff\xff\xff\x7f"  # the length of the second group's first value
    path.write_bytes(data)
    items = [replace(item, content_tag=LocalVolume().info(str(path)).tag) for item in items]
    opened = 0
    real = LocalVolume.open

    def count(self: LocalVolume, path: str) -> Any:
        nonlocal opened
        opened += 1
        return real(self, path)

    monkeypatch.setattr(LocalVolume, "open", count)
    got = read_all(items)
    bad = [n for n, encoded in enumerate(got) if encoded.data != pictures[n]]
    assert bad and set(bad) <= {4, 5, 6, 7}
    assert opened <= len(bad) + 1


@pytest.mark.parametrize("kind", ["tar.gz", "7z"])
def test_damage_that_many_items_meet_is_held_once(tmp_path: Path, kind: str) -> None:
    """An exception that is raised again keeps the frames of every raise."""
    members = [(f"{i:04d}.jpg", os.urandom(150).hex().encode()) for i in range(600)]
    path = tmp_path / f"a.{kind}"
    if kind == "7z":
        py7zr = pytest.importorskip("py7zr")
        with py7zr.SevenZipFile(path, "w") as archive:
            for name, data in members:
                archive.writestr(data, name)
    else:
        path.write_bytes(gzip.compress(tar_bytes(members)))
    items, _ = listed(path)
    data = path.read_bytes()
    rest = data[9000:] if kind == "7z" else b""  # the directory of a 7z is at its end
    path.write_bytes(data[:5000] + (bytes(4000) if rest else b"") + rest)
    gc.collect()
    before = sum(isinstance(held, TracebackType) for held in gc.get_objects())
    with Reader(SourceConfig(), IMAGE, retry=FAST) as reader:
        bad = sum(encoded.error is not None for encoded in reader.read(items))
        gc.collect()
        after = sum(isinstance(held, TracebackType) for held in gc.get_objects())
    assert bad > 500
    assert after - before < 100


def test_storage_that_always_hangs_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(picture(i))
    items, _ = listed(tmp_path)
    monkeypatch.setattr(LocalVolume, "read_tagged", lambda *_: gate.wait(30))
    with pytest.raises(StorageError, match="storage hangs"):
        read_all(items, timeout_s=0.02)


def test_leaving_off_early_cancels_and_the_reader_goes_on(tmp_path: Path) -> None:
    items, _ = listed(make("tar.gz", tmp_path / "a.tar.gz"))
    with Reader(SourceConfig(), IMAGE, ahead_bytes=1 << 20, retry=FAST) as reader:
        for _ in range(5):
            stream = reader.read(items)
            assert next(stream).data == picture(0)
            stream.close()
        assert [e.data for e in reader.read(items)] == [d for _, d in MEMBERS]


@pytest.mark.timeout(60)
def test_reads_that_nobody_waits_for_hold_neither_room_nor_threads(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * 3_000_000)
    items = [replace(item, size=None) for item in listed(tmp_path)[0]]
    with Reader(SourceConfig(), IMAGE, ahead_bytes=4 << 20, threads=2, retry=FAST) as reader:
        for _ in range(5):
            stream = reader.read(items)
            assert next(stream).data is not None
            time.sleep(0.02)  # those behind it have come to wait for room
            stream.close()
        assert [e.data for e in reader.read(items)] == [bytes([i]) * 3_000_000 for i in range(6)]


def test_memory_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(60):
        (tmp_path / f"{i:02d}.jpg").write_bytes(bytes(100_000))
    items, _ = listed(tmp_path)
    fetched: list[str] = []
    real = LocalVolume.read_tagged

    def note(self: LocalVolume, path: str, max_bytes: int, grow: Any) -> Any:
        fetched.append(path)
        return real(self, path, max_bytes, grow)

    monkeypatch.setattr(LocalVolume, "read_tagged", note)
    with Reader(SourceConfig(), IMAGE, ahead_bytes=500_000, retry=FAST) as reader:
        for number, encoded in enumerate(reader.read(items), 1):
            time.sleep(0.002)
            assert encoded.data is not None
            assert number <= len(fetched) <= number + 6


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_window_counts_what_items_take_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    big = [bytes(4_000_000)] * 26
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        path.write_bytes(zip_bytes([(f"{i}.bmp", d) for i, d in enumerate(big)], 8))
    else:
        pq.write_table(pa.table({"image": big}), path, row_group_size=9)
    items, _ = listed(path)
    fetched = 0
    real = reader_module._whole

    def count(data: bytes) -> Any:
        nonlocal fetched
        fetched += 1
        return real(data)

    monkeypatch.setattr(reader_module, "_whole", count)
    with Reader(SourceConfig(), IMAGE, ahead_bytes=10_000_000, retry=FAST) as reader:
        for number, encoded in enumerate(reader.read(items)):
            assert encoded.data is not None
            time.sleep(0.005)
            # The window, the one just given, and one that waits for room.
            assert fetched - number <= 5
    assert fetched == 26


def test_remote_file_that_arrives_short_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"memory://{uuid.uuid4().hex}"
    open_store(base).put("a.jpg", picture(1))
    items, _ = listed(base)
    real = open_filesystem("memory").cat_file
    calls: list[int] = []

    class Short:
        def __init__(self, fs: Any) -> None:
            self.fs = fs

        def cat_file(self, path: str, **options: Any) -> bytes:
            calls.append(1)
            return bytes(real(path, **options))[: 100 if len(calls) == 1 else None]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.fs, name)

    monkeypatch.setattr(
        "textspot_ray.storage.volumes.open_volume",
        lambda protocol, options: RemoteVolume(protocol, Short(open_filesystem(protocol))),
    )
    assert read_all(items)[0].data == picture(1)
    assert len(calls) == 2


def test_items_that_failed_at_listing_keep_their_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no more")
    items, _ = listed(tmp_path)
    assert read_all(items)[0].error == items[0].error


def test_nothing_to_read() -> None:
    assert read_all([]) == []


def test_item_of_an_unknown_scheme_is_a_row() -> None:
    item = Item("s4://b/a.jpg", "s4://b/a.jpg")
    error = read_all([item])[0].error
    assert error is not None and error.kind is ErrorKind.STORAGE and "s4" in error.message
