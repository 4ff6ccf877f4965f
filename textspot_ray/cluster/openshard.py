"""A shard in work: which of its pages are done, and the writer they go to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from textspot_ray.cluster.ports import Committed, Events
from textspot_ray.records import Counts, ImageResult, Shard, Status

if TYPE_CHECKING:
    from textspot_ray.tables.marker import Marker


class Writes(Protocol):
    """What is needed of a `ShardWriter`, which puts results into item order by itself."""

    def add(self, result: ImageResult) -> None:
        """Add a page's account."""

    def commit(self) -> Marker | None:
        """Write the parts, then the marker; None if another attempt was faster."""

    def discard(self) -> None:
        """Drop what was written so far."""


@dataclass(slots=True)
class _Entry:
    """An item that was read; ``pages`` is unknown until its first page is decoded."""

    size: int
    pages: int | None = None
    n_done: int = 0


@dataclass(slots=True, eq=False)
class OpenShard:
    """A shard, its writer, and what is left to do of it."""

    key: int
    shard: Shard
    writer: Writes
    release: Callable[[int], None]  # gives an item's bytes back to the reader
    n_read: int = 0
    n_done: int = 0
    counts: Counts = field(default_factory=Counts)
    dropped: bool = False
    committing: bool = False
    _entries: dict[int, _Entry] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        """Items that the reader has not brought yet."""
        return len(self.shard.items) - self.n_read

    @property
    def complete(self) -> bool:
        """Whether every page of every item is with the writer."""
        return self.n_done == len(self.shard.items)

    def read(self, index: int, size: int) -> None:
        """Note that an item's bytes are here."""
        self.n_read += 1
        self._entries[index] = _Entry(size)

    def set_pages(self, index: int, pages: int) -> None:
        """Note how many pages an item has."""
        self._entries[index].pages = pages

    def pages_known(self, index: int) -> bool:
        """Whether the item's first page has been decoded."""
        return self._entries[index].pages is not None

    def finish(self, index: int, result: ImageResult) -> None:
        """Take a page's account and pass it on to the writer."""
        self.writer.add(result)
        entry = self._entries[index]
        entry.n_done += 1
        whole = entry.n_done == entry.pages
        self.counts += _count(result, whole)
        if whole:
            del self._entries[index]
            self.n_done += 1
            self.release(entry.size)

    def commit(self, events: Events) -> None:
        """Commit, and tell how it ended."""
        try:
            events.put(Committed(self.key, self.writer.commit()))
        except BaseException as exc:  # carried over to the runner's thread
            events.put(Committed(self.key, None, exc))


def _count(result: ImageResult, whole: bool) -> Counts:
    return Counts(
        items=int(whole),
        images=1,
        with_words=int(result.status is Status.WORDS),
        empty=int(result.status is Status.EMPTY),
        failed=int(result.status is Status.FAILED),
        words=len(result.words),
        failures={str(result.error.kind): 1} if result.error is not None else {},
    )
