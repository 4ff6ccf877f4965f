"""Downloads against a server that fails, stalls, truncates, lies and serves wrong bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from textspot_ray.errors import BundleError
from textspot_ray.spotting.download import Patience, RemoteFile, bring

DATA = np.random.default_rng(0).bytes(400_000)
QUICK = Patience(attempts=3, timeout_s=0.4)


class Server:
    """Serves DATA by a behaviour that sees the request's number and the handler."""

    def __init__(self) -> None:
        self.behave: Callable[[int, BaseHTTPRequestHandler], None] = whole
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.behave(outer.asked, self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def file(self) -> RemoteFile:
        url = f"http://127.0.0.1:{self.http.server_port}/model.bin"
        return RemoteFile(url, "model.bin", hashlib.sha256(DATA).hexdigest(), len(DATA))


def send(handler: BaseHTTPRequestHandler, body: bytes, *, length: int | None = None) -> None:
    """Answer with a body; ``length`` overrides the announced size."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(n: int, handler: BaseHTTPRequestHandler) -> None:
    send(handler, DATA)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)


def fetch(server: Server, target: Path) -> list[int]:
    seen: list[int] = []
    bring([server.file], target, patience=QUICK, on_bytes=seen.append)
    return seen


def test_whole_file_arrives_and_progress_adds_up(server: Server, tmp_path: Path) -> None:
    seen = fetch(server, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == DATA
    assert sum(seen) == len(DATA) and len(seen) > 3
    assert list(tmp_path.iterdir()) == [tmp_path / "model.bin"]
    assert fetch(server, tmp_path) == [len(DATA)] and server.asked == 1


def test_transient_answers_and_cut_transfers_are_retried(server: Server, tmp_path: Path) -> None:
    def shaky(n: int, handler: BaseHTTPRequestHandler) -> None:
        if n == 1:
            handler.send_error(503)
        elif n == 2:
            send(handler, DATA[:200_000], length=len(DATA))  # says more than it sends
        else:
            send(handler, DATA)

    server.behave = shaky
    assert sum(fetch(server, tmp_path)) == len(DATA)
    assert server.asked == 3
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_stalling_server_ends_with_one_line(server: Server, tmp_path: Path) -> None:
    release = threading.Event()

    def stall(n: int, handler: BaseHTTPRequestHandler) -> None:
        release.wait(10)

    server.behave = stall
    with pytest.raises(BundleError, match=r"no answer in time; .*--from") as caught:
        fetch(server, tmp_path)
    release.set()
    assert "\n" not in str(caught.value)
    assert server.asked == QUICK.attempts
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize(
    "served",
    [DATA[:-5], DATA[:1000], b"", bytes(len(DATA)), bytes(len(DATA) + 9)],
    ids=["short", "tiny", "empty", "same length", "longer"],
)
def test_other_bytes_are_refused(server: Server, tmp_path: Path, served: bytes) -> None:
    server.behave = lambda n, handler: send(handler, served)
    with pytest.raises(BundleError, match="not the published file: its sha256 differs"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_file_is_healed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(100_000))
    fetch(server, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_missing_file_is_not_retried(server: Server, tmp_path: Path) -> None:
    server.behave = lambda n, handler: handler.send_error(404)
    with pytest.raises(BundleError, match="answered 404"):
        fetch(server, tmp_path)
    assert server.asked == 1


def test_no_network_is_one_line(tmp_path: Path) -> None:
    file = RemoteFile("http://127.0.0.1:9/x.bin", "x.bin", "0" * 64)
    with pytest.raises(BundleError, match=r"no connection; check the network.*--from DIR"):
        bring([file], tmp_path, patience=QUICK)


def test_local_copy_is_checked(tmp_path: Path) -> None:
    shop, target = tmp_path / "shop", tmp_path / "cache"
    (shop / "inside").mkdir(parents=True)
    good = RemoteFile("", "have.bin", hashlib.sha384(b"abc").hexdigest())
    (shop / "inside" / "have.bin").write_bytes(b"abc")
    (shop / "have.bin").write_bytes(b"abd")
    bring([good], target, origin=shop)
    assert [path.name for path in target.iterdir()] == ["have.bin"]
    assert (target / "have.bin").read_bytes() == b"abc"
    (shop / "inside" / "have.bin").write_bytes(b"abd")
    with pytest.raises(BundleError, match=r"have\.bin differs from the published one"):
        bring([good], tmp_path / "other", origin=shop)
    assert list((tmp_path / "other").iterdir()) == []
