"""Growing the plan from a listing: new items are cut into shards, changed ones may be redone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from textspot_ray.config import OutputConfig
from textspot_ray.records import Item, ShardId, Skipped
from textspot_ray.sources.kinds import is_ordered
from textspot_ray.tables.commit.codec import put_once
from textspot_ray.tables.commit.commit_record import new_attempt
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.ids import hash_ids, hash_tags
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.segment import (
    Segment,
    ShardSlice,
    build_segment,
    encode_segment,
    segment_path,
)
from textspot_ray.tables.schema import clean_text

MAX_SEGMENT_ITEMS = 100_000
_FIRST_SEGMENTS = (2_048, 16_384)  # small, so that work starts while a long listing goes on
_BATCH = 2_048
# Pass-through columns are held until their segment is stored: large ones make it shorter.
_BATCH_BYTES = 8 << 20
_MAX_SEGMENT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What an update of the plan found.

    Attributes:
        listed: Items listed, known ones included.
        new: Items that no earlier segment had.
        changed: Known items whose content tag differs from the plan's.
        redone: Those of them that are planned to be read again.
        duplicates: Items listed twice in this listing (the second is dropped).
        broken: New items already known to be unreadable.
        skipped: What is not an image, counted by reason.
        segments: Segments added.
        shards: Shards added.
        bytes: Bytes of the new items, as far as known.
        unsized: New items whose size is unknown.
    """

    listed: int = 0
    new: int = 0
    changed: int = 0
    redone: int = 0
    duplicates: int = 0
    broken: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    shards: int = 0
    bytes: int = 0
    unsized: int = 0


def update_plan(
    plan: Plan,
    listing: Iterable[Item | Skipped],
    output: OutputConfig,
    run_id: str,
    *,
    on_changed: str = "keep",
    dry_run: bool = False,
    on_segment: Callable[[Segment], None] | None = None,
) -> PlanSummary:
    """Add what is new in a listing to the plan.

    The listing is streamed; memory is 28 bytes per item ever planned, plus one segment. Another
    driver may plan the same folder at the same time: each item ends up in one segment.

    Args:
        plan: The plan of the output folder.
        listing: Items, and skipped entries.
        output: How shards are cut.
        run_id: Name of the run, stored with the segments.
        on_changed: ``keep`` counts items whose content has changed, ``redo`` plans them again.
        dry_run: Count only; storage is not touched.
        on_segment: Called with the head of each segment as soon as it is stored.

    Raises:
        StorageError: Storage refuses; segments stored before that stay and count.
    """
    plan.refresh()
    plan.index()
    update = _Update(plan, output, run_id, on_changed == "redo", dry_run, on_segment)
    batch: list[Item] = []
    batch_bytes = 0
    for entry in listing:
        if isinstance(entry, Skipped):
            update.skip(entry)
            continue
        batch.append(entry)
        batch_bytes += len(entry.extra or "")
        if len(batch) >= _BATCH or batch_bytes >= _BATCH_BYTES:
            update.take(batch)
            batch, batch_bytes = [], 0
    update.take(batch)
    return update.finish()


def _with_clean_id(item: Item) -> Item:
    """The item under its name in the tables: ids from users may be invalid UTF-8."""
    name = clean_text(item.image_id)
    return item if name == item.image_id else replace(item, image_id=name)


