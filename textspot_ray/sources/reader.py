"""Reading items ahead of those who need them, in order, with nothing raised for an item's fault."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from textspot_ray.config import ImageConfig, SourceConfig
from textspot_ray.errors import StorageError
from textspot_ray.records import Container, Encoded, ErrorKind, ImageError, Item, Stage
from textspot_ray.sources.item_bytes import Fetched, Fetcher, StreamReaders, too_large
from textspot_ray.sources.resolve import Volumes
from textspot_ray.sources.zip import content_bytes
from textspot_ray.storage.abandonable import AbandonableFuture, AbandonablePool
from textspot_ray.storage.faults import RetryPolicy

_GROUP_BYTES = 8 << 20
_GROUP_ITEMS = 64
_GROUP_GAP = 256 << 10  # reading over a gap is cheaper than a request of its own
_SLOWEST_BYTES_S = 1e6  # a transfer may take this long on top of the timeout
_MAX_STUCK = 16
_IN_PASSES = (Container.TAR_STREAM, Container.PARQUET)


@dataclass(frozen=True, slots=True)
class _Group:
    """Items fetched by one read; ``error`` if none of it is worth trying."""

    items: tuple[Item, ...]
    size: int
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    group: _Group
    ticket: AbandonableFuture[tuple[list[Fetched], float]] | None


class _Typical:
    """Bytes of items whose size no listing tells: the largest seen of late, at least 1 MiB."""

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


class Reader:
    """Turns items into encoded bytes.

    Keep one Reader for many shards: a compressed tar stays open where the last shard stopped,
    so that shards in order cost one pass in all.

    Args:
        config: For storage options and the Parquet column.
        image: For ``max_bytes``.
        ahead_bytes: Encoded bytes fetched ahead; the largest single item comes on top.
        threads: Files and ranges fetched at the same time.
        timeout_s: Longest silence of storage, on top of a second a megabyte.
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
        self._image_column = config.image_column
        self._ahead_bytes = ahead_bytes
        self._threads = threads
        self._timeout_s = timeout_s
        self._volumes = Volumes(config.storage_options)
        self._fetcher = Fetcher(self._volumes, retry or RetryPolicy(attempts=4), image.max_bytes)
        self._pool = AbandonablePool(threads, "textspot-read")
        self._lane = AbandonablePool(1, "textspot-pass")
        self._passes = self._new_passes()
        self._typical = _Typical()
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
            StorageError: Many reads hung for ever: storage is not worth going on with.
        """
        waiting = _groups(items, self._max_bytes, self._typical)
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
                    pending.append(_Pending(group, self._submit(group)))
                    ahead += group.size
                if not pending:
                    return
                first = pending.popleft()
                ahead -= first.group.size
                yield from self._finish(first)
        finally:
            for left in pending:
                if left.ticket is not None:
                    left.ticket.cancel()

    def close(self) -> None:
        """Let go of threads and open archives."""
        self._pool.close()
        passes = self._passes
        self._lane.submit(lambda _: passes.close())
        self._lane.close()

    def _submit(self, group: _Group) -> AbandonableFuture[tuple[list[Fetched], float]] | None:
        if group.error is not None:
            return None
        pool = self._lane if group.items[0].container in _IN_PASSES else self._pool
        return pool.submit(lambda ticket: self._fetch(group, ticket))

    def _fetch(
        self, group: _Group, ticket: AbandonableFuture[tuple[list[Fetched], float]]
    ) -> tuple[list[Fetched], float]:
        start = time.perf_counter()
        container = group.items[0].container
        if container in _IN_PASSES:
            passes = self._passes
            fetched = []
            for item in group.items:
                ticket.beat()
                fetched.append(passes.fetch(item, ticket.beat))
        elif container is Container.FILE:
            fetched = [self._fetcher.file(item, ticket.beat) for item in group.items]
        else:
            fetched = self._fetcher.ranges(group.items, ticket.beat)
        return fetched, time.perf_counter() - start

    def _finish(self, pending: _Pending) -> Iterator[Encoded]:
        group = pending.group
        read_s = 0.0
        if pending.ticket is None:
            fetched: list[Fetched] = [group.error] * len(group.items) if group.error else []
        else:
            try:
                allowance_s = self._timeout_s + group.size / _SLOWEST_BYTES_S
                fetched, read_s = pending.ticket.wait(allowance_s)
            except TimeoutError as exc:
                self._leave_behind(group)
                error = ImageError(Stage.READ, ErrorKind.TIMEOUT, f"storage gave {exc}")
                fetched = [error] * len(group.items)
        for item, data in zip(group.items, fetched, strict=True):
            yield self._encoded(item, data, read_s / len(group.items))

    def _encoded(self, item: Item, data: Fetched, read_s: float) -> Encoded:
        if isinstance(data, ImageError):
            return Encoded(item, None, data, read_s)
        self._typical.note(item, len(data))
        if len(data) > self._max_bytes:
            return Encoded(item, None, too_large(len(data), self._max_bytes), read_s)
        if not data:
            error = ImageError(Stage.READ, ErrorKind.EMPTY_FILE, "the file is empty (0 bytes)")
            return Encoded(item, None, error, read_s)
        return Encoded(item, data, None, read_s)

    def _leave_behind(self, group: _Group) -> None:
        """A read hangs: go on without its thread, as long as that is not the rule."""
        self._stuck += 1
        if self._stuck > _MAX_STUCK:
            raise StorageError(
                f"storage hangs: {self._stuck} reads did not come back, the last of "
                f"{group.items[0].source}"
            )
        if group.items[0].container in _IN_PASSES:
            self._passes = self._new_passes()
            self._lane.replace()
        else:
            self._pool.replace()

    def _new_passes(self) -> StreamReaders:
        return StreamReaders(self._volumes, self._image_column, self._fetcher)


def _groups(items: Iterable[Item], max_bytes: int, typical: _Typical) -> Iterator[_Group]:
    """Neighbours in one archive together, everything else alone, in order."""
    held: list[Item] = []
    size = 0
    for item in items:
        error = item.error
        if error is None and (_known_bytes(item) or 0) > max_bytes:
            error = too_large(_known_bytes(item), max_bytes)
        if held and (error is not None or not _joins(held, size + typical.estimate(item), item)):
            yield _Group(tuple(held), size)
            held, size = [], 0
        if error is not None:
            yield _Group((item,), 0, error)
            continue
        held.append(item)
        size += typical.estimate(item)
    if held:
        yield _Group(tuple(held), size)


def _joins(held: list[Item], size: int, item: Item) -> bool:
    last = held[-1]
    if item.container is Container.FILE or item.source != last.source:
        return False
    if item.container is not last.container:
        return False
    if len(held) >= _GROUP_ITEMS or size > _GROUP_BYTES:
        return False
    if item.container in _IN_PASSES:
        return True
    end = (last.offset or 0) + (last.size or 0)
    return end <= (item.offset or 0) <= end + _GROUP_GAP


def _known_bytes(item: Item) -> int | None:
    """Bytes that an item will take in memory; of a zip's members when inflated."""
    if item.size is None:
        return None
    return max(item.size, content_bytes(item.content_tag) or 0)
