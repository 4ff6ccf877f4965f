"""A store that refuses: one line that says what is wrong and what to do, before any work starts."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.conftest import plain_gcsfs
from textspot_ray.cli import main

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]

PHOTOS = Path(__file__).parents[2] / "jobs" / "demo" / "photos"
# As the providers put it: status, code, message; and what a person must read.
REFUSALS = {
    "s3 denied": (403, "AccessDenied", "Access Denied", "grant this identity"),
    "s3 expired": (400, "ExpiredToken", "The provided token has expired.", "sign in again"),
    "s3 redirect": (301, "PermanentRedirect", "The bucket you are attempting to access must be "
                    "addressed using the specified endpoint.", "another region"),
    "s3 region": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed; the "
                  "region 'us-east-1' is wrong; expecting 'eu-central-1'", "another region"),
    "s3 key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in "
               "our records.", "credentials are wrong"),
    "s3 clock": (403, "RequestTimeTooSkewed", "The difference between the request time and the "
                 "current time is too large.", "clock"),
    "gs denied": (403, "forbidden", "x@y.iam.gserviceaccount.com does not have storage.objects.get "
                  "access to the Google Cloud Storage object. Permission 'storage.objects.get' "
                  "denied on resource (or it may not exist).", "grant this identity"),
    "gs expired": (401, "authError", "Request had invalid authentication credentials. Expected "
                   "OAuth 2 access token, login cookie or other valid authentication credential.",
                   "sign in again"),
    "gs nobody": (401, "required", "Anonymous caller does not have storage.objects.get access to "
                  "the Google Cloud Storage object.", "give credentials"),
    "az denied": (403, "AuthorizationPermissionMismatch", "This request is not authorized to "
                  "perform this operation using this permission.", "grant this identity"),
    "az expired": (403, "AuthenticationFailed", "Signature not valid in the specified time frame: "
                   "Start [Mon, 01 Jan 2024 00:00:00 GMT] - Expiry [Tue, 02 Jan 2024 00:00:00 GMT]",
                   "sign in again"),
    "az key": (403, "AuthenticationFailed", "Server failed to authenticate the request. Make sure "
               "the value of Authorization header is formed correctly including the signature.",
               "credentials are wrong"),
    "az container": (404, "ContainerNotFound", "The specified container does not exist.",
                     "no such"),
}  # fmt: skip
DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}


class Refuser(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        case = self.server.case  # type: ignore[attr-defined]
        status, code, message, _ = REFUSALS[case]
        self.send_response(status)
        if case.startswith("gs"):
            reasons = [{"reason": code, "message": message}]
            text = json.dumps({"error": {"code": status, "message": message, "errors": reasons}})
            self.send_header("Content-Type", "application/json")
        else:
            text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
            self.send_header("Content-Type", "application/xml")
        if case in ("s3 redirect", "s3 region"):
            self.send_header("x-amz-bucket-region", "eu-central-1")
        if case.startswith("az"):
            self.send_header("x-ms-error-code", code)
            text = f'<?xml version="1.0" encoding="utf-8"?>{text}'
        body = b"" if self.command == "HEAD" else text.encode()
        self.send_header("Content-Length", str(len(body)))
        # a client may hang up first
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = refuse

    def log_message(self, *_: Any) -> None:
        pass


def options_of(kind: str, url: str) -> dict[str, Any]:
    if kind == "s3":
        return {"s3": {"endpoint_url": url}}
    if kind == "gs":
        return {"gs": {"endpoint_url": url, "token": "anon", "project": "p"}}
    key = base64.b64encode(b"wrong").decode()
    text = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};BlobEndpoint={url}/a;"
    return {"az": {"connection_string": text}}


@pytest.fixture(params=list(REFUSALS))
def refusal(
    request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[str, str, Path]]:
    """The store's scheme, the words that must be read, and a configuration with its options."""
    kind = request.param.partition(" ")[0]
    driver = pytest.importorskip(DRIVERS[kind])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser)
    server.case = request.param  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if kind == "s3":
        driver.S3FileSystem.clear_instance_cache()
    config = tmp_path / "run.yaml"
    options = options_of(kind, f"http://127.0.0.1:{server.server_port}")
    text = json.dumps({"storage_options": options})
    config.write_text(f"source: {text}\noutput: {text}\n")
    with plain_gcsfs() if kind == "gs" else contextlib.nullcontext():
        yield kind, REFUSALS[request.param][3], config
    server.shutdown()


@pytest.mark.parametrize("end", ["source", "output"])
def test_a_refusal_is_one_line_with_its_remedy(
    end: str, refusal: tuple[str, str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, hint, config = refusal
    source = f"{kind}://bucket/photos" if end == "source" else str(PHOTOS)
    out = str(tmp_path / "out") if end == "source" else f"{kind}://bucket/tables"
    words = ["run", source, "--out", out, "--engine", "local", "-q", "--config", str(config)]
    status = main(words)
    line = capsys.readouterr().err
    assert line.count("\n") == 1, line
    assert line.startswith(("textspot: cannot ", "textspot: no such "))
    assert hint in line or (end == "output" and "make the bucket first" in line)
    assert status == (2 if end == "source" else 5)


@pytest.mark.parametrize("refusal", ["gs denied", "az denied"], indirect=True)
def test_drivers_say_nothing_beside_it(refusal: tuple[str, str, Path], tmp_path: Path) -> None:
    """In a process of its own, where nothing takes what drivers log."""
    kind, hint, config = refusal
    words = ["run", f"{kind}://bucket/photos", "--out", str(tmp_path / "out"), "--engine", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "textspot_ray", *words, "-q", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},
    )
    assert done.stderr.count("\n") == 1, done.stderr
    line = done.stderr
    assert hint in line and done.returncode == 2
