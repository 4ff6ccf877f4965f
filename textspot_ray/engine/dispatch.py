"""Which task a slot gets next: random order per run, compressed tars in sequence."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from textspot_ray.engine.slot.done_pages import BLOCK_PAGES, LongFile
from textspot_ray.records import ShardId
from textspot_ray.tables.plan.plan import Task

_WINDOW = 1024  # groups to choose from: bounds memory, enough to keep two drivers apart

Key = tuple[ShardId, int]


class Dispatch:
    """Hands tasks to slots, each task to one slot at a time.

    Two drivers on one output take shards in different orders, so that they rarely pick the same
    one. Tasks that share an ``affinity`` (a compressed tar) go to one slot, one after the other. A
    slot begins with one of the smallest tasks, so that words are committed soon. A slot without a
    task helps another one with a long file: it gets blocks of pages from the file's end. The owner
    does not wait for them; blocks that are missing when it gets there it does itself.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._sources: deque[Iterator[deque[Task]]] = deque()
        self._window: list[deque[Task]] = []
        self._own: dict[int, deque[Task]] = {}  # the rest of the group a slot works on
        self._given: dict[int, dict[Key, Task]] = {}
        self._returned: deque[deque[Task]] = deque()
        self._losses: dict[Key, float] = {}
        self._long: dict[int, list[LongFile]] = {}  # by owner: files that others may help with
        self._helped: dict[Key, dict[str, int]] = {}  # first page given away, by file
        self._helps: dict[int, tuple[ShardId, int, str]] = {}  # what a slot helped with last

    def add(self, tasks: Iterable[Task]) -> None:
        """Append a source of tasks; it is read as needed."""
        self._sources.append(_groups(tasks))

    @property
    def busy(self) -> bool:
        """Whether any task is waiting, or handed out and not settled."""
        self._fill()
        left = self._window or self._returned or any(self._own.values())
        return bool(left) or any(self._given.values())

    def take(self, slot: int) -> Task | None:
        """The next task for a slot, None if there is none for it now."""
        own = self._own.setdefault(slot, deque())
        if not own:
            group = self._next_group(begins=slot not in self._given)
            if group is None:
                return self._take_block(slot)
            self._own[slot] = own = group
        task = own.popleft()
        self._given.setdefault(slot, {})[task.shard, task.generation] = task
        return task

    def has_for(self, slot: int) -> bool:
        """Whether `take` would give this slot something."""
        self._fill()
        if self._own.get(slot) or self._window or self._returned:
            return True
        return any(owner != slot for owner in self._long)

    def note_long_files(self, slot: int, files: Iterable[LongFile]) -> None:
        """Note the long files that a slot works on, with the pages it has not begun."""
        found = [file for file in files if self._block(slot, file) is not None]
        if found:
            self._long[slot] = found
        else:
            self._long.pop(slot, None)

    def settle(self, slot: int, key: Key) -> Task | None:
        """Note that a task is finished."""
        self._helped.pop(key, None)
        return self._given.get(slot, {}).pop(key, None)

    def losses(self, slot: int, blame: float = 1.0) -> float:
        """Count the loss of a slot against its tasks.

        Args:
            slot: The slot that is gone.
            blame: What one loss counts: little where a node ends, which is rarely a shard's fault.

        Returns:
            The highest count among its tasks.
        """
        given = self._given.get(slot, {})
        for key in given:
            self._losses[key] = self._losses.get(key, 0.0) + blame
        return max((self._losses[key] for key in given), default=0.0)

    def give_back(self, slot: int) -> int:
        """Take back the tasks of a slot that is gone; returns how many it had begun."""
        given = sorted(
            self._given.pop(slot, {}).values(), key=lambda t: (t.shard.plan, t.shard.index)
        )
        rest = self._own.pop(slot, deque())
        self._long.pop(slot, None)
        self._helps.pop(slot, None)
        for task in given:
            if task.affinity is None:
                self._returned.append(deque([task]))
        chained = deque(task for task in given if task.affinity is not None)
        chained.extend(rest)
        if chained:
            self._returned.append(chained)
        return len(given)

    def _block(self, owner: int, file: LongFile) -> tuple[Task, range] | None:
        """The last block of a file that is still free, unless its owner is about to reach it."""
        key = file.shard, file.generation
        task = self._given.get(owner, {}).get(key)
        stop = self._helped.get(key, {}).get(file.image_id, file.stop)
        start = (stop - 1) // BLOCK_PAGES * BLOCK_PAGES
        if task is None or task.affinity is not None or start < file.start + BLOCK_PAGES:
            return None
        return task, range(start, stop)

    def _take_block(self, slot: int) -> Task | None:
        known = self._helps.get(slot)
        others = [(f, owner) for owner, files in self._long.items() if owner != slot for f in files]
        others.sort(key=lambda other: (other[0].key != known, other[0].start - other[0].stop))
        for file, owner in others:
            block = self._block(owner, file)
            if block is None:
                continue
            task, pages = block
            self._helped.setdefault((file.shard, file.generation), {})[file.image_id] = pages.start
            self._helps[slot] = file.key
            self.note_long_files(owner, self._long[owner])
            return replace(task, only=(file.image_id,), help_pages=(pages.start, pages.stop))
        return None

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
            group = next(self._sources[0], None)
            if group is None:
                self._sources.popleft()
            else:
                self._window.append(group)


def _groups(tasks: Iterable[Task]) -> Iterator[deque[Task]]:
    """Tasks that one slot must do in sequence; most are alone."""
    for affinity, group in groupby(tasks, lambda task: task.affinity):
        if affinity is None:
            yield from (deque([task]) for task in group)
        else:
            yield deque(group)
