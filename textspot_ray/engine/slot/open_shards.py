"""The shards that a slot works on: which pages are done, and commits in the background."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from textspot_ray.engine.slot.done_pages import LONG_PAGES, DonePages
from textspot_ray.engine.slot.ports import Committed, Events, PageWork
from textspot_ray.errors import AbortedError, TextspotError
from textspot_ray.records import (
    Counts,
    DetectedPage,
    Encoded,
    ImageError,
    ImageResult,
    Shard,
    ShardId,
)

if TYPE_CHECKING:
    from textspot_ray.tables.commit.commit_record import CommitRecord
    from textspot_ray.tables.commit.writer import ShardWriter


@dataclass(slots=True)
class _Entry:
    """An item that was read; ``pages`` is unknown until its first page is decoded."""

    encoded: Encoded
    pages: int | None = None
    n_done: int = 0


@dataclass(slots=True, eq=False)
class OpenShard:
    """A shard, its writer, and what is left to do of it.

    One without a writer is a long file of a shard that another slot owns: finished pages are only
    stored where that slot finds them, and are counted there.
    """

    key: int
    shard: Shard
    writer: ShardWriter | None
    release: Callable[[int], None]  # an item's bytes are no longer held
    pages: DonePages | None = None  # keeps those of long files
    n_read: int = 0
    n_done: int = 0
    counts: Counts = field(default_factory=Counts)
    dropped: bool = False
    committing: bool = False
    has_long_files: bool = False
    requested: list[range] = field(default_factory=list)  # pages to help with, once it is read
    _entries: dict[int, _Entry] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        """Items that have not been read yet, and requested pages that wait for that."""
        return len(self.shard.items) - self.n_read + sum(map(len, self.requested))

    @property
    def complete(self) -> bool:
        """Whether every page of every item is with the writer."""
        return self.n_done == len(self.shard.items)

    def read(self, index: int, encoded: Encoded) -> None:
        """Note that an item's bytes are here."""
        self.n_read += 1
        self._entries[index] = _Entry(encoded)

    def set_pages(self, index: int, pages: int) -> None:
        """Note how many pages an item has."""
        self._entries[index].pages = pages
        self.has_long_files = self.has_long_files or pages > LONG_PAGES

    def take_requested(self) -> tuple[Encoded | None, list[range]]:
        """The file to help with, None until it is read, and pages requested since the last call."""
        entry = self._entries.get(0)
        if entry is None:
            return None, []
        requested, self.requested = self.requested, []
        entry.pages = (entry.pages or 0) + sum(map(len, requested))
        return entry.encoded, requested

    def keeps_pages(self, index: int) -> bool:
        """Whether finished pages of an item are stored before the shard is committed."""
        if self.pages is None or self.writer is None:
            return self.pages is not None
        pages = self._entries[index].pages
        return pages is not None and pages > LONG_PAGES

    def pages_known(self, index: int) -> bool:
        """Whether the item's first page has been decoded."""
        return self._entries[index].pages is not None

    def finish(self, index: int, result: ImageResult) -> None:
        """Take a page's result and pass it on to the writer."""
        counts = self.writer.add(result) if self.writer is not None else None
        entry = self._entries[index]
        entry.n_done += 1
        whole = entry.n_done == entry.pages
        if counts is not None:
            self.counts += replace(counts, items=int(whole))  # progress counts whole items
        if whole:
            del self._entries[index]
            self.n_done += 1
            self.release(len(entry.encoded.data or b""))

    def commit(self, events: Events) -> None:
        """Commit, and post the outcome."""
        assert self.writer is not None
        try:
            record = self.writer.commit()
            if self.pages is not None and self.has_long_files:
                self.pages.drop()
            events.put(Committed(self.key, record))
        except BaseException as exc:  # carried over to the runner's thread
            events.put(Committed(self.key, None, exc))


