"""Which shards are settled, and by which generation: two bytes a shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from textspot_ray.records import ShardId

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textspot_ray.tables.commit.manifest import ManifestIndex


class CommittedShards(Mapping[ShardId, int]):
    """Newest committed generation of every settled shard.

    One array a plan segment, indexed by shard: the four million shards of a billion images take
    8 MB. As a mapping it answers ``shard in settled`` and ``settled[shard]`` (the generation).
    """

    def __init__(self) -> None:
        self._gens: dict[int, NDArray[np.int16]] = {}
        self._based: dict[int, NDArray[np.bool_]] = {}
        self._redo: dict[ShardId, int] = {}  # only the shards that were ever redone
        self._size = 0

    def __getitem__(self, shard: ShardId) -> int:
        gens = self._gens.get(shard.plan)
        if gens is None or not 0 <= shard.index < len(gens) or gens[shard.index] < 0:
            raise KeyError(shard)
        return int(gens[shard.index])

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[ShardId]:
        for plan in sorted(self._gens):
            for index in np.flatnonzero(self._gens[plan] >= 0):
                yield ShardId(plan, int(index))

    def redo(self, shard: ShardId) -> int:
        """The newest redo segment whose items the shard's newest generation holds, else -1."""
        return self._redo.get(shard, -1)

    def add(self, shard: ShardId, gen: int, redo: int = -1) -> bool:
        """Note a generation; False if that or a newer one was known."""
        gens = self._room(shard.plan, shard.index)
        known = int(gens[shard.index])
        if known >= gen:
            return False
        gens[shard.index] = gen
        self._size += known < 0
        self.note_redo(shard, redo)
        return True

    def is_based(self, shard: ShardId) -> bool:
        """Whether rows of the shard are in files that compact has made of many shards'."""
        based = self._based.get(shard.plan)
        return based is not None and 0 <= shard.index < len(based) and bool(based[shard.index])

    def note_redo(self, shard: ShardId, redo: int) -> None:
        """Note the newest redo segment that a generation holds."""
        if redo > self.redo(shard):
            self._redo[shard] = redo

    def absorb(self, index: ManifestIndex) -> None:
        """Note a whole manifest."""
        for plan in np.unique(index.plan):
            rows = np.flatnonzero(index.plan == plan)
            shard = index.shard[rows]
            gens = self._room(int(plan), int(shard.max()))
            before = np.count_nonzero(gens >= 0)
            np.maximum.at(gens, shard, index.gen[rows].astype(np.int16))
            self._size += int(np.count_nonzero(gens >= 0) - before)
            in_base = shard[index.base[rows] >= 0]
            if len(in_base):
                self._based_room(int(plan), int(in_base.max()))[in_base] = True
        for row in np.flatnonzero(index.redo >= 0):
            shard_id = ShardId(int(index.plan[row]), int(index.shard[row]))
            self.note_redo(shard_id, int(index.redo[row]))

    def _based_room(self, plan: int, index: int) -> NDArray[np.bool_]:
        based = self._based.get(plan, np.zeros(0, np.bool_))
        if index >= len(based):
            based = np.pad(based, (0, 2 * index + 64 - len(based)))
            self._based[plan] = based
        return based

    def _room(self, plan: int, index: int) -> NDArray[np.int16]:
        gens = self._gens.get(plan)
        if gens is None or index >= len(gens):
            grown = np.full(max(index + 1, 64, 0 if gens is None else 2 * len(gens)), -1, np.int16)
            if gens is not None:
                grown[: len(gens)] = gens
            self._gens[plan] = gens = grown
        return gens
