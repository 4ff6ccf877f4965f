"""The shards a slot has open: taken on, committed in the background, or dropped."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textspot_ray.cluster.openshard import OpenShard, Writes
from textspot_ray.cluster.ports import Committed, Events
from textspot_ray.errors import AbortedError, TextspotError
from textspot_ray.records import Counts, Shard, ShardId

if TYPE_CHECKING:
    from textspot_ray.tables.marker import Marker


@dataclass(frozen=True, slots=True)
class Settled:
    """A shard that is committed now; ``marker`` is None where another attempt was faster.

    ``counts`` are of what this runner did, whoever committed.
    """

    shard: ShardId
    gen: int
    marker: Marker | None
    counts: Counts


class Shelf:
    """Open shards by key.

    Args:
        events: Where the end of a commit is told.
        release: Gives an item's bytes back to the reader.
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
        """Items of all shards that the reader has not brought yet."""
        return sum(shard.unread for shard in self._shards.values())

    @property
    def committing(self) -> int:
        """Shards whose parts are being written."""
        return sum(shard.committing for shard in self._shards.values())

    @property
    def counts(self) -> Counts:
        """What is done in shards that are not committed."""
        return sum((shard.counts for shard in self._shards.values()), Counts())

    def add(self, shard: Shard, writer: Writes) -> OpenShard:
        """Take on a shard."""
        opened = OpenShard(next(self._keys), shard, writer, self._release)
        self._shards[opened.key] = opened
        return opened

    def find(self, key: int) -> OpenShard | None:
        """An open shard, None if it was dropped."""
        return self._shards.get(key)

    def commit_if_complete(self, shard: OpenShard) -> None:
        """Commit a shard whose pages are all there.

        In a thread of its own, so that the next shard's images go on meanwhile.
        """
        if shard.complete and not shard.committing:
            shard.committing = True
            thread = threading.Thread(
                target=shard.commit, args=(self._events,), name="commit", daemon=True
            )
            thread.start()

    def committed(self, event: Committed) -> Settled:
        """Take note of a commit's end.

        Raises:
            TextspotError: It failed.
        """
        opened = self._shards.pop(event.shard_key)
        shard = opened.shard
        if event.error is not None:
            raise as_fault(event.error, f"shard {shard.id} could not be committed")
        return Settled(shard.id, shard.gen, event.marker, opened.counts)

    def drop(self, shard: OpenShard) -> None:
        """Give up a shard, with all that was done of it."""
        shard.dropped = True
        self._shards.pop(shard.key, None)
        shard.writer.discard()

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
    """A fault as one line for the user; an unforeseen one keeps its cause for the log."""
    if isinstance(error, TextspotError):
        return error
    fault = AbortedError(f"{what}: {type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault
