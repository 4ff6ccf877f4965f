"""Two tables into one: each item once, nothing lost, work that is left goes on."""

from __future__ import annotations

import pytest

from tests.support.table_data import FINGERPRINT, found, make_item, make_items, table_rows
from tests.support.table_job import OUTPUT, job, killed_at, retry_job, work
from textspot_ray.errors import FingerprintError, TableError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan


@pytest.fixture
def folder(tmp_path):
    def make(name, items=None, **options):
        uri = str(tmp_path / name)
        if items is not None:
            job(uri, items, **options)
        return open_store(uri, create=True)

    return make


def check(store):
    report = verify(open_ledger(store, create=False), Plan(store))
    assert report.sound, report.findings
    assert open_ledger(store, create=False).counts() == report.counts
    return report


@pytest.mark.parametrize("compacted", [False, True])
def test_two_tables_without_overlap(folder, compacted):
    one, two = folder("a", make_items(30)), folder("b", make_items(25, 30))
    if compacted:
        compact(found(one))
        retry_job(one.uri)
    out = folder("c")
    report = merge(found(one), found(two), out)
    a, b, c = table_rows(one), table_rows(two), table_rows(out)
    assert {t: sorted(a[t] + b[t], key=repr) for t in a} == c
    assert (report.overlap, report.shards_left, report.counts.items) == (0, 0, 55)
    assert check(out).findings == ()
    assert len(open_tables(out).data_files["words_by_text"]) == 1
    assert open_ledger(out, FINGERPRINT).fingerprint == FINGERPRINT


def test_an_item_in_both_is_taken_once(folder):
    one = folder("a", make_items(30))
    two = folder("b", [make_item(n, tag="tb") for n in range(20, 50)])
    out = folder("c")
    report = merge(found(one), found(two), out)
    assert report.overlap == 10 and report.counts.items == 50
    tags = {row[0]: row[8] for row in table_rows(out)["images"]}
    assert {tags[make_item(n).image_id] for n in range(20, 30)} == {"t0"}
    assert {tags[make_item(n).image_id] for n in range(30, 50)} == {"tb"}
    check(out)
    whole = folder("d", [*make_items(30), *(make_item(n, tag="tb") for n in range(30, 50))])
    assert table_rows(out) == table_rows(whole)


def half_done(store):
    found(store)
    update_plan(Plan(store), make_items(40), OUTPUT, "r")
    ledger, plan = found(store), Plan(store)
    plan.refresh()
    for task in list(plan.tasks(ledger))[:4]:
        work(store, ledger, plan, task)


def test_what_one_has_done_is_not_done_again_and_the_rest_goes_on(folder):
    one, two = folder("a"), folder("b", make_items(20, 15))
    half_done(one)  # items 0 to 19
    out = folder("c")
    report = merge(found(one), found(two), out)
    assert report.counts.items == 35 and report.shards_left > 0
    assert check(out).counts.items == 35
    job(out.uri)
    report = check(out)
    assert report.counts.items == 40 and report.findings == ()
    assert table_rows(out) == table_rows(folder("d", make_items(40)))


def test_redo_and_new_items_go_on_in_the_merged_table(folder):
    one, two = folder("a", make_items(20)), folder("b", make_items(20, 20))
    job(two.uri, [make_item(n, tag="t1" if n == 25 else "t0") for n in range(20, 40)], "redo")
    out = folder("c")
    merge(found(one), found(two), out)
    changed = [make_item(n, tag="t1" if n in (3, 25, 33) else "t0") for n in range(45)]
    job(out.uri, changed, "redo")
    assert check(out).counts.items == 45
    whole = folder("d", changed)
    assert table_rows(out) == table_rows(whole)


def test_what_was_forgotten_in_one_stays_forgotten(folder):
    one, two = folder("a", make_items(30)), folder("b", make_items(30, 10))
    gone = {make_item(n).image_id for n in (12, 33)}
    forget(found(one), Plan(one), [make_item(12).image_id])
    forget(found(two), Plan(two), [make_item(33).image_id, make_item(12).image_id])
    forget(found(two), Plan(two), [make_item(15).image_id])
    out = folder("c")
    merge(found(one), found(two), out)
    ids = {row[0] for row in table_rows(out)["images"]}
    assert not ids & (gone | {make_item(15).image_id})
    assert found(out).snapshot.forgotten == 3
    assert check(out).counts.items == 37
    job(out.uri, make_items(40))
    assert {row[0] for row in table_rows(out)["images"]} == ids


def test_other_settings_and_a_taken_folder_are_refused(folder):
    one, two = folder("a", make_items(5)), folder("b")
    other = open_ledger(two, {**FINGERPRINT, "precision": "int8"})
    with pytest.raises(FingerprintError, match="precision: f32 in the one, int8 in the other"):
        merge(found(one), other, folder("c"))
    with pytest.raises(TableError, match="empty folder"):
        merge(found(one), found(one), one)


@pytest.mark.parametrize("point", ["compact_parts:2", "before_snapshot:1", "after_snapshot:1"])
def test_a_killed_merge_is_no_table_and_can_be_run_again(folder, point):
    one, two = folder("a", make_items(30)), folder("b", make_items(25, 30))
    out = folder("c")
    before = table_rows(one), table_rows(two)
    assert killed_at(point, lambda: merge(found(one), found(two), out))
    with pytest.raises(TableError, match="not a textspot table"):
        open_tables(out)
    merge(found(one), found(two), out)
    check(out)
    assert (table_rows(one), table_rows(two)) == before
    assert len(table_rows(out)["images"]) == sum(len(rows["images"]) for rows in before)


def test_an_empty_table_merges(folder):
    one, two = folder("a", make_items(12)), folder("b")
    found(two)
    merge(found(one), found(two), folder("c"))
    assert table_rows(folder("c")) == table_rows(one)


@pytest.mark.parametrize("point", ["compact_parts:2", "before_snapshot:1", "table:1", "table:2"])
def test_a_killed_merge_is_run_again_after_its_last_step_too(folder, point):
    one, two, out = folder("a", make_items(20)), folder("b", make_items(20, 20)), folder("c")

    out.put("images/holiday.jpg", b"not ours")

    def job_of_merge():
        merge(found(one), found(two), out)

    assert killed_at(point, job_of_merge)
    first = merge(found(one), found(two), out)
    assert merge(found(one), found(two), out) == first
    assert (first.counts.items, first.overlap) == (40, 0)
    assert [f.where for f in check(out).findings] == ["images"]  # the photo, and no litter
    assert out.read("images/holiday.jpg") == b"not ours"
    a, b, c = table_rows(one), table_rows(two), table_rows(out)
    assert {t: sorted(a[t] + b[t], key=repr) for t in a} == c
    job(two.uri, make_items(25, 20))
    with pytest.raises(TableError, match="holds a table already"):
        merge(found(one), found(two), out)
