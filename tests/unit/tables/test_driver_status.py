"""Drivers' accounts: bounded, folded, stale when silent, and never in the way of the tables."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from textspot_ray.records import ErrorKind
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.driver_status import (
    MAX_NODES,
    STATUS,
    RunState,
    RunStatus,
    SeenStatus,
    fold_statuses,
    is_finished,
    prune_statuses,
    put_status,
    read_statuses,
    status_to_json,
)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "out"), create=True)
    return open_store(f"memory://{tmp_path.name}")


def account(run_id="run-1", **changed) -> RunStatus:
    now = time.time()
    base = RunStatus(run_id, RunState.WORKING, "host", 7, now - 60, now, now, 30.0)
    return dataclasses.replace(base, **changed)


def test_it_is_written_over_and_read_back_whole(store):
    put_status(store, account(images=1))
    status = account(images=5, failures={"corrupt": 2}, slots={"a": 2}, n_slots=2, eta_s=9.5)
    put_status(store, status)
    (seen,) = read_statuses(store)
    assert seen.status == status
    assert seen.live and not seen.stale and not seen.hangs
    assert seen.age_s < 20


def test_its_size_is_bounded_whatever_the_cluster():
    status = account(
        slots={f"node-{n:05d}.eu-central-1.compute.internal/{n:08x}": 8 for n in range(10_000)},
        n_slots=80_000,
        n_nodes=10_000,
        failures={str(kind): 10**9 for kind in ErrorKind},
        note="x" * 100_000,
        stage_s={name: 1e9 / 3 for name in ("read", "decode", "detect", "recognise")},
    )
    data = status_to_json(status)
    assert len(data) < 8192
    assert len(json.loads(data)["slots"]) == MAX_NODES
    assert json.loads(data)["n_nodes"] == 10_000


@pytest.mark.parametrize(
    ("state", "age_s", "stale"),
    [
        (RunState.WORKING, 99, False),
        (RunState.WORKING, 101, True),
        (RunState.STARTING, 1e6, True),
        (RunState.DONE, 1e6, False),
        (RunState.FAILED, 1e6, False),
    ],
)
def test_a_silent_driver_is_stale_and_an_ended_one_is_not(state, age_s, stale):
    seen = SeenStatus(account(state=state), age_s)
    assert seen.stale is stale
    assert seen.live is (not stale and not state.ended)


def test_a_driver_that_writes_but_does_not_turn_hangs():
    now = time.time()
    assert SeenStatus(account(written_at=now, turned_at=now - 61), 1.0).hangs
    assert not SeenStatus(account(written_at=now, turned_at=now - 59), 1.0).hangs
    starting = account(state=RunState.STARTING, written_at=now, turned_at=now - 200)
    assert not SeenStatus(starting, 1.0).hangs


def test_living_drivers_are_folded_and_others_left_out():
    shared = SeenStatus(account("a", slots={"n1": 1, "n2": 1}, n_slots=2, n_nodes=2,
                                images_per_s=2.0, open_items=3), 1)  # fmt: skip
    other = SeenStatus(account("b", slots={"n2": 1}, n_slots=1, n_nodes=1, images_per_s=1.5,
                               open_items=4, planning=True), 1)  # fmt: skip
    killed = SeenStatus(account("c", slots={"n3": 9}, n_slots=9, n_nodes=1, images_per_s=99), 1e4)
    ended = SeenStatus(account("d", state=RunState.DONE, images_per_s=99, n_slots=5), 1)
    live = fold_statuses([shared, other, killed, ended])
    assert (live.drivers, live.slots, live.nodes) == (2, 3, 2)
    assert (live.images_per_s, live.open_items, live.planning) == (3.5, 7, True)
    many = account("e", slots={f"n{n}": 1 for n in range(40)}, n_slots=100, n_nodes=100)
    assert fold_statuses([SeenStatus(many, 1)]).nodes == 100


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"state": "dancing"}', b"\xff", b'{"state": "done"}']
)
def test_what_is_no_account_is_passed_over(store, data):
    put_status(store, account())
    store.put(f"{STATUS}odd.json", data)
    store.put(f"{STATUS}note.txt", b"hello")
    assert [one.status.run_id for one in read_statuses(store)] == ["run-1"]


def test_an_account_of_a_later_version_is_read_as_far_as_it_is_known(store):
    raw = json.loads(status_to_json(account()))
    store.put(f"{STATUS}run-1.json", json.dumps({**raw, "version": 9, "colour": "red"}).encode())
    (seen,) = read_statuses(store)
    assert seen.status.host == "host"


def test_old_accounts_of_dead_runs_go_and_living_ones_stay(store):
    for name, state in (("old", RunState.DONE), ("killed", RunState.WORKING)):
        put_status(store, account(name, state=state))
    assert prune_statuses(store) == 0  # not old enough
    assert prune_statuses(store, keep_s=-1.0) == 1  # the driver at work is left alone
    assert [one.status.run_id for one in read_statuses(store)] == ["killed"]


DONE, STOPPED = RunState.DONE, RunState.STOPPED
LISTED = {"items_planned": 9}


@pytest.mark.parametrize(
    ("accounts", "planned", "finished"),
    [
        ([], True, True),  # a merged table, or one of an older version
        ([], False, False),  # killed before it wrote anything
        ([account(state=DONE)], False, True),  # an empty folder
        ([account(state=DONE, **LISTED)], True, True),
        ([account(**LISTED)], True, False),  # at work
        ([account(state=RunState.STARTING)], True, False),
        ([account(state=STOPPED, **LISTED)], True, False),
        ([account(state=RunState.FAILED, **LISTED)], True, False),
        ([account(every_s=-99.0, planning=True, **LISTED)], True, False),  # killed while it listed
        ([account(every_s=-99.0)], True, False),  # killed before its first turn
        ([account(every_s=-99.0, **LISTED)], True, True),  # killed, but others did its shards
        ([account(state=STOPPED), account(state=DONE, started_at=2e9)], True, True),
        ([account(state=DONE), account(state=STOPPED, started_at=2e9)], True, False),
    ],
)
def test_a_table_is_finished_when_its_sources_were_listed_to_the_end(accounts, planned, finished):
    seen = [SeenStatus(one, 5.0) for one in accounts]
    assert is_finished(seen, planned=planned) is finished
