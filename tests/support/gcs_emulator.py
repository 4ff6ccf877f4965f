"""Google's store on loopback: gcp-storage-emulator, and what it leaves out that we rest upon.

The emulator (PyPI) answers one request at a time and knows neither preconditions nor pages. Both
are added here by the rules of Google's JSON API: ``ifGenerationMatch=0`` writes only where nothing
is (else 412), and a listing gives ``maxResults`` entries with a ``nextPageToken``.
"""

from __future__ import annotations

import io
import json
import re
import threading
from functools import partial
from http.server import HTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

_LISTING = re.compile(r"/storage/v1/b/([^/]+)/o")
_UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_MOST = 1000  # entries a page, as Google's


class _Server(HTTPServer):
    request_queue_size = 512  # drivers open as many connections as they have files to write


class GcsEmulator:
    """The server, in a thread of its own.

    Attributes:
        refused: Uploads refused because something was there.
        pages: Pages of listings given.
    """

    def __init__(self) -> None:
        self.refused = self.pages = 0
        self.storage = Storage(use_memory_fs=True)
        # It would write down all it knows at every put, for a restart that never comes.
        self.storage._write_config_to_file = lambda: None
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def make_bucket(self, name: str) -> None:
        create_bucket(name, self.storage)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(RequestHandler):  # type: ignore[misc]
    def __init__(self, emulator: GcsEmulator, *args: Any) -> None:
        self._emulator = emulator
        super().__init__(emulator.storage, *args)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        upload = _UPLOAD.fullmatch(url.path)
        if upload and query.get("ifGenerationMatch") == ["0"]:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile = io.BytesIO(body)
            # the second part of a multipart upload is the data, the first says what it is
            metadata = body.partition(b"\n\n")[2].partition(b"\n--")[0]
            name = json.loads(metadata)["name"]
            if self._is_there(upload[1], name):
                self._emulator.refused += 1
                self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})
                return
        super().do_POST()

    def _is_there(self, bucket: str, name: str) -> bool:
        try:
            self._emulator.storage.get_file_obj(bucket, name)
        except NotFound:
            return False
        return True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        listing = _LISTING.fullmatch(url.path)
        if listing is None or listing[1] not in self._emulator.storage.buckets:
            super().do_GET()
            return
        query = parse_qs(url.query)
        found, prefixes = self._emulator.storage.get_file_list(
            unquote(listing[1]), query.get("prefix", [""])[0], query.get("delimiter", [None])[0]
        )
        names = sorted((item["name"], item) for item in found)
        begin = int(query.get("pageToken", ["0"])[0])
        end = begin + min(_MOST, int(query.get("maxResults", [_MOST])[0]))
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if names[begin:end]:
            answer["items"] = [item for _, item in names[begin:end]]
        if prefixes and not begin:
            answer["prefixes"] = sorted(prefixes)
        if end < len(names):
            answer["nextPageToken"] = str(end)
        self._emulator.pages += 1
        self._json(200, answer)

    def _json(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