@dataclass(slots=True, eq=False)
class PageTask:
    """A page, what is known of it so far, and what has gone wrong with it.

    Attributes:
        ticket: Number of the current attempt; late answers carry older ones.
        work: Estimate for the detector, once it has been made.
        reserved: Bytes of features reserved for it.
        detector_reserved: Bytes reserved for it inside the detector.
        superseded: Its result was already there from an earlier run; the new one is dropped.
        stop: If set, it stands for all pages from ``page`` up to this one, which begin later.
        suspect: It was in flight when a worker died, and must run alone.
        deaths_alone: How often a worker died while this was the only image in flight.
        faults_alone: The same, by faults that no image causes.
        attempt: Number of the attempt, from 1.
    """

    ticket: int
    shard: OpenShard
    index: int
    page: int
    encoded: Encoded
    detected: DetectedPage | None = None
    features: Any = None
    work: PageWork | None = None
    reserved: int = 0
    detector_reserved: int = 0
    superseded: bool = False
    stop: int | None = None
    suspect: bool = False
    deaths_alone: int = 0
    faults_alone: int = 0
    attempt: int = 1

    @property
    def n_pages(self) -> int:
        """How many pages it stands for."""
        return 1 if self.stop is None else self.stop - self.page

    def failed(self, error: ImageError) -> ImageResult:
        """The page's result if it failed."""
        encoded = self.encoded
        return ImageResult(encoded.item, self.page, None, error=error, read_s=encoded.read_s)

    def reset(self, ticket: int) -> None:
        """Forget what was found, for another attempt."""
        self.ticket = ticket
        self.detected = self.features = None
        self.suspect = True
        self.attempt += 1


@dataclass(frozen=True, slots=True)
class ShardOutcome:
    """A shard that is committed now; ``record`` is None where another attempt was faster.

    ``counts`` are of this runner's own work, whether or not its commit won.
    """

    shard: ShardId
    generation: int
    record: CommitRecord | None
    counts: Counts


class OpenShards:
    """Open shards by key.

    Args:
        events: Where the outcome of a commit is posted.
        release: Tells the reader that an item's bytes are no longer held.
    """

    def __init__(self, events: Events, release: Callable[[int], None]) -> None:
        self._events = events
        self._release = release
        self._keys = itertools.count()
        self._shards: dict[int, OpenShard] = {}

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def unread(self) -> int:
        """Items of all shards that have not been read yet."""
        return sum(shard.unread for shard in self._shards.values())

    @property
    def committing(self) -> int:
        """Shards whose parts are being written."""
        return sum(shard.committing for shard in self._shards.values())

    @property
    def counts(self) -> Counts:
        """Counts of finished work in shards that are not committed."""
        return sum((shard.counts for shard in self._shards.values()), Counts())

    def add(
        self, shard: Shard, writer: ShardWriter | None, pages: DonePages | None = None
    ) -> OpenShard:
        """Open a shard.

        Args:
            shard: Of the plan.
            writer: Takes its results; None to help with one of its files.
            pages: Keeps finished pages of long files, so that another attempt need not redo them.
        """
        opened = OpenShard(next(self._keys), shard, writer, self._release, pages)
        self._shards[opened.key] = opened
        return opened

    def find(self, key: int) -> OpenShard | None:
        """An open shard, None if it was dropped."""
        return self._shards.get(key)

    def helped(self, shard: Shard) -> OpenShard | None:
        """The one opened to help with this file of a shard, None if there is none."""
        found = (o for o in self._shards.values() if o.writer is None and o.shard == shard)
        return next(found, None)

    def commit_if_complete(self, shard: OpenShard) -> None:
        """Commit a shard whose pages are all there.

        Runs in its own thread, so that the next shard's images go on meanwhile.
        """
        if shard.writer is None:
            if shard.complete:
                self._shards.pop(shard.key, None)
        elif shard.complete and not shard.committing:
            shard.committing = True
            thread = threading.Thread(
                target=shard.commit, args=(self._events,), name="commit", daemon=True
            )
            thread.start()

    def committed(self, event: Committed) -> ShardOutcome:
        """Take the outcome of a commit.

        Raises:
            TextspotError: It failed.
        """
        opened = self._shards.pop(event.shard_key)
        shard = opened.shard
        if event.error is not None:
            raise as_fault(event.error, f"shard {shard.id} could not be committed")
        return ShardOutcome(shard.id, shard.generation, event.record, opened.counts)

    def drop(self, shard: OpenShard) -> None:
        """Give up a shard and its uncommitted work."""
        shard.dropped = True
        self._shards.pop(shard.key, None)
        if shard.writer is not None:
            shard.writer.discard()
        if shard.pages is not None:
            shard.pages.flush()

    def drop_unstarted(self, keys: Iterable[int]) -> None:
        """Drop shards that still have items to read, and those with these keys."""
        unstarted = frozenset(keys)
        for shard in list(self._shards.values()):
            if shard.unread or shard.key in unstarted:
                self.drop(shard)

    def close(self) -> None:
        """Drop all that is not being committed."""
        for shard in list(self._shards.values()):
            if not shard.committing:
                self.drop(shard)


def as_fault(error: BaseException, what: str) -> TextspotError:
    """An exception as one line for the user; an unexpected one is kept as its cause."""
    if isinstance(error, TextspotError):
        return error
    fault = AbortedError(f"{what}: {type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault
