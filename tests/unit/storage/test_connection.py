"""A store where nobody listens is told within seconds, and only before anything has answered."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from textspot_ray.cli import main
from textspot_ray.errors import ExitCode, StorageError
from textspot_ray.storage import connection
from textspot_ray.storage.connection import check_connection
from textspot_ray.storage.faults import Contact, RetryPolicy, SilentHostError
from textspot_ray.storage.stores import RemoteStore


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PAUSE_S", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def dead() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def s3(url: str, **options: Any) -> Any:
    return SimpleNamespace(
        protocol=("s3", "s3a"),
        s3=SimpleNamespace(meta=SimpleNamespace(endpoint_url=url)),
        **options,
    )


def test_all_three_providers_are_asked_and_others_not(dead: str) -> None:
    google = SimpleNamespace(protocol=("gs", "gcs"), _location=dead)
    azure = SimpleNamespace(protocol=("abfs", "az"), service_client=SimpleNamespace(url=dead))
    for fs in (s3(dead), google, azure):
        with pytest.raises(SilentHostError, match=f"Cannot connect to {dead}: Connection refused"):
            check_connection(fs)
    check_connection(SimpleNamespace(protocol="memory"))
    check_connection(SimpleNamespace(protocol="s3"))  # a driver of another build tells nothing


def test_who_listens_is_reached(dead: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_connection(s3(f"http://127.0.0.1:{server.getsockname()[1]}"))


def test_behind_a_proxy_the_host_is_not_asked(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_connection(s3(dead, config_kwargs={"proxies": {"http": "http://proxy:3128"}}))
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    check_connection(s3(dead))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(SilentHostError):
        check_connection(s3(dead))


class Store:
    """A driver that fails some times before it answers; counts its calls."""

    protocol = ("s3",)

    def __init__(self, url: str, failures: int) -> None:
        self.s3 = SimpleNamespace(meta=SimpleNamespace(endpoint_url=url))
        self.failures, self.calls = failures, 0

    def cat_file(self, path: str) -> bytes:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError("reset")
        return b"data"


def test_a_driver_is_not_called_in_vain(dead: str) -> None:
    fs = Store(dead, failures=100)
    store = RemoteStore("s3://b", fs, "b", RetryPolicy(attempts=5))
    with pytest.raises(StorageError, match=r"Cannot connect to .*check storage_options"):
        store.read("x")
    assert fs.calls == 0


def test_workers_of_a_run_sit_it_out(dead: str) -> None:
    fs = Store(dead, failures=3)
    store = RemoteStore("s3://b", fs, "b", RetryPolicy(attempts=5, base_s=0.001), is_patient=True)
    assert store.read("x") == b"data" and fs.calls == 4


def test_after_the_first_connection_nothing_is_checked_any_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fs = Store(f"http://127.0.0.1:{server.getsockname()[1]}", failures=3)
        store = RemoteStore("s3://b", fs, "b", RetryPolicy(attempts=5, base_s=0.001))
        contact = store._contact
        with pytest.raises(ConnectionError):
            contact.watch(lambda: fs.cat_file("x"))()
    assert store.read("x") == b"data" and fs.calls == 4  # its host is gone, and tried all the same


def test_a_check_that_succeeds_is_made_once() -> None:
    checks: list[int] = []
    contact = Contact("s3://", lambda: checks.append(1))
    call = contact.watch(lambda: "done")
    assert call() == call() == "done" and checks == [1]


COMMANDS = [
    ["status", "s3://b/t"],
    ["plan", "s3://b/i/", "--probe", "0"],
    ["read", "s3://b/photo.jpg"],
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_so_in_one_line(
    command: list[str],
    dead: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # which goes by no variable
    monkeypatch.setenv("AWS_ENDPOINT_URL", dead)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    began_s = time.monotonic()
    assert main(command) in (ExitCode.USAGE, ExitCode.ABORTED, ExitCode.FAILED_IMAGES)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"Cannot connect to {dead}: Connection refused" in lines[0]
    assert "check storage_options" in lines[0]
    assert time.monotonic() - began_s < 60, "s3fs alone takes longer on an idle machine"
