"""Memory by bytes and time by limits, each with small numbers."""

from __future__ import annotations

import contextlib
import http.server
import lzma
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import FAST, IMAGE, config, listed, picture, read_all, tar_bytes
from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import SourceError
from textspot_ray.records import ErrorKind, Item
from textspot_ray.sources.kinds import parquet as parquet_module
from textspot_ray.sources.kinds import tables
from textspot_ray.sources.kinds.parquet_pages import pages
from textspot_ray.sources.listing import list_items
from textspot_ray.sources.reader import Reader, _Budget
from textspot_ray.storage import web as web_module
from textspot_ray.storage.faults import SilentHostError
from textspot_ray.storage.volumes import open_volume

# ---------------------------------------------------------------- memory


def test_rows_of_images_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = [bytes(1_000_000)] * 8
    pq.write_table(pa.table({"image": big}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    largest = 0
    real = tables.value_of

    def watch(scalar: Any, *args: Any) -> Any:
        nonlocal largest
        largest = max(largest, pa.total_allocated_bytes())
        return real(scalar, *args)

    items, _ = listed(tmp_path / "a.parquet")
    monkeypatch.setattr(tables, "value_of", watch)
    before = pa.total_allocated_bytes()
    assert [len(e.data or b"") for e in read_all(items, ahead_bytes=1)] == [1_000_000] * 8
    # the dictionary, compressed and not, and a row; never the eight
    assert largest - before < 5_000_000


def test_captions_of_tables_come_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"image": [picture(1)] * 4096, "caption": ["x" * 4096] * 4096}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    largest, before = 0, pa.total_allocated_bytes()
    n = 0
    for _ in list_items(config(tmp_path / "a.parquet"), IMAGE):
        n += 1
        largest = max(largest, pa.total_allocated_bytes() - before)
    assert n == 4096 and largest < 2_000_000  # all of them are 16 MB


@pytest.mark.parametrize("column", ["image", "caption"])
def test_pages_that_would_fill_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    data = {"image": [picture(1)] * 20, "caption": ["y"] * 20}
    data[column] = [bytes(100_000)] * 20 if column == "image" else ["x" * 100_000] * 20
    for use_dictionary in (False, True):
        path = tmp_path / "a.parquet"
        pq.write_table(
            pa.table(data), path, use_dictionary=use_dictionary, compression="zstd",
            data_page_size=1 << 30,
        )  # fmt: skip
        assert [e.error for e in read_all(listed(path)[0])] == [None] * 20
        small = ImageConfig(max_bytes=150_000)
        with monkeypatch.context() as patch:
            patch.setattr(parquet_module, "_PAGE_OVERHEAD", 0)
            items = [i for i in list_items(config(path), small) if isinstance(i, Item)]
            errors = [e.error for e in read_all(items, image=small) if e.error]
        kinds = {error.kind for error in errors}
        assert all("image.max_bytes = 150000" in error.message for error in errors)
        assert kinds == (set() if use_dictionary else {ErrorKind.TOO_LARGE})


def test_pages_are_measured_as_the_writer_made_them(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [bytes([i]) * 50_000 for i in range(64)]}), tmp_path / "a.parquet",
        use_dictionary=False, data_page_size=100_000, write_batch_size=4,
    )  # fmt: skip
    with (tmp_path / "a.parquet").open("rb") as file:
        chunk = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0).column(0)
        largest = max(page.size for page in pages(file, chunk))
        assert 190_000 < largest < 260_000


