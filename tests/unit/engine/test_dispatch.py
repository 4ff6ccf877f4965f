"""Which task goes to which slot."""

from __future__ import annotations

from textspot_ray.engine.dispatch import Dispatch
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
