from __future__ import annotations

import functools
import http.server
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.archives import listed, names, picture, read_all, tar_bytes, zip_bytes, zstd
from textspot_ray.config import ImageConfig
from textspot_ray.errors import SourceError
from textspot_ray.records import ErrorKind
from textspot_ray.sources.uris import Glob, expand_braces, parse


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("a{0..2}.tar", ["a0.tar", "a1.tar", "a2.tar"]),
        ("a{008..010}", ["a008", "a009", "a010"]),
        ("a{9..11}", ["a9", "a10", "a11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{x,{1..2}}", ["x", "1", "2"]),
        ("{}", ["{}"]),
        ("{one}", ["{one}"]),
        ("{", ["{"]),
    ],
)
def test_braces(uri: str, expected: list[str]) -> None:
    if uri == "{x,{1..2}}":  # inner braces first
        assert sorted(set(expand_braces(uri))) == sorted(set(expected))
        return
    assert list(expand_braces(uri)) == expected


def test_too_many_braces_are_refused_without_filling_memory() -> None:
    with pytest.raises(SourceError, match="more than"):
        list(expand_braces("{0..99999}{0..99999}"))


def test_shards_by_braces(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"s-{i:03d}.tar").write_bytes(tar_bytes([(f"{i}.jpg", picture(i))]))
    items, _ = listed(f"{tmp_path}/s-{{000..002}}.tar")
    assert names(items) == [f"s-{i:03d}.tar#{i}.jpg" for i in range(3)]
    with pytest.raises(SourceError, match=r"s-003\.tar"):
        listed(f"{tmp_path}/s-{{000..003}}.tar")


@given(st.text(alphabet="ab/*?[]", min_size=1, max_size=12), st.text(alphabet="ab/", max_size=10))
def test_any_pattern_matches_or_not_without_raising(pattern: str, path: str) -> None:
    glob = Glob(pattern)
    matched = glob.matches(path)
    if matched and "/" in path.strip("/"):
        folder = path.rpartition("/")[0]
        if folder and "//" not in path and "//" not in pattern and not pattern.startswith("/"):
            assert glob.may_match_below(folder)


def test_parse_decodes_file_uris_only(tmp_path: Path) -> None:
    assert parse("file:///a%20b") == ("file", "/a b")
    assert parse("/a%20b/../c") == ("file", "/c")
    assert parse("s3://bucket/a%20b/") == ("s3", "bucket/a%20b")
    assert parse("s3a://bucket/k")[0] == "s3"
    with pytest.raises(SourceError):
        parse("a\0b")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with ranges as real servers give them; paths that misbehave."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/denied"):
            return self.send_error(403)
        if self.path.startswith("/flaky") and self.server.fail > 0:  # type: ignore[attr-defined]
            self.server.fail -= 1  # type: ignore[attr-defined]
            return self.send_error(503)
        if self.path.startswith("/endless"):
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(4000):
                    self.wfile.write(bytes(65536))
            except OSError:
                pass
            return None
        span = self.headers.get("Range")
        path = Path(self.translate_path(self.path.replace("/flaky", "")))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        if span and span.startswith("bytes="):
            first, _, last = span[6:].partition("-")
            start, stop = int(first), min(int(last or len(data) - 1) + 1, len(data))
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return None

    def do_HEAD(self) -> None:
        if self.path.startswith(("/denied", "/endless")):
            return self.send_error(403)
        path = Path(self.translate_path(self.path.replace("/flaky", "")))
        if not path.is_file():
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        return None


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, Any]]:
    pytest.importorskip("aiohttp")
    handler = functools.partial(Handler, directory=str(tmp_path))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.fail = 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path, server
        server.shutdown()


def test_images_and_archives_over_http(web: tuple[str, Path, Any]) -> None:
    url, folder, _ = web
    members = [(f"{i}.jpg", picture(i)) for i in range(10)]
    (folder / "a b.jpg").write_bytes(picture(1))
    (folder / "t.tar").write_bytes(tar_bytes(members))
    (folder / "z.zip").write_bytes(zip_bytes(members, 8))
    (folder / "s.tar.zst").write_bytes(zstd(tar_bytes(members)))
    (folder / "l.txt").write_text(f"{url}/a%20b.jpg?v=1\na b.jpg\n")
    items, _ = listed(f"{url}/a%20b.jpg")
    assert [e.data for e in read_all(items)] == [picture(1)]
    assert items[0].content_tag is None
    for name in ("t.tar", "z.zip", "s.tar.zst"):
        items, _ = listed(f"{url}/{name}")
        assert [e.data for e in read_all(items)] == [d for _, d in members]
    items, _ = listed(f"{url}/l.txt")
    assert [e.data for e in read_all(items)] == [picture(1)] * 2


def test_faults_of_web_servers(web: tuple[str, Path, Any]) -> None:
    url, folder, server = web
    (folder / "a.jpg").write_bytes(picture(1))
    paths = ["a.jpg", "gone.jpg", "denied.jpg", "endless.jpg", "flaky/a.jpg"]
    (folder / "l.txt").write_text("".join(f"{url}/{p}\n" for p in paths))
    items, _ = listed(folder / "l.txt")
    server.fail = 1
    got = read_all(items, image=ImageConfig(max_bytes=2**20))
    assert [e.error.kind if e.error else e.data for e in got] == [
        picture(1),
        ErrorKind.MISSING,
        ErrorKind.DENIED,
        ErrorKind.TOO_LARGE,
        picture(1),
    ]
    server.fail = 99
    last = read_all(items[-1:])[0].error
    assert last is not None and last.kind is ErrorKind.STORAGE
    with pytest.raises(SourceError, match="no such file"):
        listed(f"{url}/gone.jpg")
    with pytest.raises(SourceError, match=r"cannot look at.*credentials"):
        listed(f"{url}/denied.jpg")
