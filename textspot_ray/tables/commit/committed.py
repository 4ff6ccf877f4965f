"""Which shards are committed, and in which generation: two bytes per shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from textspot_ray.records import ShardId

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textspot_ray.tables.commit.manifest import ManifestIndex

_NONE: Final = np.int16(-1)  # generation of a shard that is not committed


class CommittedShards(Mapping[ShardId, int]):
    """Newest committed generation of every settled shard.

    It has one array per plan segment, indexed by shard: the four million shards of a billion images
    take 8 MB. As a mapping it gives ``shard in settled`` and ``settled[shard]`` (the generation).
    """

    def __init__(self) -> None:
        self._generations: dict[int, NDArray[np.int16]] = {}
        self._compacted: dict[int, NDArray[np.bool_]] = {}
        self._redo: dict[ShardId, int] = {}  # only the shards that were ever redone
        self._size = 0

    def __getitem__(self, shard: ShardId) -> int:
        generation = _at(self._generations, shard, _NONE)
        if generation < 0:
            raise KeyError(shard)
        return int(generation)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[ShardId]:
        for plan in sorted(self._generations):
            for index in np.flatnonzero(self._generations[plan] >= 0):
                yield ShardId(plan, int(index))

    def redo(self, shard: ShardId) -> int:
        """The newest redo segment whose items the shard's newest generation holds, else -1."""
        return self._redo.get(shard, -1)

    def add(self, shard: ShardId, generation: int, redo: int = -1) -> bool:
        """Note a generation; False if that or a newer one was known.

        Args:
            shard: The shard.
            generation: The committed generation.
            redo: The newest redo segment that it holds, else -1.
        """
        generations = _room(self._generations, shard.plan, shard.index, _NONE)
        known = int(generations[shard.index])
        if known >= generation:
            return False
        generations[shard.index] = generation
        self._size += known < 0
        self.note_redo(shard, redo)
        return True

    def is_compacted(self, shard: ShardId) -> bool:
        """Whether rows of the shard are in files that compact has merged from many shards."""
        return bool(_at(self._compacted, shard, np.False_))

    def note_redo(self, shard: ShardId, redo: int) -> None:
        """Note the newest redo segment that a generation holds."""
        if redo > self.redo(shard):
            self._redo[shard] = redo

    def absorb(self, index: ManifestIndex) -> None:
        """Note a whole manifest."""
        for plan in np.unique(index.plan):
            rows = np.flatnonzero(index.plan == plan)
            shard = index.shard[rows]
            generations = _room(self._generations, int(plan), int(shard.max()), _NONE)
            before = np.count_nonzero(generations >= 0)
            np.maximum.at(generations, shard, index.generation[rows].astype(np.int16))
            self._size += int(np.count_nonzero(generations >= 0) - before)
            compacted = shard[index.compaction[rows] >= 0]
            if len(compacted):
                _room(self._compacted, int(plan), int(compacted.max()), np.False_)[compacted] = True
        for row in np.flatnonzero(index.redo >= 0):
            shard_id = ShardId(int(index.plan[row]), int(index.shard[row]))
            self.note_redo(shard_id, int(index.redo[row]))


def _at(arrays: Mapping[int, NDArray[Any]], shard: ShardId, missing: Any) -> Any:
    """A shard's value in the arrays by plan."""
    array: Any = arrays.get(shard.plan, ())
    return array[shard.index] if 0 <= shard.index < len(array) else missing


def _room(arrays: dict[int, NDArray[Any]], plan: int, index: int, empty: Any) -> NDArray[Any]:
    """A plan's array, long enough for an index; new places are ``empty``."""
    array = arrays.get(plan, np.zeros(0, np.asarray(empty).dtype))
    if index >= len(array):
        size = max(index + 1, 64, 2 * len(array))
        array = np.pad(array, (0, size - len(array)), constant_values=empty)
        arrays[plan] = array
    return array
