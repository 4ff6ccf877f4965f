"""Kill compact, and what follows it, at every step: readers never notice."""

from __future__ import annotations

import pytest

from tests.support.table_data import found, table_rows
from tests.support.table_job import job, killed_at, retry_job
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import FOLDERS
from textspot_ray.tables.maintenance import compacted_files
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.compacted_files import ROWS_PER_FILE
from textspot_ray.tables.maintenance.vacuum import clean, finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan


def compact_job(uri, rows_per_file=ROWS_PER_FILE):
    ledger = found(open_store(uri))
    compact(ledger, rows_per_file=rows_per_file)
    finish(ledger, grace_s=0)


def check(uri, rows):
    store = open_store(uri)
    report = verify(found(store), Plan(store))
    assert report.sound, report.findings
    assert table_rows(store) == rows


@pytest.mark.parametrize(
    "point",
    [
        "compact_parts:1",
        "compact_parts:3",
        "compact_parts:4",
        "before_snapshot:1",
        "after_snapshot:1",
        "before_delete:1",
        "before_delete:9",
    ],
)
def test_a_killed_compact_changes_no_row_and_the_next_one_tidies_up(point, tmp_path):
    uri = str(tmp_path / "out")
    job(uri, fold_at=3)
    rows = table_rows(open_store(uri))
    assert killed_at(point, compact_job, uri)
    check(uri, rows)
    compact_job(uri)
    check(uri, rows)
    clean(found(open_store(uri)), older_than_s=-1, grace_s=0)
    store = open_store(uri)
    for table in ("words", "images", "errors", "words_by_text"):
        assert len(list(store.list(f"{table}/"))) == 1
    check(uri, rows)


@pytest.mark.parametrize("point", ["compact_parts:2", "compact_parts:5", "compact_parts:8"])
def test_a_killed_compact_into_several_files_changes_no_row(point, tmp_path, monkeypatch):
    monkeypatch.setattr(compacted_files, "ROWS_PER_GROUP", 20)
    uri = str(tmp_path / "out")
    job(uri, fold_at=3)
    rows = table_rows(open_store(uri))
    assert killed_at(point, compact_job, uri, 60)
    check(uri, rows)
    compact_job(uri, 60)
    check(uri, rows)
    store = open_store(uri)
    clean(found(store), older_than_s=-1, grace_s=0)
    named = {part.path for part in found(store).snapshot.base + found(store).snapshot.by_text}
    there = {entry.path for table in FOLDERS for entry in store.list(f"{table}/")}
    assert there == named and len(there) > 5
    check(uri, rows)


@pytest.mark.parametrize(
    "point",
    [
        "before_marker:2",
        "after_marker:2",
        "before_snapshot:1",
        "after_snapshot:1",
        "compact_parts:1",
    ],
)
def test_a_killed_retry_of_a_compacted_table_ends_right(point, tmp_path):
    plain, hurt = str(tmp_path / "plain"), str(tmp_path / "hurt")
    for uri in (plain, hurt):
        job(uri, fold_at=99)
    retry_job(plain)
    compact_job(hurt)
    assert killed_at(point, retry_job, hurt)
    report = verify(found(open_store(hurt)), Plan(open_store(hurt)))
    assert report.sound, report.findings
    retry_job(hurt)
    finish(found(open_store(hurt)), grace_s=0)
    check(hurt, table_rows(open_store(plain)))
