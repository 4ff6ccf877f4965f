"""The reader's thread: encoded bytes are fetched ahead of the detector, within limits."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textspot_ray.engine.slot.ports import Events, ItemRead, ReaderFailed
from textspot_ray.records import Item, Shard

if TYPE_CHECKING:
    from textspot_ray.sources.reader import Reader


@dataclass(frozen=True, slots=True)
class Awaited:
    """The item being read, and since when (monotonic seconds)."""

    shard_key: int
    index: int
    item: Item
    since_s: float


class ReadAhead:
    """Reads shards one after the other in its own thread and posts `ItemRead` events.

    One reader serves all shards, so that a compressed tar's stream continues where the last shard
    ended. The thread waits while ``max_items`` items are not decoded or ``max_bytes`` are held; a
    single larger item is let through alone.

    Args:
        make_reader: Makes the archive reader, in this process.
        events: Where items are posted.
        max_items: Most items read and not decoded yet.
        max_bytes: Most bytes held.
    """

    def __init__(
        self,
        make_reader: Callable[[], Reader],
        events: Events,
        *,
        max_items: int,
        max_bytes: int,
    ) -> None:
        self._make_reader = make_reader
        self._events = events
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._shards: deque[tuple[int, int, Shard]] = deque()  # key, first index, shard
        self._waiting = 0
        self._held_bytes = 0
        self._awaited: Awaited | None = None
        self._epoch = 0  # of the thread; an abandoned one sees that it has changed, and ends
        self._thread: threading.Thread | None = None
        self._reader: Reader | None = None
        self._retries_before = 0  # by readers of older threads

    @property
    def retries(self) -> int:
        """Reads retried so far, if the reader counts them."""
        return self._retries_before + int(getattr(self._reader, "retries", 0))

    @property
    def epoch(self) -> int:
        """Number of the current thread; events of older ones are ignored."""
        return self._epoch

    @property
    def awaited(self) -> Awaited | None:
        """The item being read from storage now, if any."""
        with self._changed:
            return self._awaited

    def add(self, key: int, shard: Shard, start: int = 0) -> None:
        """Queue a shard's items from index ``start`` on.

        Args:
            key: Key of its items' events.
            shard: The shard.
            start: The first wanted item.
        """
        with self._changed:
            self._shards.append((key, start, shard))
            if self._thread is None:
                self._begin()
            self._changed.notify_all()

    def decoded(self) -> None:
        """An item's first page has been decoded, or will never be."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()

    def release(self, size: int) -> None:
        """An item is finished: its bytes are no longer held."""
        with self._changed:
            self._held_bytes -= size
            self._changed.notify_all()

    def abandon(self) -> Awaited | None:
        """Give up on the item being read: a fresh thread and reader continue after it."""
        with self._changed:
            stuck = self._awaited
            if stuck is None:
                return None
            key, _, shard = self._shards[0]
            self._shards[0] = (key, stuck.index + 1, shard)
            self._awaited = None
            self._begin()
            return stuck

    def clear(self) -> None:
        """Read nothing more of what is queued."""
        with self._changed:
            self._epoch += 1
            self._shards.clear()
            self._awaited = None
            self._thread = None
            self._changed.notify_all()

    def _begin(self) -> None:
        self._epoch += 1
        self._thread = threading.Thread(
            target=self._run, args=(self._epoch,), name="read-ahead", daemon=True
        )
        self._thread.start()

    def _run(self, epoch: int) -> None:
        try:
            reader = self._make_reader()
            with self._changed:
                self._retries_before, self._reader = self.retries, reader
            try:
                while (work := self._next_shard(epoch)) is not None:
                    if not self._read(reader, epoch, *work):
                        return
            finally:
                reader.close()
        except BaseException as exc:  # the runner ends the job with it
            self._events.put(ReaderFailed(epoch, exc))

    def _next_shard(self, epoch: int) -> tuple[int, int, Shard] | None:
        with self._changed:
            while self._epoch == epoch and not self._shards:
                self._changed.wait(timeout=60.0)
            return self._shards[0] if self._epoch == epoch else None

    def _read(self, reader: Reader, epoch: int, key: int, start: int, shard: Shard) -> bool:
        items = shard.items[start:]
        stream = reader.read(items)
        for index, item in enumerate(items, start):
            with self._changed:
                while self._epoch == epoch and not self._has_room():
                    self._changed.wait(timeout=60.0)
                if self._epoch != epoch:
                    return False
                self._awaited = Awaited(key, index, item, time.monotonic())
            encoded = next(stream, None)
            if encoded is None:
                raise RuntimeError(f"the reader ended before {item.image_id}")
            with self._changed:
                if self._epoch != epoch:
                    return False
                self._awaited = None
                self._waiting += 1
                self._held_bytes += len(encoded.data or b"")
            self._events.put(ItemRead(key, index, encoded))
            del encoded  # or it would be held until the next one is here
        with self._changed:
            if self._epoch != epoch:
                return False
            self._shards.popleft()
        return True

    def _has_room(self) -> bool:
        if self._waiting >= self._max_items:
            return False
        return self._held_bytes < self._max_bytes or self._held_bytes == 0
