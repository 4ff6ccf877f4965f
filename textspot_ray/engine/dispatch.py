"""Which task next: an order of the run's own, compressed tars in sequence, nothing given twice."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from textspot_ray.records import ShardId
from textspot_ray.tables.plan.plan import Task

_WINDOW = 1024  # groups looked ahead at; bounds memory and still parts two drivers' ways

Key = tuple[ShardId, int]


class Dispatch:
    """Hands tasks to slots.

    Two drivers on one output walk in different orders, so that they seldom meet at a shard. Tasks
    that share an ``affinity`` (a compressed tar) go to one slot, one after the other. A slot begins
    with one of the smallest, so that words are committed soon.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._sources: deque[Iterator[Task]] = deque()
        self._held: Task | None = None  # read from a source, but of the next group
        self._window: list[deque[Task]] = []
        self._own: dict[int, deque[Task]] = {}  # the rest of the group a slot is at
        self._given: dict[int, dict[Key, Task]] = {}
        self._returned: deque[deque[Task]] = deque()
        self._losses: dict[Key, float] = {}

    def add(self, tasks: Iterable[Task]) -> None:
        """Append a source of tasks; it is read as needed."""
        self._sources.append(iter(tasks))

    @property
    def busy(self) -> bool:
        """Whether any task is left to give, or given and not settled."""
        self._fill()
        left = self._window or self._returned or any(self._own.values())
        return bool(left) or any(self._given.values())

    def take(self, slot: int) -> Task | None:
        """The next task for a slot, None if there is none for it now."""
        own = self._own.setdefault(slot, deque())
        if not own:
            group = self._next_group(begins=slot not in self._given)
            if group is None:
                return None
            self._own[slot] = own = group
        task = own.popleft()
        self._given.setdefault(slot, {})[task.shard, task.generation] = task
        return task

    def has_for(self, slot: int) -> bool:
        """Whether `take` would give this slot something."""
        self._fill()
        return bool(self._own.get(slot) or self._window or self._returned)

    def settle(self, slot: int, key: Key) -> Task | None:
        """A task has come to its end."""
        return self._given.get(slot, {}).pop(key, None)

    def losses(self, slot: int, blame: float = 1.0) -> float:
        """Count the loss of a slot against its tasks; how often the worst of them was lost.

        Args:
            slot: That is gone.
            blame: How much of a loss it counts as: a node that ends is hardly its shards' doing.
        """
        given = self._given.get(slot, {})
        for key in given:
            self._losses[key] = self._losses.get(key, 0.0) + blame
        return max((self._losses[key] for key in given), default=0.0)

    def give_back(self, slot: int) -> int:
        """A slot is gone: what it had goes to the next that asks; how many tasks it had begun."""
        given = sorted(
            self._given.pop(slot, {}).values(), key=lambda t: (t.shard.plan, t.shard.index)
        )
        rest = self._own.pop(slot, deque())
        for task in given:
            if task.affinity is None:
                self._returned.append(deque([task]))
        chained = deque(task for task in given if task.affinity is not None)
        chained.extend(rest)
        if chained:
            self._returned.append(chained)
        return len(given)

    def _next_group(self, *, begins: bool) -> deque[Task] | None:
        if self._returned:
            return self._returned.popleft()
        self._fill()
        if not self._window:
            return None
        places: Sequence[int] = range(len(self._window))
        if begins:
            least = min(group[0].items for group in self._window)
            places = [at for at in places if self._window[at][0].items == least]
        at = self._random.choice(places)
        self._window[at], self._window[-1] = self._window[-1], self._window[at]
        return self._window.pop()

    def _fill(self) -> None:
        while self._sources and len(self._window) < _WINDOW:
            task, self._held = self._held, None
            if task is None:
                task = next(self._sources[0], None)
            if task is None:
                self._sources.popleft()
                continue
            group = deque([task])
            while task.affinity is not None:
                following = next(self._sources[0], None)
                if following is None or following.affinity != task.affinity:
                    self._held = following
                    break
                group.append(following)
            self._window.append(group)