def test_xz_asks_for_no_more_memory_than_zstd(tmp_path: Path) -> None:
    raw = tar_bytes([("a.jpg", picture(1))])
    for size, refused in ((64 << 20, False), (512 << 20, True)):
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size, "mode": lzma.MODE_FAST,
                    "mf": lzma.MF_HC3, "depth": 1}]  # fmt: skip
        data = bytearray(lzma.compress(raw, filters=filters if not refused else None))
        if refused:  # what an encoder would take gigabytes for: the declared size, in the header
            at = data.index(b"\x21\x01", 12) + 2  # filter id and size of its properties
            data[at] = 36  # 512 MiB, by the format's table
            import zlib

            size_of_header = (data[12] + 1) * 4
            crc = zlib.crc32(bytes(data[12 : 12 + size_of_header - 4]))
            data[12 + size_of_header - 4 : 12 + size_of_header] = crc.to_bytes(4, "little")
        (tmp_path / "a.tar.xz").write_bytes(data)
        items, _ = listed(tmp_path / "a.tar.xz")
        errors = [i.error for i in items if i.error]
        assert [e.kind for e in errors] == ([ErrorKind.TOO_LARGE] if refused else [])
        if refused:
            assert "smaller dictionary" in errors[0].message
        else:
            assert [e.data for e in read_all(items)] == [picture(1)]


def test_the_budget_never_stops_the_group_that_is_waited_for() -> None:
    budget, beats = _Budget(100), [0]
    for group in (1, 2, 3):
        budget.open(group)

    def beat() -> None:
        beats[0] += 1

    budget.wait_for(1)
    budget.grow(1, 500, beat)  # the first may take all it needs
    done = threading.Event()

    def second() -> None:
        budget.grow(2, 60, beat)
        done.set()

    thread = threading.Thread(target=second, daemon=True)
    thread.start()
    assert not done.wait(0.1)
    budget.release(1)
    assert done.wait(5)
    third = threading.Thread(target=lambda: budget.grow(3, 60, beat), daemon=True)
    third.start()
    third.join(0.1)
    assert third.is_alive() and beats[0] > 0
    budget.wait_for(3)
    third.join(5)
    assert not third.is_alive()


# ---------------------------------------------------------------- web servers

Answer = Callable[[Any], None]


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts servers that answer by a function; the URL of each."""
    pytest.importorskip("aiohttp")
    servers: list[Server] = []
    gate = threading.Event()

    def start(answer: Answer) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            stop = gate

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    answer(self)

            do_HEAD = do_GET

        server = Server(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    gate.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def stall(handler: Any) -> None:
    handler.stop.wait(60)


def send(handler: Any, data: bytes, status: int = 200, **headers: Any) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": len(data), **headers}.items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are given a third of a second at first."""
    real = web_module.WebVolume.__init__

    def init(self: Any, protocol: str, fs: Any, silence_s: float = 0.32) -> None:
        real(self, protocol, fs, silence_s)

    monkeypatch.setattr(web_module.WebVolume, "__init__", init)
    monkeypatch.setattr(web_module, "_MIN_SILENCE_S", 0.05)


def test_a_body_larger_than_its_head_says_is_cut_off(serve: Any) -> None:
    sent = [0]

    def answer(handler: Any) -> None:
        if handler.command == "HEAD":
            return send(handler, b"x" * 10)
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(bytes(65536))
            sent[0] += 65536

    url = serve(answer)
    items, _ = listed(f"{url}/a.jpg")
    got = read_all(items, image=ImageConfig(max_bytes=300_000))
    assert [e.error.kind for e in got if e.error] == [ErrorKind.TOO_LARGE]
    assert sent[0] < 40_000_000  # of 131 MB: what lies in sockets, no more
    volume = open_volume("http")
    assert volume.read(f"{url}/a.jpg", 0, 1000) == bytes(1000)  # no ranges there, either
    assert volume.read(f"{url}/a.jpg", 5, 9) == bytes(4)


def test_archives_on_a_server_without_ranges_are_streamed(serve: Any) -> None:
    import gzip

    members = [(f"{i}.jpg", picture(i)) for i in range(5)]
    data = gzip.compress(tar_bytes(members))
    url = serve(lambda handler: send(handler, data))
    items, _ = listed(f"{url}/a.tar.gz")
    assert [e.data for e in read_all(items)] == [d for _, d in members]


