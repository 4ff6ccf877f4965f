"""Reads items ahead, in order; an item that cannot be read is a value, not an exception."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, TypeVar

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import MissingExtraError, StorageError
from textspot_ray.records import Encoded, ErrorKind, ImageError, Item, Stage
from textspot_ray.sources.identity import locate
from textspot_ray.sources.kinds import access_of
from textspot_ray.sources.kinds.base import (
    Beat,
    ContainerError,
    ItemStream,
    MemberError,
    Ranged,
    SourceFile,
    Streamed,
    Whole,
    changed,
    too_large,
)
from textspot_ray.storage.abandonable import AbandonableFuture, AbandonablePool
from textspot_ray.storage.faults import Fault, RetryPolicy, error_kind, fault_of, reason_of
from textspot_ray.storage.filesystem import WEB
from textspot_ray.storage.urls import UrlSecrets
from textspot_ray.storage.volume import SLOWEST_BYTES_S, Grow, Volume, steady
from textspot_ray.storage.volumes import Volumes

T = TypeVar("T")
_GROUP_BYTES = 8 << 20
_GROUP_ITEMS = 64
_HEAD_BYTES = 64 << 10  # of a large item, whose header says where its data begin
_GROUP_GAP = 256 << 10  # reading over a gap is cheaper than a request of its own
_MAX_STUCK = 16
_CUT_HINT = (
    "; user info and signatures are cut from URLs: give them in storage_options, or set "
    "source.keep_url_secrets=true"
)


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of one item: its bytes and their digest, or an error."""

    data: bytes | None
    error: ImageError | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class _Group:
    """Items fetched by one read; ``error`` if none of it is worth trying."""

    items: tuple[Item, ...]
    size: int
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    group: _Group
    future: AbandonableFuture[tuple[list[_Read], float]] | None


class _SizeEstimate:
    """Expected bytes of items of unknown size: the largest of recent ones, at least 1 MiB."""

    def __init__(self) -> None:
        self._bytes = float(1 << 20)

    def note(self, item: Item, size: int) -> None:
        """Learn from an item that was read."""
        if item.size is None:
            self._bytes = max(float(size), 0.98 * self._bytes, float(1 << 20))

    def estimate(self, item: Item) -> int:
        """Bytes to reserve for an item."""
        known = _known_bytes(item)
        return int(self._bytes) if known is None else known


