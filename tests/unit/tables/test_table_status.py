"""Progress as told from the output folder alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import table_data
from tests.support.table_data import found, make_item, make_items
from tests.support.table_job import OUTPUT, work
from textspot_ray.errors import TableError
from textspot_ray.records import Counts, ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import CommitRecord
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.status import error_rows, read_run, run_ids, table_status


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    found(store)
    update_plan(Plan(store), make_items(64), OUTPUT, "r")
    return store


def commit(ledger, index, started, finished, images=8):
    counts = Counts(items=images, images=images, empty=images)
    record = CommitRecord(
        ShardId(0, index), 0, f"{index:012x}", "r", "run", ledger.digest, counts, (),
        started_at=started, finished_at=finished,
    )  # fmt: skip
    assert table_data.commit(ledger, record)


def test_before_anything_is_done(store):
    status = table_status(found(store), Plan(store))
    assert (status.items_planned, status.shards_total, status.shards_done) == (64, 8, 0)
    assert status.images_per_s is status.eta_s is status.last_commit_s is None
    assert not status.done


def test_rate_and_remaining_time_come_from_the_markers(store):
    ledger = found(store)
    for index in range(4):  # two side by side, ten seconds each: 16 images in 10 s
        commit(ledger, index, 1000.0 + 10 * (index // 2), 1010.0 + 10 * (index // 2))
    for folded in (False, True):
        status = table_status(ledger, Plan(store), now=1025.0)
        assert status.images_per_s == pytest.approx(1.6)
        assert status.eta_s == pytest.approx(32 / 1.6)
        assert status.last_commit_s == pytest.approx(5.0)
        assert status.counts.images == 32 and status.shards_done == 4
        assert folded or ledger.fold(at_least=1)


def test_a_pause_between_runs_does_not_count(store):
    ledger = found(store)
    commit(ledger, 0, 1000.0, 1010.0)
    commit(ledger, 1, 90_000.0, 90_010.0)
    status = table_status(ledger, Plan(store), now=90_010.0)
    assert status.images_per_s == pytest.approx(0.8)


def test_a_finished_job_and_its_errors(store):
    ledger, plan = found(store), Plan(store)
    plan.refresh()
    for task in plan.tasks(ledger):
        work(store, ledger, plan, task)
    status = table_status(ledger, Plan(store))
    assert status.done and status.eta_s == 0
    rows = list(error_rows(ledger))
    assert len(rows) == status.counts.failed == sum(status.counts.failures.values()) > 0
    assert {row["kind"] for row in rows} == set(status.counts.failures)


def test_changed_items_waiting_to_be_redone_are_told(store):
    ledger, plan = found(store), Plan(store)
    plan.refresh()
    for task in plan.tasks(ledger):
        work(store, ledger, plan, task)
    listing = [make_item(n, tag="t1" if n in (0, 1, 30) else "t0") for n in range(64)]
    update_plan(Plan(store), listing, OUTPUT, "r", on_changed="redo")
    status = table_status(ledger, Plan(store))
    assert status.redo_shards == 2 and not status.done


def test_runs_on_record(store):
    ledger = found(store)
    ledger.record_run("20260101-a", {"config": {}})
    assert run_ids(store) == ["20260101-a"]
    assert read_run(store, "20260101-a") == {"config": {}}
    with pytest.raises(TableError, match="no run b"):
        read_run(store, "b")
    assert replace(table_status(ledger, Plan(store)), uri="x").run_ids == ("20260101-a",)
