"""Files on web servers: bounded bodies, bounded silence, ranges where the server has them.

fsspec's driver reads a body whole, whatever was asked for, and waits five minutes for each answer;
here no more of a body is read than the caller needs, and a host that stays silent is given less
time with every request. The driver's session and options are used, so that its settings hold.
"""

from __future__ import annotations

import errno
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from textspot_ray.storage.faults import SilentHostError
from textspot_ray.storage.filesystem import walk_remote
from textspot_ray.storage.raw_file import RawFile
from textspot_ray.storage.volume import Descend, FileInfo, Grow, SkippedEntry, Volume, no_growth

if TYPE_CHECKING:
    from collections.abc import Awaitable

_CHUNK = 1 << 20
_BUFFER = 4 << 20
_MIN_SILENCE_S = 2.0
_SILENT_AFTER = 4  # time-outs in a row
_SLOWEST_BYTES_S = 4096.0  # of a body, once the longest silence has passed
_MAX_SKIP = 256 << 20  # bytes read in vain from a server without ranges
_NO_HEAD = (400, 403, 405, 501)


class WebVolume(Volume):
    """What HTTP and HTTPS URLs lead to; without content tags, for a proxy may change an ETag.

    Args:
        protocol: ``http`` or ``https``.
        fs: fsspec's file system of that protocol.
        silence_s: Longest wait for a connection, an answer or the next bytes; halves with every
            time-out of the same host in a row.
    """

    def __init__(self, protocol: str, fs: Any, silence_s: float = 30.0) -> None:
        self.protocol = protocol
        self._fs = fs
        self._silence_s = silence_s
        self._timeouts: dict[str, int] = {}
        self._lock = threading.Lock()

    def info(self, path: str) -> FileInfo:
        from aiohttp import ClientResponseError

        try:
            return FileInfo(path, self._run(path, self._head), None)
        except ClientResponseError as exc:
            if exc.status not in _NO_HEAD:
                raise
        _, size = self._run(path, lambda url: self._get(url, 0, 1, no_growth))
        return FileInfo(path, size, None)

    def stamp(self, path: str) -> object:
        """Size and date: a mirror or proxy may give each request another ETag."""
        from aiohttp import ClientResponseError

        try:
            return self._run(path, self._head_stamp)
        except ClientResponseError as exc:
            if exc.status not in _NO_HEAD:
                raise
        return self.info(path).size

    def walk(
        self, root: str, descend: Descend = lambda _: True
    ) -> Iterator[FileInfo | SkippedEntry]:
        for entry in walk_remote(self._fs, root):
            yield FileInfo(entry.path, entry.size, None)

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        data: bytes
        data, _ = self._run(path, lambda url: self._get(url, start, stop, no_growth))
        return data

    def read_tagged(
        self, path: str, max_bytes: int, grow: Grow = no_growth
    ) -> tuple[bytes | None, FileInfo]:
        try:
            data, _ = self._run(path, lambda url: self._get(url, 0, None, grow, max_bytes))
        except _TooLongError as exc:
            return None, FileInfo(path, exc.size, None)
        return data, FileInfo(path, len(data), None)

    def open(self, path: str) -> IO[bytes]:
        return io.BufferedReader(_WebFile(self, path), _BUFFER)

    def _run(self, path: str, work: Callable[[str], Awaitable[Any]]) -> Any:
        from fsspec.asyn import sync

        host = urlsplit(path).netloc.rpartition("@")[2]

        async def call() -> Any:
            return await work(path)

        try:
            result = sync(self._fs.loop, call)
        except TimeoutError as exc:
            with self._lock:
                n = self._timeouts[host] = self._timeouts.get(host, 0) + 1
            said = str(exc) or str(exc.__cause__ or "") or f"no answer from {host}"
            if n >= _SILENT_AFTER:
                raise SilentHostError(said) from exc
            raise TimeoutError(said) from exc
        except Exception:
            with self._lock:
                self._timeouts.pop(host, None)  # it does answer
            raise
        with self._lock:
            self._timeouts.pop(host, None)
        return result

    def _patience_s(self, url: str) -> float:
        n = self._timeouts.get(urlsplit(url).netloc.rpartition("@")[2], 0)
        patience_s: float = self._silence_s / 2.0 ** min(n, 10)
        return max(min(_MIN_SILENCE_S, self._silence_s), patience_s)

    async def _request(self, method: str, url: str, **headers: str) -> Any:
        import aiohttp

        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        patience_s = self._patience_s(url)
        timeout = aiohttp.ClientTimeout(
            total=None, connect=patience_s, sock_connect=patience_s, sock_read=patience_s
        )
        options["headers"] = {**(options.get("headers") or {}), **headers}
        options.setdefault("timeout", timeout)
        options.setdefault("allow_redirects", True)
        return await session.request(method, self._fs.encode_url(url), **options)

    async def _head(self, url: str) -> int | None:
        size, _ = await self._head_stamp(url)
        return size

    async def _head_stamp(self, url: str) -> tuple[int | None, str | None]:
        answer = await self._request("HEAD", url, **{"Accept-Encoding": "identity"})
        async with answer:
            answer.raise_for_status()
            return _length(answer), answer.headers.get("Last-Modified")

    async def _get(
        self,
        url: str,
        start: int,
        stop: int | None,
        grow: Grow,
        max_bytes: int = 1 << 62,
    ) -> tuple[bytes, int | None]:
        """Bytes from ``start`` to ``stop``, and the size of the whole if it is known.

        Raises:
            _TooLongError: The body is longer than ``max_bytes``.
        """
        headers = {}
        if start or stop is not None:
            last = "" if stop is None else str(stop - 1)
            headers = {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
        answer = await self._request("GET", url, **headers)
        try:
            if answer.status == 416:
                return b"", _total(answer)
            answer.raise_for_status()
            is_part = answer.status == 206
            size = _total(answer) if is_part else _length(answer)
            skip = 0 if is_part else start
            if skip > _MAX_SKIP:
                raise OSError(errno.EIO, "the server has no ranges: download it first")
            if (size or 0) > max_bytes:
                raise _TooLongError(size)
            limit = None if stop is None else stop - start
            return await self._body(url, answer, skip, limit, grow, max_bytes), size
        finally:
            answer.close()  # a body that nobody wants is not read to its end

    async def _body(
        self,
        url: str,
        answer: Any,
        skip: int,
        limit: int | None,
        grow: Grow,
        max_bytes: int = 1 << 62,
    ) -> bytes:
        import asyncio

        body = io.BytesIO()  # one copy; a list of parts and its sum would be two
        have = seen = 0
        began_s, patience_s = time.monotonic(), self._patience_s(url)
        async for chunk in answer.content.iter_chunked(_CHUNK):
            seen += len(chunk)
            late_s = time.monotonic() - began_s - patience_s
            if late_s > 0 and seen < late_s * _SLOWEST_BYTES_S:
                raise TimeoutError(f"only {seen} bytes in {late_s + patience_s:.3g} s")
            if seen <= skip:
                continue
            part = chunk[max(0, len(chunk) - (seen - skip)) :]
            if limit is not None and have + len(part) > limit:
                part = part[: limit - have]
            have += len(part)
            if have > max_bytes:
                body.close()  # the exception's frames would hold it
                raise _TooLongError(None)
            body.write(part)
            if grow is not no_growth:
                await asyncio.get_running_loop().run_in_executor(None, grow, len(part))
            if limit is not None and have >= limit:
                break
        return body.getvalue()


class _TooLongError(Exception):
    """A body is longer than wanted; ``size`` as its server says."""

    def __init__(self, size: int | None) -> None:
        super().__init__(size)
        self.size = size


class _WebFile(RawFile):
    """A file read by ranges; where the server has none, forward only over one answer."""

    def __init__(self, volume: WebVolume, path: str) -> None:
        super().__init__()
        self._volume = volume
        self._path = path
        self._size: int | None = None
        self._stream: Any = None
        self._stream_at = 0

    def end(self) -> int:
        if self._size is None:
            self._size = self._volume.info(self._path).size
        if self._size is None:
            raise OSError(errno.ESPIPE, "its server does not tell its size: download it first")
        return self._size

    def fill(self, view: memoryview, at: int) -> int:
        run, data = self._volume._run, None
        if self._stream is None:
            data = run(self._path, lambda url: self._range(url, at, len(view)))
        if data is None:
            if at < self._stream_at:
                raise OSError(errno.ESPIPE, "the server has no ranges: download it first")
            data = run(self._path, lambda _: self._streamed(at, len(view)))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super().close()

    async def _range(self, url: str, at: int, count: int) -> bytes | None:
        headers = {"Range": f"bytes={at}-{at + count - 1}"}
        headers["Accept-Encoding"] = "identity"
        answer = await self._volume._request("GET", url, **headers)
        keep = False
        try:
            if answer.status == 416:
                return b""
            answer.raise_for_status()
            if answer.status != 206:
                self._stream, self._stream_at, keep = answer, 0, True
                return None
            self._size = _total(answer)
            return await self._volume._body(url, answer, 0, count, no_growth)
        finally:
            if not keep:
                answer.close()

    async def _streamed(self, at: int, count: int) -> bytes:
        while self._stream_at < at:
            part = await self._stream.content.read(min(_CHUNK, at - self._stream_at))
            if not part:
                return b""
            self._stream_at += len(part)
        part = await self._stream.content.read(count)
        self._stream_at += len(part)
        return bytes(part)


def _length(answer: Any) -> int | None:
    if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
        return None
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _total(answer: Any) -> int | None:
    text = answer.headers.get("Content-Range", "").rpartition("/")[2]
    return int(text) if text.isdigit() else None