class _Budget:
    """Bytes held of items whose size is known only once they are read.

    Whoever reads the group that the consumer waits for may always go on, so that nothing waits in
    a circle; all others wait while the limit is reached.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}  # bytes by group
        self._first: int | None = None
        self._changed = threading.Condition()

    def open(self, group: int) -> None:
        """A group is about to be read; what is said of any other is not counted."""
        with self._changed:
            self._held[group] = 0

    def grow(self, group: int, size: int, beat: Beat) -> None:
        """Hold more bytes; waits until there is room, or nobody wants the group any more."""
        with self._changed:
            while group != self._first and sum(self._held.values()) + size > self._limit:
                if group not in self._held:
                    return
                beat()
                self._changed.wait(1.0)
            self._add(group, size)

    def add(self, group: int, size: int) -> None:
        """Hold more bytes, or fewer, without waiting: they are there."""
        with self._changed:
            self._add(group, size)
            self._changed.notify_all()

    def _add(self, group: int, size: int) -> None:
        if group in self._held:
            self._held[group] += size

    def wait_for(self, group: int) -> None:
        """The consumer waits for this group."""
        with self._changed:
            self._first = group
            self._changed.notify_all()

    def release(self, group: int) -> None:
        """A group has been handed over, or given up."""
        with self._changed:
            self._held.pop(group, None)
            self._changed.notify_all()

    def shut(self) -> None:
        """Let everybody go on: nothing is waited for any more."""
        with self._changed:
            self._limit = 1 << 62
            self._changed.notify_all()


class Reader:
    """Turns items into encoded bytes.

    Keep one Reader for many shards: a compressed tar stays open where the last shard stopped,
    so that shards in order cost one pass in all.

    Args:
        config: For storage options, secrets of its URIs, and the column of tables.
        image: For ``max_bytes``.
        ahead_bytes: Encoded bytes fetched ahead; the largest single item comes on top.
        threads: Files and ranges fetched at the same time.
        timeout_s: Longest silence of storage, on top of a second per megabyte.
        retry: How transient faults are tried again.

    >>> with Reader(SourceConfig(), ImageConfig()) as reader:
    ...     list(reader.read([]))
    []
    """

    def __init__(
        self,
        config: SourceConfig,
        image: ImageConfig,
        *,
        ahead_bytes: int = 64 << 20,
        threads: int = 8,
        timeout_s: float = 60.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._max_bytes = image.max_bytes
        self._ahead_bytes = ahead_bytes
        self._threads = threads
        self._timeout_s = timeout_s
        self._fetcher = _Fetcher(config, retry or RetryPolicy(attempts=4), image.max_bytes)
        self._pool = AbandonablePool(threads, "textspot-read")
        self._stream_pool = AbandonablePool(1, "textspot-stream")
        self._streams = _OpenStream(self._fetcher)
        self._size_estimate = _SizeEstimate()
        self._budget = _Budget(ahead_bytes)
        self._stuck = 0

    @property
    def retries(self) -> int:
        """Reads that were tried again because storage failed in passing."""
        return self._fetcher.retry.tally.n

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, items: Iterable[Item]) -> Iterator[Encoded]:
        """The bytes of each item, or why there are none, in the given order.

        Raises:
            StorageError: Too many reads hang.
        """
        waiting = _groups(items, self._max_bytes, self._size_estimate)
        pending: deque[_Pending] = deque()
        ahead = 0
        exhausted = False
        try:
            while True:
                while not exhausted and (ahead < self._ahead_bytes or not pending):
                    if len(pending) > 4 * self._threads:
                        break
                    group = next(waiting, None)
                    if group is None:
                        exhausted = True
                        break
                    pending.append(self._submit(group))
                    ahead += group.size
                if not pending:
                    return
                first = pending.popleft()
                ahead -= first.group.size
                yield from self._finish(first)
        finally:
            for left in pending:
                if left.future is not None:
                    left.future.cancel()
                self._budget.release(id(left.group))

    def close(self) -> None:
        """Let go of threads and open archives."""
        self._budget.shut()
        self._pool.close()
        streams = self._streams
        self._stream_pool.submit(lambda _: streams.close())
        self._stream_pool.close()

    def _submit(self, group: _Group) -> _Pending:
        if group.error is not None:
            return _Pending(group, None)
        self._budget.open(id(group))
        pool = self._stream_pool if _is_streamed(group.items[0]) else self._pool
        return _Pending(group, pool.submit(lambda future: self._fetch(group, future)))

    def _fetch(
        self, group: _Group, future: AbandonableFuture[tuple[list[_Read], float]]
    ) -> tuple[list[_Read], float]:
        """What comes of a group's items."""
        start = time.perf_counter()
        key = id(group)

        def grow(size: int) -> None:
            future.beat()
            self._budget.grow(key, size, future.beat)

        access = access_of(group.items[0].container)
        fetched: list[_Read] = []
        if isinstance(access, Streamed):
            streams = self._streams
            for item in group.items:
                # What it takes is known when it has been read, which is too late to wait.
                expected = self._size_estimate.estimate(item) if item.size is None else 0
                grow(expected)
                read = streams.fetch(access, item, future.beat)
                fetched.append(read)
                if read.data and item.size is None:
                    self._size_estimate.note(item, len(read.data))
                    self._budget.add(key, len(read.data) - expected)
        elif isinstance(access, Ranged):
            fetched = self._fetcher.ranges(access, group.items, future.beat)
        elif isinstance(access, Whole):
            unsized = group.items[0].size is None
            fetched = [
                self._fetcher.file(item, future.beat, grow if unsized else None)
                for item in group.items
            ]
        else:
            fetched = [_unknown_container(item) for item in group.items]
        return fetched, time.perf_counter() - start

    def _finish(self, pending: _Pending) -> Iterator[Encoded]:
        group = pending.group
        if pending.future is None:
            for item in group.items:
                yield Encoded(item, None, group.error)
            return
        key = id(group)
        self._budget.wait_for(key)
        try:
            allowance_s = self._timeout_s + group.size / SLOWEST_BYTES_S
            fetched, read_s = pending.future.wait(allowance_s)
        except TimeoutError as exc:
            self._leave_behind(group)
            error = ImageError(Stage.READ, ErrorKind.TIMEOUT, f"storage gave {exc}")
            fetched, read_s = [_Read(None, error)] * len(group.items), 0.0
        finally:
            self._budget.release(key)
        assert len(fetched) == len(group.items)
        for item in group.items:  # what has been handed over is not kept here
            yield self._encoded(item, fetched.pop(0), read_s / len(group.items))

    def _encoded(self, item: Item, read: _Read, read_s: float) -> Encoded:
        data = read.data
        if data is None:
            return Encoded(item, None, read.error, read_s)
        self._size_estimate.note(item, len(data))
        if len(data) > self._max_bytes:
            return Encoded(item, None, _as_error(too_large(len(data), self._max_bytes)), read_s)
        if not data:
            error = ImageError(Stage.READ, ErrorKind.EMPTY_FILE, "the file is empty (0 bytes)")
            return Encoded(item, None, error, read_s)
        return Encoded(item, data, None, read_s, read.sha256)

    def _leave_behind(self, group: _Group) -> None:
        """A read hangs: go on without its thread, unless too many have hung."""
        self._stuck += 1
        if self._stuck > _MAX_STUCK:
            raise StorageError(
                f"storage hangs: {self._stuck} reads did not come back, the last of "
                f"{group.items[0].source}"
            )
        if _is_streamed(group.items[0]):
            self._streams = _OpenStream(self._fetcher)
            self._stream_pool.replace()
        else:
            self._pool.replace()


