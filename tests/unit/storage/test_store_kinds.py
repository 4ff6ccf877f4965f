from __future__ import annotations

import errno
import logging
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from textspot_ray.errors import ConfigError, MissingExtraError, StorageError, UsageError
from textspot_ray.storage import stores
from textspot_ray.storage.faults import RetryPolicy
from textspot_ray.storage.stores import Entry, LocalStore, RemoteStore, Store, open_store

FAST = RetryPolicy(attempts=3, base_s=0.001)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    uri = str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"
    return open_store(uri, create=True, retry=FAST)


def test_put_read_and_size(store: Store) -> None:
    store.put("words/a.parquet", b"0123456789")
    assert store.read("words/a.parquet") == b"0123456789"
    assert store.size("words/a.parquet") == 10
    store.put("words/a.parquet", b"new")
    assert store.read("words/a.parquet") == b"new"
    with store.open_read("words/a.parquet") as file:
        file.seek(1)
        assert file.read() == b"ew"


def test_missing_is_file_not_found(store: Store) -> None:
    assert not store.exists("nothing")
    for call in (store.read, store.size, store.open_read):
        with pytest.raises(FileNotFoundError):
            call("nothing")
    store.put("a/b", b"x")
    assert not store.exists("a")
    store.delete("nothing")


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    assert store.put_if_absent("t.json", b"first")
    assert not store.put_if_absent("t.json", b"second")
    assert store.read("t.json") == b"first"
    store.delete("t.json")
    assert store.put_if_absent("t.json", b"third")


def test_put_if_absent_has_one_winner_among_threads(store: Store) -> None:
    wins: list[int] = []
    gate = threading.Barrier(8)

    def race(me: int, path: str) -> None:
        gate.wait()
        if store.put_if_absent(path, str(me).encode()):
            wins.append(me)

    for turn in range(20):
        wins.clear()
        threads = [threading.Thread(target=race, args=(i, f"race/{turn}")) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert store.read(f"race/{turn}") == str(wins[0]).encode()


def test_probe_says_exclusive_and_leaves_nothing(store: Store) -> None:
    assert store.probe_exclusive()
    assert list(store.list()) == []
    assert list(store.list("_textspot/tmp/")) == []


def test_list_is_by_prefix_and_hides_temporary_files(store: Store) -> None:
    for path in ("b/2", "b/10", "b/1", "a", "_textspot/done/000001-1", "_textspot/done/000002-1"):
        store.put(path, b"xy")
    store.put("_textspot/tmp/left-over", b"")
    assert {e.path for e in store.list("b/")} == {"b/1", "b/10", "b/2"}
    assert [e.path for e in store.list("_textspot/done/000001-")] == ["_textspot/done/000001-1"]
    assert "_textspot/tmp/left-over" not in {e.path for e in store.list()}
    assert [e.path for e in store.list("_textspot/tmp/")] == ["_textspot/tmp/left-over"]
    entry = next(iter(store.list("a")))
    assert entry == Entry("a", 2, entry.mtime)
    assert entry.mtime > 1e9
    assert list(store.list("no/such/")) == []


def test_upload_takes_the_file_away(store: Store, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"part" * 1000)
    store.upload(part, "words/p")
    assert not part.exists()
    assert store.read("words/p") == b"part" * 1000


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up"])
def test_paths_stay_inside(store: Store, path: str) -> None:
    with pytest.raises(AssertionError):
        store.put(path, b"")


def test_local_failure_leaves_neither_target_nor_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path), create=True, retry=FAST)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*words/a: No space left.*full"):
        store.put("words/a", b"x" * 100)
    with pytest.raises(StorageError):
        store.put_if_absent("words/a", b"x" * 100)
    monkeypatch.undo()
    assert not store.exists("words/a")
    assert list(store.list("_textspot/tmp/")) == []