@pytest.mark.usefixtures("patient")
def test_a_stalled_archive_ends_within_its_limits(serve: Any, tmp_path: Path) -> None:
    url = serve(stall)
    start = time.monotonic()
    with pytest.raises(SourceError, match="cannot look at"):
        listed(f"{url}/a.zip")
    (tmp_path / "l.txt").write_text(f"{url}/a.tar.gz\n{url}/b.zip\n{url}/c.parquet\n")
    items, _ = listed(tmp_path / "l.txt")
    assert [i.error.kind for i in items if i.error] == [ErrorKind.TIMEOUT] * 3
    assert time.monotonic() - start < 10

    def half(handler: Any) -> None:  # a head, and then silence
        if handler.command == "HEAD":
            return send(handler, b"x" * 100_000)
        handler.send_response(206)
        handler.send_header("Content-Length", "512")
        handler.end_headers()
        handler.wfile.write(bytes(100))
        handler.wfile.flush()
        stall(handler)

    items, _ = listed(f"{serve(half)}/a.tar")
    assert [i.error.kind for i in items if i.error] == [ErrorKind.TIMEOUT]
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("patient")
def test_twenty_broken_urls_end_soon(serve: Any, tmp_path: Path) -> None:
    """With a third of a second for 30: three minutes are two seconds, and some for the machine."""
    import socket

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = serve(stall)
    urls = [f"{url}/{i}.jpg" for i in range(8)] + [f"{url}/{i}.tar.gz" for i in range(8)]
    urls += [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(4)]
    (tmp_path / "l.txt").write_text("\n".join(urls))
    (tmp_path / "ok.jpg").write_bytes(picture(1))
    start = time.monotonic()
    items, _ = listed(tmp_path / "l.txt", tmp_path / "ok.jpg")
    got = read_all(items)
    assert time.monotonic() - start < 12
    assert [e.error.kind if e.error else None for e in got] == (
        [ErrorKind.TIMEOUT] * 16 + [ErrorKind.STORAGE] * 4 + [None]
    )


@pytest.mark.usefixtures("patient")
def test_a_body_that_is_cut_short_is_no_image(serve: Any, tmp_path: Path) -> None:
    """With a length that promises more, and in chunks without the last."""
    whole = picture(3, size=(300, 300))
    tries: list[str] = []

    def answer(handler: Any) -> None:
        if handler.command == "HEAD":
            send(handler, whole)
            return
        tries.append(handler.path)
        half = len(whole) // 2
        if tries.count(handler.path) > 1:
            send(handler, whole)
        elif "chunks" in handler.path:
            handler.protocol_version = "HTTP/1.1"
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            handler.wfile.write(b"%x\r\n%s\r\n" % (half, whole[:half]))
            handler.close_connection = True
        else:
            send(handler, whole[:half], **{"Content-Length": len(whole)})

    url = serve(answer)
    items, _ = listed(f"{url}/length.jpg", f"{url}/chunks.jpg")
    got = read_all(items)
    assert [e.error for e in got] == [None, None], tries
    assert [e.data for e in got] == [whole, whole] and len(tries) == 4


def test_a_member_is_not_made_of_two_tars_of_a_server(serve: Any) -> None:
    tars = [tar_bytes([("a.jpg", b"\xff\xd8\xff" + letter * (9 << 20))]) for letter in (b"o", b"n")]
    state = {"tar": 0, "reads": 0, "armed": 0}

    def answer(handler: Any) -> None:
        data, date = tars[state["tar"]], f"Sat, 28 Nov 2026 10:00:0{state['tar']} GMT"
        span = handler.headers.get("Range")
        if span is None or handler.command == "HEAD":
            send(handler, data, Last_Modified=date)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        stop = min(int(last or len(data)), len(data) - 1) + 1
        part = data[int(first) : stop]
        told = f"bytes {first}-{stop - 1}/{len(data)}"
        send(handler, part, 206, Content_Range=told, Last_Modified=date)
        state["reads"] += state["armed"]
        if state["reads"] == 1:
            state["tar"] = 1

    url = serve(answer)
    items, _ = listed(f"{url}/a.tar")
    assert items[0].offset == 512
    state["armed"] = 1
    (got,) = read_all(items)
    assert got.data == tars[1][512:][: items[0].size]


