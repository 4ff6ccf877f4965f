"""A published model of lines over HTTP: from a publisher on loopback that is not always good."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from textspot_ray.errors import BundleError
from textspot_ray.spotting import ppocr
from textspot_ray.spotting.catalogue import load_bundle

MODEL = "ppocrv6-small"
FILES = {part: f"v1/{part}/{part}.onnx" for part in ("detector", "recognizer", "classifier")}


class Publisher(SimpleHTTPRequestHandler):
    """Serves a folder; ``spoil`` may answer itself."""

    asked: list[str]
    spoil: Callable[[Publisher], bool]

    def do_GET(self) -> None:
        Publisher.asked.append(Path(self.path).name)
        if not Publisher.spoil(self):
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Fetches the model of a publisher with three files."""
    shop, cache = tmp_path / "shop", tmp_path / "cache"
    facts: dict[str, Any] = {"reads": "all"}
    for part, path in FILES.items():
        (shop / path).parent.mkdir(parents=True)
        body = part.encode() * 20_000
        (shop / path).write_bytes(body)
        facts[part] = {"path": path, "sha256": hashlib.sha256(body).hexdigest()}
    Publisher.asked, Publisher.spoil = [], lambda handler: False
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Publisher, directory=str(shop)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    all_facts = {
        "root": f"http://127.0.0.1:{server.server_port}/",
        "release": "1",
        "publisher": "us",
        "licence": "MIT",
        "package": "no_such_package",
        "models": {MODEL: facts},
    }
    monkeypatch.setattr(ppocr, "_facts", lambda: all_facts)
    monkeypatch.setenv("TEXTSPOT_CACHE", str(cache))
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    yield lambda: ppocr.fetch_lines(MODEL)
    server.shutdown()
    server.server_close()


def _half(handler: Publisher) -> bool:
    """Half of the recogniser, announced whole."""
    if not handler.path.endswith("recognizer.onnx"):
        return False
    body = b"recognizer" * 20_000
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    return True


def test_a_whole_model_arrives(bring: Callable[[], Path]) -> None:
    seen: list[int] = []
    folder = ppocr.fetch_lines(MODEL, on_bytes=seen.append)
    bundle = load_bundle(MODEL)
    bundle.verify("f32")
    assert bundle.folder == folder
    assert sum(seen) == sum((folder / f"{part}.onnx").stat().st_size for part in FILES)
    Publisher.asked.clear()
    bring()
    assert Publisher.asked == []  # all there and intact


def test_half_a_body_is_refused_and_the_rest_goes_on(bring: Callable[[], Path]) -> None:
    Publisher.spoil = _half
    with pytest.raises(BundleError, match=r"recognizer.onnx: the transfer broke off; .*--from DIR"):
        bring()
    with pytest.raises(BundleError, match="not here yet"):
        load_bundle(MODEL)
    Publisher.spoil = lambda handler: False
    Publisher.asked.clear()
    bring()
    assert Publisher.asked == ["recognizer.onnx", "classifier.onnx"]  # the detector had arrived
    load_bundle(MODEL).verify("f32")


def test_half_a_body_once_is_made_good(bring: Callable[[], Path], tmp_path: Path) -> None:
    Publisher.spoil = lambda handler: (
        Publisher.asked.count("recognizer.onnx") == 1 and _half(handler)
    )
    stray = tmp_path / "cache" / "models" / MODEL / "tmp_k1lled"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half of something")
    folder = bring()
    assert Publisher.asked.count("recognizer.onnx") == 2
    load_bundle(MODEL).verify("f32")
    assert not list(folder.glob("tmp*"))


def test_another_file_in_its_place_is_refused(bring: Callable[[], Path], tmp_path: Path) -> None:
    (tmp_path / "shop" / FILES["detector"]).write_bytes(b"detector of another kind")
    with pytest.raises(BundleError, match="is not the published file: its sha256 differs") as told:
        bring()
    assert "\n" not in str(told.value)
    with pytest.raises(BundleError, match="not here yet"):
        load_bundle(MODEL)
    assert not (tmp_path / "cache" / "models" / MODEL).exists()


def test_a_file_that_is_gone_is_said_at_once(bring: Callable[[], Path], tmp_path: Path) -> None:
    (tmp_path / "shop" / FILES["detector"]).unlink()
    with pytest.raises(BundleError, match="the server answered 404; use --from"):
        bring()
    assert Publisher.asked == ["detector.onnx"]