@pytest.mark.parametrize("other_disk", [False, True])
@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_an_upload_survives_a_passing_fault(
    broken: str, other_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call of the system fails first, the local file is still there for the next try."""
    store = open_store(str(tmp_path / "out"), create=True, retry=FAST)
    part = tmp_path / "part"
    part.write_bytes(b"part" * 1000)
    real, calls = getattr(os, broken), 0

    def once(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(*args, **options)

    monkeypatch.setattr(stores.os, broken, once)
    if other_disk:
        move = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if self == part:
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return move(self, target)

        monkeypatch.setattr(Path, "replace", replace)
    store.upload(part, "words/p")
    monkeypatch.undo()
    assert calls > 1 and not part.exists()
    assert store.read("words/p") == b"part" * 1000
    assert list(store.list("_textspot/tmp/")) == []


def test_store_without_links_is_not_exclusive_but_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_link)
    store = open_store(str(tmp_path), retry=FAST)
    assert not store.probe_exclusive()
    assert store.put_if_absent("a", b"1")
    assert store.read("a") == b"1"


def test_out_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot make") as caught:
        open_store(str(tmp_path / "f"), create=True)
    assert "\n" not in str(caught.value)


def test_reading_needs_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "none"))
    assert not store.exists("x")
    assert list(store.list()) == []
    assert not (tmp_path / "none").exists()


def test_unknown_scheme_and_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown scheme s4"):
        open_store("s4://bucket/x")
    with pytest.raises(UsageError, match="chained"):
        open_store("zip://a::s3://b/c.zip")

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", absent)
    for uri, extra in [
        ("s3://b", "s3"),
        ("gs://b", "gcs"),
        ("az://b", "azure"),
        ("https://b", "http"),
    ]:
        with pytest.raises(MissingExtraError, match=rf"textspot-ray\[{extra}\]"):
            open_store(uri)


def test_options_must_be_by_protocol() -> None:
    with pytest.raises(ConfigError, match=r"storage_options\.memory"):
        open_store("memory://x", {"memory": True})


class Flaky(RemoteStore):
    """A memory store whose creation fails or loses its answer the first times."""

    def __init__(self, faults: list[Exception], lose_answer: bool) -> None:
        base = open_store(f"memory://{uuid.uuid4().hex}")
        assert isinstance(base, RemoteStore)
        super().__init__(base.uri, base._fs, base._root, FAST)
        self.faults = faults
        self.lose_answer = lose_answer

    def _create(self, full: str, data: bytes) -> bool:
        done = self.lose_answer and super()._create(full, data)
        if self.faults:
            raise self.faults.pop()
        return done if self.lose_answer else super()._create(full, data)


def test_transient_faults_are_retried() -> None:
    store = Flaky([ConnectionResetError("reset"), TimeoutError("slow")], lose_answer=False)
    assert store.put_if_absent("a", b"1")
    store = Flaky([ConnectionResetError("reset")] * 3, lose_answer=False)
    with pytest.raises(StorageError, match="after all retries"):
        store.put_if_absent("a", b"1")


def test_a_store_that_never_answered_is_told_of_once_with_what_to_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)  # NNCF, where tests have used it, leaves handlers at ERROR

    def refused() -> list[Exception]:
        return [ConnectionError('Could not connect to the endpoint URL: "http://h:1/"')] * 3

    store = Flaky(refused(), lose_answer=False)
    with pytest.raises(StorageError, match=r"\(check storage_options\.\*\.endpoint_url"):
        store.put_if_absent("a", b"1")
    (told,) = caplog.messages
    assert "does not answer, trying again: Could not connect" in told
    store.faults = refused()
    deleted: list[str] = []
    store.delete = deleted.append  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        store.probe_exclusive()
    assert not deleted, "as many tries again, for nothing"
    caplog.clear()
    store.put("a", b"1")
    store.faults = refused()
    with pytest.raises(StorageError, match="run again later"):  # it is known to be right
        store.put_if_absent("b", b"1")
    assert not caplog.messages


def test_put_whose_answer_was_lost_meets_its_own_file() -> None:
    store = Flaky([ConnectionResetError("reset")], lose_answer=True)
    assert store.put_if_absent("a", b"mine")
    assert not store.put_if_absent("a", b"theirs")


def test_faults_that_stay_are_not_retried() -> None:
    faults: list[Exception] = [
        PermissionError(errno.EACCES, "no"),
        PermissionError(errno.EACCES, "no"),
    ]
    store = Flaky(faults, lose_answer=False)
    with pytest.raises(StorageError, match="permissions or credentials"):
        store.put_if_absent("a", b"1")
    assert len(faults) == 1


def test_local_store_is_not_fsspec(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/x", create=True)
    assert isinstance(store, LocalStore)
    assert store.local_path("a/b") == tmp_path / "x" / "a" / "b"
