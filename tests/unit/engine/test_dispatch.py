"""Which task goes to which slot."""

from __future__ import annotations

from textspot_ray.engine.dispatch import Dispatch
from textspot_ray.engine.slot.done_pages import LongFile
from textspot_ray.records import ShardId
from textspot_ray.tables.plan.plan import Task


def make_tasks(count, affinity=None, plan=0):
    return [Task(ShardId(plan, n), 0, "run", 10, 100, affinity) for n in range(count)]


def drain(dispatch, slot=0):
    taken = []
    while (task := dispatch.take(slot)) is not None:
        taken.append(task)
        dispatch.settle(slot, (task.shard, task.generation))
    return taken


def test_every_task_is_given_once():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(50))
    dispatch.add(make_tasks(30, plan=1))
    taken = [t.shard for t in drain(dispatch)]
    assert len(taken) == len(set(taken)) == 80
    assert not dispatch.busy


def test_two_runs_walk_in_different_orders_and_one_run_in_its_own():
    orders = []
    for seed in ("a", "b", "a"):
        dispatch = Dispatch(seed)
        dispatch.add(make_tasks(40))
        orders.append([t.shard.index for t in drain(dispatch)])
    assert orders[0] != orders[1] and orders[0] == orders[2]


def test_a_compressed_tar_goes_to_one_slot_in_order():
    dispatch = Dispatch("run")
    dispatch.add([*make_tasks(6, "a.tgz"), *make_tasks(6, "b.tgz", plan=1)])
    first, second = [], []
    for _ in range(6):
        first.append(dispatch.take(0))
        second.append(dispatch.take(1))
    for taken in (first, second):
        assert len({t.affinity for t in taken}) == 1
        assert [t.shard.index for t in taken] == list(range(6))


def test_a_group_does_not_swallow_what_follows_it():
    dispatch = Dispatch("run")
    dispatch.add([*make_tasks(3, "a.tgz"), *make_tasks(5, plan=1)])
    assert len(drain(dispatch)) == 8


def test_every_slot_begins_with_a_small_shard_that_two_runs_choose_apart():
    sizes = [32] * 8 + [64] * 8 + [256] * 30
    tasks = [Task(ShardId(0, n), 0, "run", items, 100, None) for n, items in enumerate(sizes)]
    begun = []
    for seed in map(str, range(20)):
        dispatch = Dispatch(seed)
        dispatch.add(tasks)
        first = [dispatch.take(slot) for slot in range(9)]
        assert [task.items for task in first] == [32] * 8 + [64]
        begun.append(first[0].shard.index)
        then = [dispatch.take(0).items for _ in range(10)]
        assert max(then) == 256  # afterwards any
    assert len(set(begun)) > 3


def test_a_lost_slot_gives_its_tasks_back_in_order():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(5, "a.tgz"))
    dispatch.take(0), dispatch.take(0)
    assert dispatch.take(1) is None and dispatch.busy
    dispatch.give_back(0)
    assert [t.shard.index for t in drain(dispatch, 1)] == list(range(5))
    assert not dispatch.busy


def test_a_lost_slot_gives_back_only_what_is_not_settled():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(3))
    done, lost = dispatch.take(0), dispatch.take(0)
    dispatch.settle(0, (done.shard, 0))
    dispatch.give_back(0)
    rest = {t.shard for t in drain(dispatch, 1)}
    assert lost.shard in rest and done.shard not in rest and len(rest) == 2


def test_losses_are_counted_by_task():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(1))
    for slot in range(3):
        dispatch.take(slot)
        assert dispatch.losses(slot) == slot + 1
        dispatch.give_back(slot)


def test_sources_are_read_no_further_than_needed():
    read = 0

    def endless():
        nonlocal read
        while True:
            yield Task(ShardId(0, read), 0, "run", 1, 1)
            read += 1

    dispatch = Dispatch("run")
    dispatch.add(endless())
    for _ in range(10):
        dispatch.take(0)
    assert read < 2000


def long_file(task, start=1, stop=400, image_id="a.tif"):
    return LongFile(task.shard, task.generation, image_id, start, stop)


def test_blocks_of_a_long_file_go_to_others_from_its_end_and_once():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(2))
    task, other = dispatch.take(0), dispatch.take(1)
    assert not dispatch.has_for(2) and dispatch.take(2) is None
    dispatch.note_long_files(0, [long_file(task)])
    assert dispatch.has_for(1) and not dispatch.has_for(0) and dispatch.take(0) is None
    given = [dispatch.take(slot) for slot in (2, 1, 2)]
    assert [block.help_pages for block in given] == [(384, 400), (352, 384), (320, 352)]
    assert {(b.shard, b.only) for b in given} == {(task.shard, ("a.tif",))}
    # one that is lost with its slot is not given again, and shards are given back as ever
    assert dispatch.losses(2) == 0 and dispatch.give_back(2) == 0
    assert dispatch.take(3).help_pages == (288, 320)
    dispatch.note_long_files(0, [long_file(task, start=224)])
    assert dispatch.take(3).help_pages == (256, 288)
    assert not dispatch.has_for(3) and dispatch.take(3) is None  # its slot is about to begin it
    assert dispatch.settle(0, (task.shard, 0)) == task
    dispatch.note_long_files(0, [long_file(task)])  # of a report on its way
    assert not dispatch.has_for(3)
    assert dispatch.settle(1, (other.shard, 0)) == other and not dispatch.busy


def test_tasks_go_before_blocks_and_the_file_with_most_left_comes_first():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(2))
    first, second = dispatch.take(0), dispatch.take(1)
    dispatch.note_long_files(0, [long_file(first, stop=200), long_file(first, 1, 300, "b.tif")])
    dispatch.note_long_files(1, [long_file(second, stop=256)])
    dispatch.add(make_tasks(1, plan=1))
    assert dispatch.take(2).help_pages is None
    assert [(b.only[0], b.help_pages) for b in map(dispatch.take, (2, 1, 0))] == [
        ("b.tif", (288, 300)),
        ("b.tif", (256, 288)),
        ("a.tif", (224, 256)),
    ]
    dispatch.note_long_files(1, [long_file(second, stop=999)])
    assert dispatch.take(2).only == ("b.tif",)  # which that slot has read already
    dispatch.give_back(0)
    dispatch.take(4)  # its shard
    assert dispatch.take(4).shard == second.shard


def test_files_of_a_compressed_tar_are_left_to_their_slot():
    dispatch = Dispatch("run")
    dispatch.add(make_tasks(1, "a.tgz"))
    dispatch.note_long_files(0, [long_file(dispatch.take(0))])
    assert not dispatch.has_for(1) and dispatch.take(1) is None
