"""The plan of an output folder: which items there are, in which shards, and what is left to do.

The plan only grows, one segment at a time (see `segment`), and is stored in the output folder:
resuming reads it and checks what is committed, without listing the sources.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textspot_ray.errors import TableError
from textspot_ray.records import Item, Shard, ShardId
from textspot_ray.storage.stores import Store
from textspot_ray.tables.ids import IdIndex, hash_ids
from textspot_ray.tables.plan.segment import Segment, SegmentFile, segment_path, segment_seqs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from textspot_ray.tables.commit.commit_record import CommitRecord
    from textspot_ray.tables.commit.ledger import Ledger
    from textspot_ray.tables.plan.segment import Hashes

_OPEN_FILES = 4  # segments kept open: their footers serve many shards


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to be done; small, picklable, and enough for `Plan.load` on any machine.

    Attributes:
        shard: The shard.
        generation: Generation to commit.
        reason: ``run``, ``retry`` or ``redo``.
        items: How many items will be read.
        bytes: Their size, as far as known.
        affinity: Source that one reader should stream through, shards in order; else None.
        redo: The newest redo segment with items of the shard, else -1.
        previous: Commit record of the generation before, for generations above 0.
        only: ``image_id`` of the items to read (retry); None for all of the generation's.
        help_pages: Start and end of a range of pages of the one item in ``only``: they are done for
            the slot that owns the shard, without a commit. None for the shard itself.
    """

    shard: ShardId
    generation: int
    reason: str
    items: int
    bytes: int
    affinity: str | None = None
    redo: int = -1
    previous: CommitRecord | None = None
    only: tuple[str, ...] | None = None
    help_pages: tuple[int, int] | None = None