class _Fetcher:
    """Fetches items by ranges; holds nothing open, so many threads may use it at once."""

    def __init__(self, config: SourceConfig, retry: RetryPolicy, max_bytes: int) -> None:
        self._volumes = Volumes(config.storage_options)
        self._secrets = UrlSecrets(config.uris)
        self._image_column = config.image_column
        self.retry = retry
        self.max_bytes = max_bytes

    def place(self, item: Item) -> tuple[Volume, str]:
        """Volume and driver's path of an item's source."""
        protocol, path = locate(item.source)
        if protocol in WEB:
            path = self._secrets.full(path)
        return self._volumes.get(protocol), path

    def source(self, item: Item) -> SourceFile:
        """An item's source."""
        volume, path = self.place(item)
        return SourceFile(
            volume,
            path,
            max_bytes=self.max_bytes,
            image_column=self._image_column,
        )

    def file(self, item: Item, beat: Beat, grow: Grow | None) -> _Read:
        """A whole file."""

        def attempt() -> _Read:
            volume, path = self.place(item)
            counted = grow if grow is not None else lambda _: beat()
            data, info = self._call(beat, lambda: volume.read_tagged(path, self.max_bytes, counted))
            if item.content_tag is not None and info.tag != item.content_tag:
                raise changed(f"size {item.size} -> {info.size} bytes, or a new date or version")
            if data is None:
                raise too_large(info.size, self.max_bytes)
            return _whole(data)

        return self.guarded(item, attempt)

    def ranges(self, access: Ranged, items: tuple[Item, ...], beat: Beat) -> list[_Read]:
        """Neighbours in one source, by one read."""
        spans = [access.span(item) for item in items]
        start, stop = spans[0][0], max(stop for _, stop in spans)
        if access.reads_more and len(items) == 1 and stop - start > _GROUP_BYTES:
            return [self._large(access, items[0], start, beat)]
        try:
            volume, path = self.place(items[0])
            block = self._call(beat, lambda: volume.read(path, start, stop))
        except Exception as exc:
            return [_Read(None, self.fault(exc, items[0]))] * len(items)

        def more(begin: int, end: int) -> bytes:
            return self._call(beat, lambda: volume.read(path, begin, end))

        view = memoryview(block)
        fetched: list[_Read] = []
        for item, (first, last) in zip(items, spans, strict=True):
            part = view[first - start : last - start]
            fetched.append(
                self.guarded(
                    item,
                    lambda item=item, part=part: _whole(  # type: ignore[misc]
                        access.content(item, part, more, self.max_bytes)
                    ),
                )
            )
        return fetched

    def _large(self, access: Ranged, item: Item, start: int, beat: Beat) -> _Read:
        """An item whose header is read first, and then its data: of one state of the source."""

        def attempt() -> _Read:
            volume, path = self.place(item)

            def read() -> bytes:
                head = memoryview(volume.read(path, start, start + _HEAD_BYTES))

                def more(begin: int, end: int) -> bytes:
                    beat()
                    return volume.read(path, begin, end)

                return access.content(item, head, more, self.max_bytes)

            beat()
            return _whole(steady(path, read, lambda: volume.stamp(path)))

        return self.guarded(item, lambda: self.retry.call(attempt))

    def guarded(self, item: Item, read: Callable[[], _Read]) -> _Read:
        """What a read gives, or why it gives nothing."""
        try:
            return read()
        except Exception as exc:
            return _Read(None, self.fault(exc, item))

    def fault(self, exc: BaseException, item: Item) -> ImageError:
        """An exception as the item's error."""
        if isinstance(exc, (MemberError, ContainerError)):
            return _as_error(exc)
        if isinstance(exc, MissingExtraError):
            return ImageError(Stage.READ, ErrorKind.UNSUPPORTED, str(exc))
        if isinstance(exc, MemoryError):
            return ImageError(Stage.READ, ErrorKind.TOO_LARGE, "not enough memory to read it")
        fault = fault_of(exc)
        attempts = self.retry.attempts if fault.is_transient else 1
        message = reason_of(exc)
        if fault is Fault.DENIED and item.source.startswith(("http://", "https://")):
            message += _CUT_HINT
        return ImageError(Stage.READ, error_kind(exc), message, attempts)

    def _call(self, beat: Beat, function: Callable[[], T]) -> T:
        def attempt() -> T:
            beat()
            return function()

        return self.retry.call(attempt)


