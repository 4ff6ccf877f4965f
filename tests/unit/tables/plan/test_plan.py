"""Planning: what becomes of a listing, in segments and shards, for one driver and for two."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.table_data import found, make_item, make_items, make_result
from textspot_ray.config import OutputConfig
from textspot_ray.errors import StorageError
from textspot_ray.records import ErrorKind, ImageError, Shard, ShardId, Skipped, Stage
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan import planner
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import ShardPlanner, update_plan

OUTPUT = OutputConfig(min_shard_items=4, max_shard_items=16)


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    found(store)
    return store


def planned(store):
    """All items of the plan as a fresh process reads them, by shard."""
    plan = Plan(store)
    plan.refresh()
    return {task.shard: plan.load(task).items for task in plan.tasks(found(store))}


def run_task(store, ledger, plan, task, fail=None):
    shard = plan.load(task)
    with ShardWriter(
        store, shard, run_id="r", fingerprint=ledger.digest, previous=task.previous, redo=task.redo
    ) as writer:
        for item in shard.items:
            writer.add(make_result(item, fail=fail))
        record = writer.commit()
    assert record is not None and ledger.note(record)
    return record


def run_all(store, fail=None):
    plan, ledger = Plan(store), found(store)
    plan.refresh()
    return [run_task(store, ledger, plan, task, fail) for task in plan.tasks(ledger)]


def test_every_item_is_in_one_shard_in_listing_order(store):
    items = make_items(300)
    summary = update_plan(Plan(store), items, OUTPUT, "r")
    shards = planned(store)
    assert [i for s in sorted(shards, key=str) for i in shards[s]] == items
    assert (summary.listed, summary.new, summary.shards) == (300, 300, len(shards))
    assert summary.bytes == sum(i.size for i in items) == sum_bytes(store)
    assert all(len(v) <= 16 for v in shards.values())


def sum_bytes(store):
    plan = Plan(store)
    plan.refresh()
    assert plan.n_items == 300
    return plan.n_bytes


def test_items_come_back_exactly(store):
    name = b"caf\xe9\n#~.jpg".decode("utf-8", "surrogateescape")
    items = [
        make_item(0, source=f"/x/{name}", member=name, content_tag=None, size=None),
        make_item(1, container="zip", member="a/b.png", offset=2**40, extra='{"a": 1}'),
        make_item(2, error=ImageError(Stage.LIST, ErrorKind.BROKEN_ARCHIVE, "cut at byte 7")),
        make_item(3, tag="\udcff"),
    ]
    summary = update_plan(Plan(store), items, OUTPUT, "r")
    assert [i for shard in planned(store).values() for i in shard] == items
    assert (summary.broken, summary.unsized) == (1, 1)


def test_the_same_listing_again_adds_nothing_and_new_items_a_segment(store):
    items = make_items(50)
    update_plan(Plan(store), items, OUTPUT, "r1")
    again = update_plan(Plan(store), items, OUTPUT, "r2")
    assert (again.listed, again.new, again.segments) == (50, 0, 0)
    more = update_plan(Plan(store), make_items(60), OUTPUT, "r3")
    assert (more.new, more.segments) == (10, 1)
    shards = planned(store)
    assert {s.plan for s in shards} == {0, 1}
    assert sum(map(len, shards.values())) == 60


def test_what_is_no_image_is_counted_by_reason(store):
    listing = [Skipped(f"a{n}.txt", "not an image") for n in range(30)]
    listing += [*make_items(2), Skipped("b", "symlink")]
    summary = update_plan(Plan(store), listing, OUTPUT, "r")
    assert summary.skipped == {"not an image": 30, "symlink": 1}
    assert summary.new == 2


def test_an_item_listed_twice_is_planned_once(store):
    summary = update_plan(Plan(store), [*make_items(5), *make_items(5)], OUTPUT, "r")
    assert (summary.new, summary.duplicates) == (5, 5)


def test_a_dry_run_counts_and_writes_nothing(store):
    update_plan(Plan(store), make_items(10), OUTPUT, "r")
    before = [e.path for e in store.list()]
    listing = [make_item(n, tag="t1") for n in range(30)]
    dry = update_plan(Plan(store), listing, OUTPUT, "r", on_changed="redo", dry_run=True)
    assert [e.path for e in store.list()] == before
    assert (dry.new, dry.changed, dry.redone) == (20, 10, 10) and dry.shards > 0


def test_long_listings_are_streamed_into_segments_and_work_can_start_early(store, monkeypatch):
    monkeypatch.setattr(planner, "_BATCH", 10)
    monkeypatch.setattr(planner, "_FIRST_SEGMENTS", (20,))
    monkeypatch.setattr(planner, "MAX_SEGMENT_ITEMS", 100)
    heads = []
    listed_at_first_segment = []
    counter = itertools.count()

    def listing():
        for item in make_items(455):
            if heads and not listed_at_first_segment:
                listed_at_first_segment.append(next(counter))
            next(counter)
            yield item

    update_plan(Plan(store), listing(), OUTPUT, "r", on_segment=heads.append)
    assert [int(h.rows.sum()) for h in heads] == [20, 100, 100, 100, 100, 35]
    assert listed_at_first_segment == [20]
    assert sum(map(len, planned(store).values())) == 455


def test_two_planners_at_once_share_the_items(store, monkeypatch):
    monkeypatch.setattr(planner, "_BATCH", 10)
    monkeypatch.setattr(planner, "_FIRST_SEGMENTS", ())
    monkeypatch.setattr(planner, "MAX_SEGMENT_ITEMS", 20)
    mine, theirs = Plan(store), Plan(store)

    def listing():
        for number, item in enumerate(make_items(100)):
            if number == 55:  # in the middle of ours, another driver plans the whole
                update_plan(theirs, make_items(120), OUTPUT, "r2")
            yield item

    summary = update_plan(mine, listing(), OUTPUT, "r1")
    shards = planned(store)
    ids = [item.image_id for items in shards.values() for item in items]
    assert len(ids) == len(set(ids)) == 120
    assert summary.new == 40  # what was put before the other came
    assert mine.n_shards == len(shards) and all(map(mine.has, shards))


def test_a_segment_whose_reply_was_lost_is_not_planned_twice(store, monkeypatch):
    put = store.put_if_absent

    def lossy(path, data):
        put(path, data)
        raise StorageError("reply lost")

    monkeypatch.setattr(store, "put_if_absent", lossy)
    summary = update_plan(Plan(store), make_items(10), OUTPUT, "r")
    assert (summary.new, summary.segments) == (10, 1)
    assert sum(map(len, planned(store).values())) == 10


def test_a_changed_source_is_kept_and_counted_by_default(store):
    update_plan(Plan(store), make_items(10), OUTPUT, "r")
    run_all(store)
    listing = [make_item(n, tag="t1" if n < 3 else None if n < 6 else "t0") for n in range(10)]
    summary = update_plan(Plan(store), listing, OUTPUT, "r2")
    assert (summary.changed, summary.redone, summary.new) == (3, 0, 0)
    assert planned(store) == {}


def test_redo_reads_changed_items_again_as_the_next_generation_and_only_once(store):
    update_plan(Plan(store), make_items(20), OUTPUT, "r")
    run_all(store)
    listing = [make_item(n, tag="t1" if n in (1, 2, 9) else "t0") for n in range(20)]
    for expected in (3, 0):
        summary = update_plan(Plan(store), listing, OUTPUT, "r2", on_changed="redo")
        assert (summary.changed, summary.redone) == (expected, expected)
    plan, ledger = Plan(store), found(store)
    plan.refresh()
    tasks = list(plan.tasks(ledger))
    assert [(t.generation, t.reason, t.items) for t in tasks] == [(1, "redo", 2), (1, "redo", 1)]
    loaded = [i for t in tasks for i in plan.load(t).items]
    assert loaded == [listing[1], listing[2], listing[9]]
    run_all(store)
    assert planned(store) == {}
    again = [make_item(n, tag="t2" if n == 2 else item.content_tag)
             for n, item in enumerate(listing)]  # fmt: skip
    assert update_plan(Plan(store), again, OUTPUT, "r3", on_changed="redo").redone == 1
    records = run_all(store)
    assert [(m.generation, m.redo, m.counts.items) for m in records] == [(2, 2, 4)]


def test_an_item_that_changes_before_its_shard_was_run_is_run_in_its_new_version(store):
    update_plan(Plan(store), make_items(8), OUTPUT, "r")
    listing = [make_item(n, tag="t1" if n == 3 else "t0", size=7) for n in range(8)]
    update_plan(Plan(store), listing, OUTPUT, "r2", on_changed="redo")
    items = [i for shard in planned(store).values() for i in shard]
    assert items[3] == listing[3] and items[4] == make_item(4)
    run_all(store)
    assert planned(store) == {}


def test_a_redo_whose_generation_a_retry_took_still_happens(store):
    update_plan(Plan(store), make_items(4), OUTPUT, "r")
    run_all(store, fail=True)
    plan, ledger = Plan(store), found(store)
    every = frozenset(ErrorKind)
    retry = list(retry_tasks(plan, ledger, every))
    listing = [make_item(n, tag="t1" if n == 2 else "t0") for n in range(4)]
    update_plan(Plan(store), listing, OUTPUT, "r2", on_changed="redo")
    run_task(
        store, ledger, plan, retry[0], fail=False
    )  # generation 1, from before the redo was planned
    plan, ledger = Plan(store), found(store)
    plan.refresh()
    assert list(retry_tasks(plan, ledger, every)) == []  # the redo comes first
    tasks = list(plan.tasks(ledger))
    assert [(t.generation, t.reason) for t in tasks] == [(2, "redo")]
    assert plan.load(tasks[0]).items == (listing[2],)


def test_locate_names_the_shard_of_an_item(store):
    update_plan(Plan(store), make_items(40), OUTPUT, "r")
    update_plan(Plan(store), make_items(30, 40), OUTPUT, "r")
    by_item = {i.image_id: s for s, items in planned(store).items() for i in items}
    plan = Plan(store)
    plan.refresh()
    names = [*by_item, "file:///not/there"]
    assert plan.locate(names) == [*by_item.values(), None]


def test_members_of_a_compressed_tar_are_not_mixed_with_others(store):
    def member(archive, n):
        return make_item(1000 * archive + n, source=f"/{archive}.tgz", member=str(n),
                         container="tar_stream", offset=n)  # fmt: skip

    items = [make_item(n) for n in range(3)]
    items += [member(1, n) for n in range(9)] + [member(2, n) for n in range(2)]
    items += [make_item(n) for n in range(10, 12)]
    update_plan(Plan(store), items, OUTPUT, "r")
    plan = Plan(store)
    plan.refresh()
    tasks = list(plan.tasks(found(store)))
    assert [i for t in tasks for i in plan.load(t).items] == items
    for task in tasks:
        sources = {i.source for i in plan.load(task).items if i.container == "tar_stream"}
        assert sources == ({task.affinity} if task.affinity else set())
    assert [t.affinity for t in tasks].count("/1.tgz") >= 2


def test_first_shards_are_small_and_small_sources_feed_several_slots():
    output = OutputConfig(min_shard_items=32, max_shard_items=256)
    sizes = [c.stop - c.start for c in ShardPlanner(output).cut(0, make_items(4000))]
    assert sizes[:8] == [32] * 8 and sizes[8:16] == [64] * 8 and max(sizes) == 256
    small = [c.stop - c.start for c in ShardPlanner(output, total=40).cut(0, make_items(40))]
    assert len(small) == 8 and max(small) == 5
    assert len(ShardPlanner(output, total=3).cut(0, make_items(3))) == 1
    assert ShardPlanner(output, total=0).cut(0, []) == []


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.none(), st.integers(0, 5000)), max_size=120),
    least=st.integers(1, 9),
    most=st.integers(9, 40),
    cap=st.integers(1, 20_000),
)
def test_cuts_cover_all_items_within_the_caps(sizes, least, most, cap):
    items = [make_item(n, size=size) for n, size in enumerate(sizes)]
    output = OutputConfig(min_shard_items=least, max_shard_items=most, max_shard_bytes=cap)
    cuts = ShardPlanner(output).cut(3, items)
    assert [row for c in cuts for row in range(c.start, c.stop)] == list(range(len(items)))
    assert [c.shard for c in cuts] == [ShardId(3, n) for n in range(len(cuts))]
    for cut in cuts:
        assert 1 <= cut.stop - cut.start <= most
        assert cut.bytes <= cap or cut.stop - cut.start == 1


def test_retry_reads_failed_items_again_and_copies_the_rows_of_others(store):
    update_plan(Plan(store), make_items(16), OUTPUT, "r")
    first = run_all(store)
    plan, ledger = Plan(store), found(store)
    tasks = list(retry_tasks(plan, ledger))
    transient = sum(m.counts.failures.get("timeout", 0) for m in first)
    assert sum(t.items for t in tasks) == transient > 0
    for task in tasks:
        shard = plan.load(task)
        assert isinstance(shard, Shard) and shard.generation == 1 and shard.reason == "retry"
        record = run_task(store, ledger, plan, task, fail=False)
        assert not {p.path for p in task.previous.files} & {p.path for p in record.files}
        assert record.counts.words > task.previous.counts.words > 0
        assert record.counts.items == task.previous.counts.items
        assert "timeout" not in record.counts.failures
    assert list(retry_tasks(Plan(store), found(store))) == []
    assert found(store).counts().items == 16


def test_ids_that_users_give_may_look_like_pages_or_be_no_utf8(store):
    items = [make_item(n, image_id=name) for n, name in enumerate(("a#page=3", "a", "b\udcff"))]
    update_plan(Plan(store), items, OUTPUT, "r")
    run_all(store, fail=True)
    assert verify(found(store), Plan(store)).sound
    plan, ledger = Plan(store), found(store)
    tasks = list(retry_tasks(plan, ledger, frozenset(ErrorKind)))
    retried = [item.image_id for task in tasks for item in plan.load(task).items]
    assert sorted(retried) == ["a", "a#page=3", "b%FF"]
    assert update_plan(Plan(store), items, OUTPUT, "r").new == 0


def test_segments_of_large_columns_hold_fewer_items(tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "_BATCH_BYTES", 5_000)
    monkeypatch.setattr(planner, "_MAX_SEGMENT_BYTES", 20_000)
    plan = Plan(open_store(str(tmp_path / "out"), create=True))
    items = [make_item(i, extra=f'{{"caption": "{"x" * 1000}"}}') for i in range(100)]
    summary = update_plan(plan, items, OutputConfig(), "run")
    assert summary.new == 100 and summary.segments == 5
    changed = [replace(item, content_tag="t1") for item in items]
    summary = update_plan(plan, changed, OutputConfig(), "run", on_changed="redo")
    assert summary.redone == 100 and summary.segments == 5