@dataclass(slots=True)
class _Update:
    """An update of the plan that is under way."""

    plan: Plan
    output: OutputConfig
    run_id: str
    redo: bool
    dry_run: bool
    on_segment: Callable[[Segment], None] | None
    _shards: ShardPlanner | None = None
    _pending: list[Item] = field(default_factory=list)
    _pending_ids: set[str] = field(default_factory=set)
    _pending_bytes: int = 0
    _changed: dict[int, Item] = field(default_factory=dict)  # by ordinal
    _changed_bytes: int = 0
    _skipped: Counter[str] = field(default_factory=Counter)
    _n: Counter[str] = field(default_factory=Counter)  # by the names of `PlanSummary`

    def skip(self, entry: Skipped) -> None:
        self._skipped[entry.reason] += 1

    def take(self, batch: list[Item]) -> None:
        """Sort a batch into known, changed and new items; flush when a segment is full."""
        if not batch:
            return
        self._n["listed"] += len(batch)
        batch = [_with_clean_id(item) for item in batch]
        found = self.plan.index().find(*hash_ids(item.image_id for item in batch))
        known = np.flatnonzero(found >= 0)
        for row in np.flatnonzero(found < 0):
            item = batch[row]
            if item.image_id in self._pending_ids:
                self._n["duplicates"] += 1
                continue
            self._pending.append(item)
            self._pending_ids.add(item.image_id)
            self._pending_bytes += len(item.extra or "")
        if len(known):
            self._compare(found[known], [batch[row] for row in known])
        done = self._n["segments"]
        target = _FIRST_SEGMENTS[done] if done < len(_FIRST_SEGMENTS) else MAX_SEGMENT_ITEMS
        if (
            len(self._pending) >= min(target, MAX_SEGMENT_ITEMS)
            or self._pending_bytes >= _MAX_SEGMENT_BYTES
        ):
            self._flush(last=False)
        if len(self._changed) >= MAX_SEGMENT_ITEMS or self._changed_bytes >= _MAX_SEGMENT_BYTES:
            self._flush_changed()

    def finish(self) -> PlanSummary:
        """Flush the rest."""
        self._flush(last=True)
        self._flush_changed()
        return PlanSummary(**self._n, skipped=dict(self._skipped))

    def _compare(self, ordinals: np.ndarray, items: list[Item]) -> None:
        before = self.plan.index().tags(ordinals)
        now = hash_tags(item.content_tag for item in items)
        # Without a tag nothing is known about a change.
        for row in np.flatnonzero((before != now) & (before != 0) & (now != 0)):
            self._n["changed"] += 1
            if self.redo:
                self._changed[int(ordinals[row])] = items[row]
                self._changed_bytes += len(items[row].extra or "")

    def _flush(self, last: bool) -> None:
        if self._shards is None:
            self._shards = ShardPlanner(self.output, total=len(self._pending) if last else None)
        while self._pending:
            items = self._pending
            seq = self.plan.next_seq
            cuts = self._shards.cut(seq, items)
            won = self.dry_run or self._put("new", seq, cuts, items)
            if won:
                self._n["new"] += len(items)
                self._n["broken"] += sum(item.error is not None for item in items)
                self._n["segments"] += 1
                self._n["shards"] += len(cuts)
                self._n["bytes"] += sum(item.size or 0 for item in items)
                self._n["unsized"] += sum(item.size is None for item in items)
                self._pending = []
                break
            # Another driver's segment has the number: what it lists is no longer new.
            found = self.plan.index().find(*hash_ids(item.image_id for item in items))
            self._pending = [item for item, at in zip(items, found, strict=True) if at < 0]
        self._pending_bytes = 0
        if not self.dry_run:
            self._pending_ids.clear()

    def _flush_changed(self) -> None:
        self._changed_bytes = 0
        while self._changed:
            rows = sorted(self._changed.items())  # by ordinal, hence by shard
            items = [item for _, item in rows]
            cuts: list[ShardSlice] = []
            for row, (ordinal, item) in enumerate(rows):
                shard, size = self.plan.shard_at(ordinal), item.size or 0
                if cuts and cuts[-1].shard == shard:
                    size, start = size + cuts[-1].bytes, cuts.pop().start
                else:
                    start = row
                cuts.append(ShardSlice(shard, start, row + 1, size, None))
            if self.dry_run or self._put("redo", self.plan.next_seq, cuts, items):
                self._n["redone"] += len(items)
                self._n["segments"] += 1
                self._changed = {}
                break
            tags = self.plan.index().tags(np.array([ordinal for ordinal, _ in rows]))
            now = hash_tags(item.content_tag for item in items)
            self._changed = {o: i for (o, i), a, b in zip(rows, tags, now, strict=True) if a != b}

    def _put(self, kind: str, seq: int, cuts: list[ShardSlice], items: list[Item]) -> bool:
        head = build_segment(seq, new_attempt(), self.run_id, kind, time.time(), cuts)
        data = encode_segment(head, items)
        fault("before_segment")
        won = put_once(self.plan.store, segment_path(seq), data)
        fault("after_segment")
        if not won:
            self.plan.refresh()
            return False
        hi, lo = hash_ids(item.image_id for item in items)
        self.plan.add_segment(head, (hi, lo, hash_tags(item.content_tag for item in items)))
        if self.on_segment is not None:
            self.on_segment(head)
        return True


UNSIZED_BYTES = 2**20  # assumed for an item of unknown size
_STEP = 8  # shards of one size before the size doubles
_FEWEST = 4  # images; smaller shards cost more in commits than they give in balance


class ShardPlanner:
    """Cuts items into shards in the order listed, so that a shard's reads are close together.

    The first shards are small, so that every slot gets one soon and words are committed within
    seconds; then sizes double every eight shards up to ``max_shard_items`` (2–5 minutes of work
    with the default of 256). A byte limit ends a shard early, and members of a compressed tar are
    never mixed with other sources, because one reader has to stream through it.

    Args:
        output: Sizes and limits.
        total: How many items there are, if known; fewer than eight minimal shards are cut into
            eight all the same, so that a small source still feeds several slots.
    """

    def __init__(self, output: OutputConfig, total: int | None = None) -> None:
        self._max_items = output.max_shard_items
        self._max_bytes = output.max_shard_bytes
        self._min_items = output.min_shard_items
        if total is not None and total < _STEP * self._min_items:
            self._min_items = min(self._min_items, max(_FEWEST, -(-total // _STEP)))
        self._cut = 0

    def cut(self, seq: int, items: Sequence[Item]) -> list[ShardSlice]:
        """Cuts of segment ``seq`` over all of ``items``."""
        cuts: list[ShardSlice] = []
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
        return min(self._max_items, self._min_items << min(self._cut // _STEP, 30))

    def _close(
        self, seq: int, index: int, start: int, stop: int, n_bytes: int, items: Sequence[Item]
    ) -> ShardSlice:
        self._cut += 1
        return ShardSlice(ShardId(seq, index), start, stop, n_bytes, _stream(items[start]))


def _stream(item: Item) -> str | None:
    return item.source if is_ordered(item.container) else None
