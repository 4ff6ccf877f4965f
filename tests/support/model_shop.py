"""A publisher on loopback: stub bundles under the published paths, with facts to match."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.stub_bundle import write_stub_bundle

MODEL = "text-spotting-0004"
PATH = "2021.3/models_bin/2"
OMZ_PARTS = {
    "detector": "detector",
    "encoder": "recognizer-encoder",
    "decoder": "recognizer-decoder",
}
# each set of weights is a stub of another kind, so that its files have other checksums
KINDS: dict[str, dict[str, str]] = {
    "FP32": {},
    "FP16": {"suffix": ".0"},
    "FP16-INT8": {"rows": "dynamic"},
}
ALGORITHMS = {"FP32": "sha256", "FP16": "sha384", "FP16-INT8": "sha384"}


class Shop:
    """Files under ``folder``, served at ``root``; ``facts`` describes them as published.yaml does.

    Attributes:
        asked: Path of every request so far.
        before: Called before a request is answered; may answer itself and return True.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.before: Callable[[BaseHTTPRequestHandler, bytes], bool] = lambda handler, body: False
        self.facts: dict[str, Any] = {
            "models": {
                MODEL: {
                    "detection_threshold": 0.8,
                    "text_threshold": 0.3,
                    "accuracy": {"published hmean": "70.34 %"},
                    "weights": {weights: self._publish(weights) for weights in KINDS},
                }
            }
        }
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.facts["root"] = self.root

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/open_model_zoo/"

    def path(self, weights: str, part: str, suffix: str) -> Path:
        """Where a published file lies."""
        stem = f"{MODEL}-{OMZ_PARTS[part]}"
        return self.folder / PATH / MODEL / stem / weights / f"{stem}.{suffix}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        file = self.folder / handler.path.removeprefix("/open_model_zoo/")
        if not file.is_file():
            handler.send_error(404)
            return
        body = file.read_bytes()
        if self.before(handler, body):
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _publish(self, weights: str) -> dict[str, Any]:
        made = write_stub_bundle(self.folder / "made" / weights, **KINDS[weights])  # type: ignore[arg-type]
        facts: dict[str, Any] = {"path": PATH}
        for part in OMZ_PARTS:
            facts[part] = {}
            for suffix in ("xml", "bin"):
                target = self.path(weights, part, suffix)
                target.parent.mkdir(parents=True, exist_ok=True)
                data = (made / f"{part}.{suffix}").read_bytes()
                target.write_bytes(data)
                checksum = hashlib.new(ALGORITHMS[weights], data).hexdigest()
                facts[part][suffix] = {"size": len(data), "checksum": checksum}
        return facts


def fetch_in_process(facts: dict[str, Any], cache: str, weights: str) -> str:
    """Fetch with other facts than the packaged ones; runs in a process of its own."""
    from textspot_ray.spotting import download as fetch

    fetch._facts = lambda: facts
    return str(fetch.fetch_model(MODEL, [weights], cache=Path(cache)))
