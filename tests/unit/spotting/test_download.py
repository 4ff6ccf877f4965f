"""Downloads against a server that fails, stalls, truncates, lies and serves wrong bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from textspot_ray.errors import BundleError
from textspot_ray.spotting.download import (
    CHUNK_BYTES,
    Patience,
    RemoteFile,
    copy_verified,
    download,
)

DATA = np.random.default_rng(0).bytes(400_000)
QUICK = Patience(attempts=3, back_off_s=0.01, timeout_s=0.4)


class Server:
    """Serves DATA by a behaviour that sees the request's number and the handler."""

    def __init__(self) -> None:
        self.behave: Callable[[int, BaseHTTPRequestHandler], None] = whole
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.ranges.append(self.headers.get("Range"))
                outer.behave(len(outer.ranges), self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def file(self) -> RemoteFile:
        url = f"http://127.0.0.1:{self.http.server_port}/model.bin"
        return RemoteFile(url, "model.bin", len(DATA), hashlib.sha256(DATA).hexdigest())


def send(handler: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None) -> None:
    """Answer with a body, honouring a range; ``length`` overrides the announced size."""
    asked = handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if asked and start >= len(body):
        handler.send_error(416)
        return
    handler.send_response(206 if asked else 200)
    part = body[start:]
    handler.send_header("Content-Length", str(len(part) if length is None else length))
    handler.end_headers()
    handler.wfile.write(part)


def whole(n: int, handler: BaseHTTPRequestHandler) -> None:
    send(handler, DATA)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def fetch(server: Server, target: Path) -> list[int]:
    seen: list[int] = []
    download(server.file, target, session=requests.Session(), patience=QUICK, on_bytes=seen.append)
    return seen


def test_whole_file_arrives_and_progress_adds_up(server: Server, tmp_path: Path) -> None:
    seen = fetch(server, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == DATA
    assert sum(seen) == len(DATA)
    assert list(tmp_path.iterdir()) == [tmp_path / "model.bin"]


def test_partial_file_is_resumed_by_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(DATA[:150_000])
    fetch(server, tmp_path / "model.bin")
    assert server.ranges == ["bytes=150000-"]
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    def no_ranges(n: int, handler: BaseHTTPRequestHandler) -> None:
        del handler.headers["Range"]
        send(handler, DATA)

    server.behave = no_ranges
    (tmp_path / "model.bin.part").write_bytes(DATA[:150_000])
    seen = fetch(server, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == DATA
    assert sum(seen) == len(DATA)


def test_transient_answers_and_cut_transfers_are_retried(server: Server, tmp_path: Path) -> None:
    def shaky(n: int, handler: BaseHTTPRequestHandler) -> None:
        if n == 1:
            handler.send_error(503)
        elif n == 2:
            send(handler, DATA[:200_000], length=len(DATA))  # says more than it sends
        else:
            send(handler, DATA)

    server.behave = shaky
    fetch(server, tmp_path / "model.bin")
    kept = 200_000 // CHUNK_BYTES * CHUNK_BYTES
    assert server.ranges == [None, None, f"bytes={kept}-"]
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_stalling_server_ends_with_one_line(server: Server, tmp_path: Path) -> None:
    release = threading.Event()

    def stall(n: int, handler: BaseHTTPRequestHandler) -> None:
        release.wait(10)

    server.behave = stall
    with pytest.raises(BundleError, match=r"no answer in time; .*--from") as caught:
        fetch(server, tmp_path / "model.bin")
    release.set()
    assert "\n" not in str(caught.value)
    assert len(server.ranges) == QUICK.attempts
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize("served", [DATA[:-5], DATA[:1000], b""], ids=["short", "tiny", "empty"])
def test_truncated_copy_is_refused(server: Server, tmp_path: Path, served: bytes) -> None:
    server.behave = lambda n, handler: send(handler, served)
    with pytest.raises(BundleError, match="cannot fetch"):
        fetch(server, tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize("served", [bytes(len(DATA)), bytes(len(DATA) + 9)], ids=["same", "longer"])
def test_wrong_bytes_are_refused_after_one_fresh_try(
    server: Server, tmp_path: Path, served: bytes
) -> None:
    server.behave = lambda n, handler: send(handler, served)
    with pytest.raises(BundleError, match="not the published file"):
        fetch(server, tmp_path / "model.bin")
    assert len(server.ranges) == 2
    assert list(tmp_path.iterdir()) == []


def test_damaged_partial_is_healed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(bytes(100_000))
    fetch(server, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == DATA
    assert server.ranges == ["bytes=100000-", None]


def test_missing_file_is_not_retried(server: Server, tmp_path: Path) -> None:
    server.behave = lambda n, handler: handler.send_error(404)
    with pytest.raises(BundleError, match="answered 404"):
        fetch(server, tmp_path / "model.bin")
    assert len(server.ranges) == 1


def test_no_network_is_one_line(tmp_path: Path) -> None:
    file = RemoteFile("http://127.0.0.1:9/x.bin", "x.bin", 10, "0" * 64)
    with pytest.raises(BundleError, match=r"no connection; check the network.*--from DIR"):
        download(file, tmp_path / "x.bin", session=requests.Session(), patience=QUICK)


def test_local_copy_is_checked(tmp_path: Path) -> None:
    source, target = tmp_path / "have.bin", tmp_path / "cache" / "model.bin"
    good = RemoteFile("", "have.bin", 3, hashlib.sha384(b"abc").hexdigest())
    source.write_bytes(b"abc")
    copy_verified(good, source, target)
    assert target.read_bytes() == b"abc"
    source.write_bytes(b"abd")
    with pytest.raises(BundleError, match=r"have\.bin is not the published file"):
        copy_verified(good, source, tmp_path / "other.bin")
    assert not (tmp_path / "other.bin").exists()
