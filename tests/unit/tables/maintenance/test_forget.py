"""Images that were forgotten are gone from every file, and stay gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.table_data import found, make_item, make_items, table_rows
from tests.support.table_job import OUTPUT, job, killed_at, retry_job, work
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import new_attempt
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.commit.snapshot import put_snapshot
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.rewrite import Rewrite
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import page_id
from textspot_ray.tables.status import table_status

GONE = [make_item(n).image_id for n in (0, 2, 17, 39)]


@pytest.fixture(params=["parts", "folded", "compacted", "compacted and retried"])
def store(tmp_path, request):
    job(str(tmp_path / "out"), fold_at=1 if request.param == "folded" else 99)
    store = open_store(str(tmp_path / "out"))
    if request.param.startswith("compacted"):
        compact(found(store))
    if request.param.endswith("retried"):
        retry_job(store.uri)
    return store


def check(store):
    report = verify(open_ledger(store, create=False), Plan(store))
    assert report.sound, report.findings
    assert open_ledger(store, create=False).counts() == report.counts
    return report


def without(rows, ids):
    pages = {page_id(i, page) for i in ids for page in range(4)}
    return {table: [r for r in found if r[0] not in pages] for table, found in rows.items()}


def test_rows_names_and_bytes_are_gone_and_everything_else_is_as_before(store):
    before = table_rows(store)
    report = forget(found(store), Plan(store), [*GONE, "file:///never/seen"])
    expected = without(before, GONE)
    assert table_rows(store) == expected
    assert report.items == 4 and report.unknown == ("file:///never/seen",)
    assert report.images == len(before["images"]) - len(expected["images"])
    assert report.words == len(before["words"]) - len(expected["words"]) > 0
    assert check(store).counts.items == 36
    status = table_status(found(store), Plan(store))
    assert status.forgotten == 4 and status.done
    for path in Path(store.uri).rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            import duckdb

            query = f"SELECT * FROM read_parquet('{path}')"
            text = str(duckdb.sql(query).fetchall())
            assert not any(name in text or name.removeprefix("file://") in text for name in GONE)


def test_they_do_not_come_back(store):
    forget(found(store), Plan(store), GONE)
    rows = table_rows(store)
    job(store.uri)
    assert table_rows(store) == rows
    changed = [make_item(n, tag="t9") for n in range(40)]
    job(store.uri, changed, "redo")
    after = table_rows(store)
    assert len(after["images"]) == len(rows["images"])
    assert not {row[0] for row in after["images"]} & set(GONE)
    check(store)
    compact(found(store))
    retry_job(store.uri)
    assert not {row[0] for row in table_rows(store)["images"]} & set(GONE)
    check(store)


def test_twice_and_after_a_kill_it_ends_the_same(store):
    before = table_rows(store)
    forget_job = lambda: forget(found(store), Plan(store), GONE)  # noqa: E731
    assert killed_at("after_snapshot:1", forget_job) or True
    for _ in range(2):
        report = forget(found(store), Plan(store), GONE)
        assert report.items == 4
        assert table_rows(store) == without(before, GONE)
        check(store)
    assert found(store).snapshot.forgotten == 4


def test_one_page_takes_the_whole_item(store):
    before = table_rows(store)
    assert page_id(GONE[1], 2) in {row[0] for row in before["images"]}
    report = forget(found(store), Plan(store), [page_id(GONE[1], 2)])
    assert (report.items, report.images) == (1, 3)
    assert table_rows(store) == without(before, GONE[1:2])


def test_an_item_whose_shard_is_still_to_be_run_is_left_out_of_it(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    found(store)
    update_plan(Plan(store), make_items(40), OUTPUT, "r")
    ledger, plan = found(store), Plan(store)
    plan.refresh()
    work(store, ledger, plan, next(plan.tasks(ledger)))
    forget(found(store), Plan(store), GONE)
    every = [make_item(n).image_id for n in range(35, 40)]
    forget(found(store), Plan(store), every)  # a shard with nothing left in it
    job(store.uri)
    ids = {row[0] for row in table_rows(store)["images"] if row[3] == 0}
    assert len(ids) == 40 - len({*GONE, *every}) and not ids & {*GONE, *every}
    report = check(store)
    assert report.findings == ()


def test_a_table_with_nothing_to_forget_is_not_touched(store):
    files = {e.path for e in store.list("words/")}
    report = forget(found(store), Plan(store), ["file:///never/seen"])
    assert (report.items, report.images, report.words) == (0, 0, 0)
    assert {e.path for e in store.list("words/")} <= files


def test_an_item_that_is_called_like_a_page_is_not_taken_for_one(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    items = [make_item(n, image_id=name) for n, name in enumerate(("a", "a#page=3"))]
    job(store, items)
    assert forget(found(store), Plan(store), ["a#page=3"]).items == 1
    assert [row[0] for row in table_rows(store)["images"]] == ["a"]


def test_the_loser_of_two_rewrites_leaves_no_files(store):
    ledger = found(store)
    head, files = ledger.snapshot, list(ledger.files())
    rewrite = Rewrite(store, head, frozenset(GONE))
    kept = rewrite.files(files)
    written = list(rewrite.written)
    assert written and all(store.exists(path) for path in written)
    assert {file.path for file in kept} != {file.path for file in files}
    assert put_snapshot(store, replace(head, n=head.n + 1, attempt=new_attempt()))
    assert not rewrite.publish(head.manifests)
    assert not any(store.exists(path) for path in written)
    check(store)
