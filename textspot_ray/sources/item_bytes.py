"""Fetching the bytes of items: whole files, ranges of archives, one pass of compressed tars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import IO, TypeVar

from textspot_ray.records import Container, ErrorKind, ImageError, Item, Stage
from textspot_ray.sources.identity import locate
from textspot_ray.sources.parquet import ImageRows, TableFileError
from textspot_ray.sources.resolve import Volumes
from textspot_ray.sources.streams import (
    DamagedStreamError,
    StreamCursor,
    compression_of,
    decompress,
)
from textspot_ray.sources.tar import BLOCK, read_header, tar_tag
from textspot_ray.sources.zip import LOCAL_HEADER_BYTES, MemberError, inflate, member_bytes
from textspot_ray.storage.faults import RetryPolicy, error_kind, fault_of, reason_of
from textspot_ray.storage.volume import Volume

T = TypeVar("T")
Beat = Callable[[], None]
Fetched = bytes | ImageError
_EXTRA_BYTES = 1024  # of a zip member's local extra field, which only the local header tells


class Fetcher:
    """Fetches items by ranges; holds nothing open, so many threads may use it at once."""

    def __init__(self, volumes: Volumes, retry: RetryPolicy, max_bytes: int) -> None:
        self._volumes = volumes
        self.retry = retry
        self._max_bytes = max_bytes

    def file(self, item: Item, beat: Beat) -> Fetched:
        """A whole file."""
        protocol, path = locate(item.source)
        try:
            volume = self._volumes.get(protocol)
            data, info = self._call(beat, lambda: volume.read_tagged(path, self._max_bytes))
        except Exception as exc:
            return self.fault(exc)
        if item.content_tag is not None and info.tag != item.content_tag:
            return changed(f"size {item.size} -> {info.size} bytes, or a new date or version")
        if data is None:
            return too_large(info.size, self._max_bytes)
        return data

    def ranges(self, items: tuple[Item, ...], beat: Beat) -> list[Fetched]:
        """Neighbours in one plain tar or zip, by one read."""
        protocol, path = locate(items[0].source)
        start, stop = _first_byte(items[0]), max(_last_byte(item) for item in items)
        try:
            volume = self._volumes.get(protocol)
            block = self._call(beat, lambda: volume.read(path, start, stop))
        except Exception as exc:
            return [self.fault(exc)] * len(items)

        def more(begin: int, end: int) -> bytes:
            return self._call(beat, lambda: volume.read(path, begin, end))

        view = memoryview(block)
        fetched: list[Fetched] = []
        for item in items:
            part = view[_first_byte(item) - start : _last_byte(item) - start]
            try:
                if item.container is Container.ZIP:
                    fetched.append(self._zip_member(item, bytes(part), more))
                else:
                    fetched.append(_tar_member(item, bytes(part[:BLOCK]), bytes(part[BLOCK:])))
            except MemberError as exc:
                fetched.append(_error(ErrorKind[exc.kind], str(exc)))
            except Exception as exc:
                fetched.append(self.fault(exc))
        return fetched

    def fault(self, exc: BaseException) -> ImageError:
        """A driver's exception as the item's error."""
        attempts = self.retry.attempts if fault_of(exc).passes else 1
        return ImageError(Stage.READ, error_kind(exc), reason_of(exc), attempts)

    def _zip_member(self, item: Item, part: bytes, more: Callable[[int, int], bytes]) -> Fetched:
        offset, size = item.offset or 0, item.size or 0
        start = member_bytes(part)
        if not start:
            part = more(offset, offset + LOCAL_HEADER_BYTES + 2 * 0xFFFF)
            start = member_bytes(part)
            if not start:
                raise MemberError("BROKEN_ARCHIVE", "the zip ends inside this member's header")
        data = part[start : start + size]
        if len(data) < size:
            data = more(offset + start, offset + start + size)
        if len(data) < size:
            raise MemberError("BROKEN_ARCHIVE", "the zip ends inside this member")
        return inflate(part, data, item.content_tag, self._max_bytes)

    def _call(self, beat: Beat, function: Callable[[], T]) -> T:
        def attempt() -> T:
            beat()
            return function()

        return self.retry.call(attempt)


class StreamReaders:
    """Archives that must be read in one pass: compressed tars, and Parquet row groups.

    Keeps the last one open where it was, so that items (and shards) in order cost one pass in
    all. For one thread at a time.
    """

    def __init__(self, volumes: Volumes, image_column: str | None, fetcher: Fetcher) -> None:
        self._volumes = volumes
        self._image_column = image_column
        self._fetcher = fetcher
        self._source: str | None = None
        self._file: IO[bytes] | None = None
        self._rows: ImageRows | None = None
        self._stream: StreamCursor | None = None
        self._damage: tuple[int, str] | None = None
        self._beat: Beat = lambda: None

    def fetch(self, item: Item, beat: Beat) -> Fetched:
        """The next item; going back means starting over."""
        self._beat = beat
        try:
            return self._fetcher.retry.call(lambda: self._fetch(item))
        except DamagedStreamError as exc:
            at = self._stream.offset if self._stream is not None else 0
            self._damage = (at, str(exc))
            return _error(ErrorKind.BROKEN_ARCHIVE, f"compressed data damaged: {exc}")
        except TableFileError as exc:
            return _error(ErrorKind.BROKEN_ARCHIVE, str(exc))
        except Exception as exc:
            return self._fetcher.fault(exc)

    def _fetch(self, item: Item) -> Fetched:
        self._beat()
        try:
            return self._row(item) if item.container is Container.PARQUET else self._member(item)
        except DamagedStreamError:
            raise
        except Exception:
            self.close()  # where it stopped is unknown: the next try starts over
            raise

    def close(self) -> None:
        """Let go of the open archive."""
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
        self._source = self._file = self._rows = self._stream = self._damage = None

    def _open(self, item: Item) -> tuple[Volume, str]:
        self.close()
        protocol, path = locate(item.source)
        volume = self._volumes.get(protocol)
        self._file = volume.open(path)
        self._source = item.source
        return volume, path

    def _member(self, item: Item) -> Fetched:
        offset, size = item.offset or 0, item.size or 0
        header_at = offset - BLOCK
        if self._source == item.source and self._damage is not None:
            at, reason = self._damage
            if offset + size > at:  # streaming there again would end the same way
                return _error(ErrorKind.BROKEN_ARCHIVE, f"compressed data damaged: {reason}")
        if (
            self._source != item.source
            or self._stream is None
            or self._damage is not None
            or self._stream.offset > header_at
        ):
            volume, path = self._open(item)
            assert self._file is not None
            compression = compression_of(volume.read(path, 0, 16))
            stream = decompress(self._file, compression) if compression else self._file
            self._stream = StreamCursor(stream, lambda: self._beat())
        self._stream.skip(header_at - self._stream.offset)
        return _tar_member(item, self._stream.read(BLOCK), self._stream.read(size))

    def _row(self, item: Item) -> Fetched:
        if self._source != item.source or self._rows is None:
            volume, path = self._open(item)
            info = volume.info(path)
            if item.content_tag is not None and info.tag != item.content_tag:
                self.close()
                return changed("the Parquet file is another one")
            assert self._file is not None
            self._rows = ImageRows(self._file, self._image_column)
        data = self._rows.read(int(item.member or 0))
        if data is None:
            return _error(ErrorKind.EMPTY_FILE, "the row has no image bytes (null)")
        return data


def changed(detail: str) -> ImageError:
    """The source is not what was planned."""
    return _error(
        ErrorKind.CHANGED,
        f"changed since it was planned ({detail}): run again with --on-changed redo",
    )


def too_large(size: int | None, max_bytes: int) -> ImageError:
    """More bytes than `image.max_bytes` allows."""
    what = f"{size} bytes" if size is not None else "the file"
    return _error(ErrorKind.TOO_LARGE, f"{what}: more than image.max_bytes = {max_bytes}")


def _error(kind: ErrorKind, message: str) -> ImageError:
    if kind is ErrorKind.CHANGED and "--on-changed" not in message:
        message = f"{message}: run again with --on-changed redo"
    return ImageError(Stage.READ, kind, message)


def _tar_member(item: Item, header: bytes, data: bytes) -> Fetched:
    if len(header) < BLOCK or read_header(header) is None:
        return changed("no tar member begins where the plan has one")
    if item.content_tag is not None and tar_tag(header, item.offset or 0) != item.content_tag:
        return changed("another tar member is where the plan has this one")
    if len(data) < (item.size or 0):
        return _error(ErrorKind.BROKEN_ARCHIVE, "the tar ends inside this member")
    return data


def _first_byte(item: Item) -> int:
    offset = item.offset or 0
    return offset if item.container is Container.ZIP else offset - BLOCK


def _last_byte(item: Item) -> int:
    stop = (item.offset or 0) + (item.size or 0)
    if item.container is Container.ZIP:
        name = item.member or ""
        stop += LOCAL_HEADER_BYTES + 4 * len(name) + _EXTRA_BYTES
    return stop
