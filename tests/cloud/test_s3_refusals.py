"""An S3 that refuses: one line that says what is wrong and what to do, before any work starts."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textspot_ray.cli import main

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
s3fs = pytest.importorskip("s3fs")

PHOTOS = Path(__file__).parents[2] / "jobs" / "demo" / "photos"
# As S3 puts it: status, code, message; and what a person must read.
REFUSALS = {
    "denied": (403, "AccessDenied", "Access Denied", "grant this identity"),
    "expired": (400, "ExpiredToken", "The provided token has expired.", "sign in again"),
    "redirect": (301, "PermanentRedirect", "The bucket you are attempting to access must be "
                 "addressed using the specified endpoint.", "another region"),
    "region": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed; the "
               "region 'us-east-1' is wrong; expecting 'eu-central-1'", "another region"),
    "key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our "
            "records.", "credentials are wrong"),
    "clock": (403, "RequestTimeTooSkewed", "The difference between the request time and the "
              "current time is too large.", "clock"),
}  # fmt: skip


class Refuser(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, code, message, _ = REFUSALS[self.server.case]  # type: ignore[attr-defined]
        text = (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        )
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_response(status)
        if self.server.case in ("redirect", "region"):  # type: ignore[attr-defined]
            self.send_header("x-amz-bucket-region", "eu-central-1")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = refuse

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=list(REFUSALS))
def refusal(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """The options to reach the store by, and the words that must be read."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser)
    server.case = request.param  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"s3": {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}}
    s3fs.S3FileSystem.clear_instance_cache()
    yield json.dumps(options), REFUSALS[request.param][3]
    server.shutdown()


@pytest.mark.parametrize("end", ["source", "output"])
def test_a_refusal_is_one_line_with_its_remedy(
    end: str, refusal: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, remedy = refusal
    source = "s3://bucket/photos" if end == "source" else str(PHOTOS)
    out = str(tmp_path / "out") if end == "source" else "s3://bucket/tables"
    chosen = ["--set", f"{end}.storage_options={options}"]
    status = main(["run", source, "--out", out, "--engine", "local", "-q", *chosen])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("textspot: cannot ")
    assert remedy in line
    assert status == (2 if end == "source" else 5)