@pytest.mark.usefixtures("patient")
def test_a_host_that_answers_again_gets_its_time_back(serve: Any) -> None:
    slow = [True]

    def answer(handler: Any) -> None:
        if slow[0]:
            stall(handler)
        else:
            time.sleep(0.15)
            send(handler, b"data")

    url = serve(answer)
    volume = open_volume("http")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            volume.read(f"{url}/a")
    with pytest.raises(SilentHostError):
        volume.read(f"{url}/a")
    slow[0] = False
    web_module._MIN_SILENCE_S = 0.32
    assert volume.read(f"{url}/a") == b"data"
    assert volume._timeouts == {}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("patient")
def test_a_body_that_drips_is_given_up(serve: Any) -> None:
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            if handler.stop.wait(0.02):
                return

    url = serve(drip)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="only"):
        open_volume("http").read(f"{url}/a")
    assert time.monotonic() - start < 3


def test_drivers_that_hang_cost_a_thread_not_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textspot_ray.storage.volume import RemoteVolume
    from textspot_ray.storage.volumes import TimedVolumes

    gate = threading.Event()

    class Hanging(RemoteVolume):
        def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
            gate.wait(30)
            return b""

    monkeypatch.setattr(
        "textspot_ray.storage.volumes.open_volume", lambda protocol, _: Hanging(protocol, None)
    )
    volumes = TimedVolumes(None, FAST, timeout_s=0.05)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        volumes.get("s9").read("x", 0, 10)
    assert time.monotonic() - start < 5
    gate.set()
    volumes.close()


# ---------------------------------------------------------------- secrets in URLs


def test_signatures_and_passwords_are_used_but_not_kept(serve: Any, tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    def answer(handler: Any) -> None:
        seen.append((handler.path, handler.headers.get("Authorization")))
        if "sig=" not in handler.path and handler.headers.get("Authorization") is None:
            handler.send_error(403)
        elif ".csv" in handler.path:
            send(handler, b"url,n\na.jpg,1\n")
        else:
            send(handler, picture(1))

    url = serve(answer)
    signed = f"{url}/x.jpg?w=1&sig=MARK&se=2027"
    source = config(signed)
    items, _ = listed(signed)
    assert [i.image_id for i in items] == [i.source for i in items] == [f"{url}/x.jpg?w=1"]
    assert read_all(items, source)[0].data == picture(1)
    without = read_all(items)[0].error
    assert without is not None and without.kind is ErrorKind.DENIED
    assert "keep_url_secrets" in without.message and "MARK" not in without.message
    listing = f"{url.replace('://', '://me:MARK@')}/l.csv"
    items, _ = listed(listing)
    assert "MARK" not in repr(items) and items[0].source == f"{url}/a.jpg"
    assert read_all(items, config(listing))[0].data == picture(1)
    (tmp_path / "l.txt").write_text(f"{signed}\n")
    items, _ = listed(tmp_path / "l.txt", keep_url_secrets=True)
    assert items[0].source == signed
    assert read_all(items, SourceConfig())[0].data == picture(1)
    assert any("MARK" in path for path, _ in seen)


def test_urls_that_only_a_token_tells_apart_are_not_made_one(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("https://h/view.jpg?token=a\nhttps://h/view.jpg?token=b\n")
    with pytest.raises(SourceError, match="keep_url_secrets"):
        listed(path)
    assert len(listed(path, keep_url_secrets=True)[0]) == 2
    path.write_text("https://h/a.jpg?X-Amz-Signature=1&x=2\nhttps://h/a.jpg?X-Amz-Signature=9&x=2")
    items, reasons = listed(path)
    assert [i.image_id for i in items] == ["https://h/a.jpg?x=2"]
    assert reasons == {"listed twice": 1}


@pytest.mark.parametrize("uri", ["https://me:MARK@h.invalid/a.zip", "s4://me:MARK@h/a.zip"])
def test_messages_hold_no_password(uri: str) -> None:
    with pytest.raises(Exception) as caught, Reader(SourceConfig(), IMAGE, retry=FAST):
        listed(uri)
    assert "MARK" not in str(caught.value)
