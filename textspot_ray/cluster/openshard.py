"""A shard in work: results come in any order and leave in item order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from textspot_ray.cluster.ports import Committed, Events
from textspot_ray.records import ImageResult, Item, Shard

if TYPE_CHECKING:
    from textspot_ray.tables.marker import Marker


class Writes(Protocol):
    """What is needed of a `ShardWriter`."""

    def add(self, result: ImageResult) -> None:
        """Add the next page's account."""

    def commit(self) -> Marker:
        """Write the parts, then the marker; gives the marker that holds, ours or a faster one."""

    def abort(self) -> None:
        """Drop what was written so far."""


@dataclass(slots=True)
class _Entry:
    """An item's pages; ``pages`` is unknown until its first page is done."""

    pages: int | None = None
    done: dict[int, ImageResult] = field(default_factory=dict)
    next_page: int = 0
    n_done: int = 0
    size: int = 0


@dataclass(slots=True, eq=False)
class OpenShard:
    """A shard, its writer, and the results that wait for their turn."""

    key: int
    shard: Shard
    writer: Writes
    release: Callable[[int], None]  # gives an item's bytes back to the reader
    entries: dict[int, _Entry] = field(default_factory=dict)
    next_index: int = 0
    n_read: int = 0
    images: int = 0
    words: int = 0
    failed: int = 0
    dropped: bool = False
    committing: bool = False

    @property
    def items(self) -> tuple[Item, ...]:
        """The planned items."""
        return self.shard.items

    @property
    def unread(self) -> int:
        """Items that the reader has not brought yet."""
        return len(self.shard.items) - self.n_read

    @property
    def complete(self) -> bool:
        """Whether every page of every item is with the writer."""
        return self.next_index == len(self.shard.items)

    def read(self, index: int, size: int) -> None:
        """Note that an item's bytes are here."""
        self.n_read += 1
        self.entries[index] = _Entry(size=size)

    def set_pages(self, index: int, pages: int) -> None:
        """Note how many pages an item has."""
        self.entries[index].pages = pages

    def pages_known(self, index: int) -> bool:
        """Whether the item's first page has been decoded."""
        return self.entries[index].pages is not None

    def finish(self, index: int, result: ImageResult) -> None:
        """Take a page's account and pass on to the writer what is next in order."""
        entry = self.entries[index]
        entry.done[result.page] = result
        entry.n_done += 1
        if entry.n_done == entry.pages:
            self.release(entry.size)
        self.images += 1
        self.words += len(result.words)
        self.failed += result.error is not None
        while (head := self.entries.get(self.next_index)) is not None:
            while (ready := head.done.pop(head.next_page, None)) is not None:
                self.writer.add(ready)
                head.next_page += 1
            if head.pages is None or head.next_page < head.pages:
                break
            del self.entries[self.next_index]
            self.next_index += 1

    def commit(self, events: Events) -> None:
        """Commit, and tell how it ended."""
        try:
            events.put(Committed(self.key, self.writer.commit()))
        except BaseException as exc:  # carried over to the runner's thread
            events.put(Committed(self.key, None, exc))