class Plan:
    """The stored plan; `refresh` reads segments that others have added."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._clear()

    def _clear(self) -> None:
        self._segments: dict[int, Segment] = {}
        self._files: OrderedDict[int, SegmentFile] = OrderedDict()
        self._redo: dict[ShardId, list[tuple[int, int, int]]] = {}  # segment, start, stop
        self._index = IdIndex()
        self._indexed: set[int] = set()  # segments in the index
        self._starts: list[int] = []  # ordinal of the first item of each "new" segment indexed
        self._start_seqs: list[int] = []

    def refresh(self) -> None:
        """Read the heads of new segments."""
        for seq in segment_seqs(self.store):
            if seq not in self._segments:
                self._note(self._open(seq).head)

    def reload(self) -> None:
        """Read everything again: segments have been rewritten (by `forget`)."""
        self.close()
        self._clear()
        self.refresh()

    @property
    def seqs(self) -> list[int]:
        """Numbers of all segments, as of the last `refresh`."""
        return sorted(self._segments)

    @property
    def next_seq(self) -> int:
        """Number of the next segment, as of the last `refresh`."""
        return max(self._segments, default=-1) + 1

    @property
    def n_items(self) -> int:
        """Items planned."""
        return sum(int(s.rows.sum()) for s in self._new_segments())

    @property
    def n_bytes(self) -> int:
        """Their bytes, as far as known."""
        return sum(int(s.bytes.sum()) for s in self._new_segments())

    @property
    def n_shards(self) -> int:
        """Shards planned."""
        return sum(len(s) for s in self._new_segments())

    def tasks(self, ledger: Ledger) -> Iterator[Task]:
        """What is left to do, in the order of the plan: shards not settled, and changed items.

        As of the last refresh of ledger and plan; streamed, so that millions of shards need no
        memory. Shards with the same ``affinity`` follow each other in the order of the source.
        """
        for segment in self._new_segments():
            yield from self.tasks_of(segment.seq, ledger)

    def tasks_of(self, seq: int, ledger: Ledger) -> Iterator[Task]:
        """What is left to do of one segment: of its own shards, or of those it lists to redo."""
        segment = self._segments[seq]
        for at in range(len(segment)):
            shard = ShardId(int(segment.shards[at, 0]), int(segment.shards[at, 1]))
            task = self._task(shard, ledger)
            if task is not None:
                yield task

    def n_redo(self, ledger: Ledger) -> int:
        """How many settled shards have changed items that wait to be read again."""
        settled = ledger.settled()
        waiting = 0
        for shard, entries in self._redo.items():
            if shard in settled and entries[-1][0] > settled.redo(shard):
                record = ledger.commit_record(shard)
                waiting += record is not None and entries[-1][0] > record.redo
        return waiting

    def load(self, task: Task) -> Shard:
        """The items of a task, with the newest known version of each.

        Raises:
            TableError: The plan does not have that shard.
        """
        shard, previous = task.shard, task.previous
        if task.redo >= 0 and task.redo not in self._segments:
            self.refresh()
        items = self._shard_items(shard)
        seen = -1 if previous is None or task.reason != "redo" else previous.redo
        newer: dict[str, Item] = {}
        for seq, start, stop in self._redo.get(shard, ()):
            if seq <= task.redo:
                fresh = self._open(seq).items(start, stop)
                newer.update((item.image_id, item) for item in fresh if seq > seen)
        if task.reason == "redo":
            chosen = [newer[i.image_id] for i in items if i.image_id in newer]
        else:
            chosen = [newer.get(i.image_id, i) for i in items]
        if task.only is not None:
            only = frozenset(task.only)
            chosen = [item for item in chosen if item.image_id in only]
        return Shard(shard, tuple(chosen), task.generation, task.reason)

    def locate(self, image_ids: Iterable[str]) -> list[ShardId | None]:
        """The shard of each item, None for one that is not planned."""
        self.index()
        ordinals = self._index.find(*hash_ids(image_ids))
        return [None if o < 0 else self.shard_at(int(o)) for o in ordinals]

    def image_ids(self, shard: ShardId) -> list[str]:
        """Names of a shard's items."""
        return [item.image_id for item in self._shard_items(shard)]

    def hashes(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Both halves of the hashes of all ids, in the order of the index."""
        self.index()
        halves = [self._open(seq).hashes()[:2] for seq in self._start_seqs]
        hi, lo = np.concatenate([np.zeros((2, 0), np.uint64), *map(np.stack, halves)], axis=1)
        return hi, lo

    def index(self) -> IdIndex:
        """All planned ids and their newest content tags; read once, then kept up to date."""
        if len(self._indexed) < len(self._segments):
            for seq in sorted(self._segments.keys() - self._indexed):
                self._add_to_index(self._segments[seq], self._open(seq).hashes())
        return self._index

    def has(self, shard: ShardId) -> bool:
        """Whether the plan has this shard."""
        segment = self._segments.get(shard.plan)
        return segment is not None and segment.kind == "new" and 0 <= shard.index < len(segment)

    def settled_rows(self, settled: Mapping[ShardId, int]) -> NDArray[np.bool_]:
        """For every item, by its ordinal in the index, whether its shard is settled."""
        self.index()
        rows = [
            np.repeat([ShardId(seq, i) in settled for i in range(len(segment))], segment.rows)
            for seq, segment in ((seq, self._segments[seq]) for seq in self._start_seqs)
        ]
        return np.concatenate([*rows, np.zeros(0, np.bool_)]).astype(np.bool_)

    def add_segment(self, head: Segment, hashes: Hashes) -> None:
        """Add a segment that this process has just put."""
        self._note(head)
        self._add_to_index(head, hashes)

    def shard_at(self, ordinal: int) -> ShardId:
        """The shard of the item with this ordinal in the index."""
        at = int(np.searchsorted(self._starts, ordinal, side="right")) - 1
        segment = self._segments[self._start_seqs[at]]
        row = ordinal - self._starts[at]
        return ShardId(segment.seq, int(np.searchsorted(segment.stops, row, side="right")))

    def close(self) -> None:
        """Close the files kept open."""
        while self._files:
            self._files.popitem()[1].close()

    def _shard_items(self, shard: ShardId) -> list[Item]:
        try:
            file = self._open(shard.plan)
        except FileNotFoundError:
            raise TableError(f"{self.store.uri}/{segment_path(shard.plan)} is missing") from None
        if not 0 <= shard.index < len(file.head):
            raise TableError(f"{self.store.uri} has no shard {shard}")
        cut = file.head.cut(shard.index)
        return file.items(cut.start, cut.stop)

    def _task(self, shard: ShardId, ledger: Ledger) -> Task | None:
        settled = ledger.settled()
        redo = self._redo[shard][-1][0] if shard in self._redo else -1
        segment = self._segments[shard.plan]
        if shard not in settled:
            cut = segment.cut(shard.index)
            items = cut.stop - cut.start
            return Task(shard, 0, "run", items, cut.bytes, cut.affinity, redo)
        if redo <= settled.redo(shard) or ledger.is_pending(shard):
            return None
        # A listing does not show which redo a record holds: read it.
        previous = ledger.commit_record(shard)
        if previous is None:
            return None
        settled.note_redo(shard, previous.redo)
        return self._redo_task(segment, shard, previous) if redo > previous.redo else None

    def _redo_task(self, segment: Segment, shard: ShardId, previous: CommitRecord) -> Task:
        entries = [entry for entry in self._redo[shard] if entry[0] > previous.redo]
        return Task(
            shard=shard,
            generation=previous.generation + 1,
            reason="redo",
            items=sum(stop - start for _, start, stop in entries),
            bytes=0,
            affinity=segment.cut(shard.index).affinity,
            redo=entries[-1][0] if entries else previous.redo,
            previous=previous,
        )

    def _new_segments(self) -> Iterator[Segment]:
        for seq in sorted(self._segments):
            if self._segments[seq].kind == "new":
                yield self._segments[seq]

    def _open(self, seq: int) -> SegmentFile:
        file = self._files.pop(seq, None)
        if file is None:
            file = SegmentFile(self.store, seq)
            if len(self._files) >= _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files[seq] = file
        return file

    def _note(self, head: Segment) -> None:
        self._segments[head.seq] = head
        if head.kind == "redo":
            for i in range(len(head)):
                cut = head.cut(i)
                self._redo.setdefault(cut.shard, []).append((head.seq, cut.start, cut.stop))

    def _add_to_index(self, head: Segment, hashes: Hashes) -> None:
        hi, lo, tags = hashes
        self._indexed.add(head.seq)
        if head.kind == "redo":
            found = self._index.find(hi, lo)
            self._index.set_tags(found[found >= 0], tags[found >= 0])
            return
        self._starts.append(len(self._index))
        self._start_seqs.append(head.seq)
        self._index.add(hi, lo, tags)
