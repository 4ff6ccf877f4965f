"""Cutting a stretch of listed items into shards."""

from __future__ import annotations

from collections.abc import Sequence

from textspot_ray.config import OutputConfig
from textspot_ray.records import Container, Item, ShardId
from textspot_ray.tables.segment import Cut

UNSIZED_BYTES = 2**20  # assumed of an item whose size the listing does not tell
_STEP = 8  # shards of one size before the size doubles
_FEWEST = 4  # images; smaller shards cost more in commits than they give in balance


class Cutter:
    """Cuts consecutive items, in the order listed, so that a shard's reads lie close together.

    The first shards are small, so that every slot soon has one and words are committed within
    seconds; then sizes double every eight shards up to ``max_shard_items`` (2–5 minutes of work
    with the default of 256). A byte cap ends a shard early, and members of a compressed tar are
    never mixed with other sources, because one reader has to stream through it.

    Args:
        output: Sizes and caps.
        total: How many items there are, if that is known; fewer than eight minimal shards are
            cut into eight all the same, so that a small source still feeds several slots.
    """

    def __init__(self, output: OutputConfig, total: int | None = None) -> None:
        self._max_items = output.max_shard_items
        self._max_bytes = output.max_shard_bytes
        self._least = output.min_shard_items
        if total is not None and total < _STEP * self._least:
            self._least = min(self._least, max(_FEWEST, -(-total // _STEP)))
        self._cut = 0

    def cut(self, seq: int, items: Sequence[Item]) -> list[Cut]:
        """Cuts of segment ``seq`` over all of ``items``."""
        cuts: list[Cut] = []
        start, n_bytes = 0, 0
        for row, item in enumerate(items):
            size = UNSIZED_BYTES if item.size is None else item.size
            if row > start and (
                row - start >= self._target()
                or n_bytes + size > self._max_bytes
                or _stream(item) != _stream(items[row - 1])
            ):
                cuts.append(self._close(seq, len(cuts), start, row, n_bytes, items))
                start, n_bytes = row, 0
            n_bytes += size
        if items:
            cuts.append(self._close(seq, len(cuts), start, len(items), n_bytes, items))
        return cuts

    def _target(self) -> int:
        return min(self._max_items, self._least << min(self._cut // _STEP, 30))

    def _close(
        self, seq: int, index: int, start: int, stop: int, n_bytes: int, items: Sequence[Item]
    ) -> Cut:
        self._cut += 1
        return Cut(ShardId(seq, index), start, stop, n_bytes, _stream(items[start]))


def _stream(item: Item) -> str | None:
    return item.source if item.container is Container.TAR_STREAM else None