class _OpenStream:
    """Sources that are read through one open file; the last one stays open where it was.

    Items (and shards) in order then cost one pass in all. For one thread at a time.
    """

    def __init__(self, fetcher: _Fetcher) -> None:
        self._fetcher = fetcher
        self._source: str | None = None
        self._file: IO[bytes] | None = None
        self._items: ItemStream | None = None
        self._damage: tuple[int, ContainerError] | None = None  # from an offset on
        self._beat: Beat = lambda: None

    def fetch(self, access: Streamed, item: Item, beat: Beat) -> _Read:
        """The next item; going back may mean starting over."""
        self._beat = beat

        def read() -> _Read:
            return _whole(self._fetcher.retry.call(lambda: self._read(access, item)))

        return self._fetcher.guarded(item, read)

    def close(self) -> None:
        """Let go of the open source."""
        for held in (self._items, self._file):
            if held is not None:
                with contextlib.suppress(Exception):
                    held.close()
        self._source = self._file = self._items = self._damage = None

    def _read(self, access: Streamed, item: Item) -> bytes:
        self._beat()
        offset, is_same = item.offset or 0, self._source == item.source
        if is_same and self._damage is not None and offset >= self._damage[0]:
            # Reading there again would end the same way. A traceback would grow with every item.
            raise self._damage[1].with_traceback(None)
        try:
            if not is_same or self._items is None or self._items.is_past(item):
                self._open(access, item)
            assert self._items is not None
            return self._items.read(item)
        except MemberError:
            raise
        except Exception as exc:
            is_open = self._items is not None
            self.close()  # where it stopped is unknown: the next try starts over
            if isinstance(exc, ContainerError) and (access.is_ordered or not is_open):
                self._source = item.source
                self._damage = (offset if is_open else 0, exc)
            raise

    def _open(self, access: Streamed, item: Item) -> None:
        self.close()
        source = self._fetcher.source(item)
        self._file = source.open()
        self._source = item.source
        self._items = access.open(self._file, source, item, lambda: self._beat())


def _whole(data: bytes) -> _Read:
    return _Read(data, None, hashlib.sha256(data).hexdigest())


def _as_error(exc: MemberError | ContainerError) -> ImageError:
    return ImageError(Stage.READ, exc.kind, str(exc))


def _unknown_container(item: Item) -> _Read:
    message = f"a container of kind {item.container!r}: a newer textspot-ray planned it"
    return _Read(None, ImageError(Stage.READ, ErrorKind.UNSUPPORTED, message))


def _is_streamed(item: Item) -> bool:
    return isinstance(access_of(item.container), Streamed)


def _groups(items: Iterable[Item], max_bytes: int, sizes: _SizeEstimate) -> Iterator[_Group]:
    """Neighbours in one archive together, everything else alone, in order."""
    held: list[Item] = []
    size = 0
    for item in items:
        error = item.error
        known = _known_bytes(item) or 0
        if error is None and known > max_bytes:
            error = _as_error(too_large(known, max_bytes))
        if held and (error is not None or not _joins(held, size + sizes.estimate(item), item)):
            yield _Group(tuple(held), size)
            held, size = [], 0
        if error is not None:
            yield _Group((item,), 0, error)
            continue
        held.append(item)
        size += sizes.estimate(item)
    if held:
        yield _Group(tuple(held), size)


def _joins(held: list[Item], size: int, item: Item) -> bool:
    last = held[-1]
    if item.container != last.container or item.source != last.source:
        return False
    if len(held) >= _GROUP_ITEMS or size > _GROUP_BYTES:
        return False
    if item.size is None:
        return False  # one by one, so that the window holds what they turn out to be
    access = access_of(item.container)
    if isinstance(access, Streamed):
        return True
    if not isinstance(access, Ranged):
        return False
    end = access.span(last)[1]
    start = access.span(item)[0]
    return access.span(last)[0] <= start <= end + _GROUP_GAP


def _known_bytes(item: Item) -> int | None:
    """Bytes that an item will take in memory, as far as the plan knows."""
    access = access_of(item.container)
    return item.size if access is None else access.bytes_held(item)
