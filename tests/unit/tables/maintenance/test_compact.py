"""Compact changes files, never rows: at rest, beside a running job, and under retries."""

from __future__ import annotations

import threading

import pyarrow.parquet as pq
import pytest

from tests.support.table_data import found, make_item, make_items, make_result, table_rows
from tests.support.table_job import OUTPUT, job, retry_job, work
from textspot_ray.errors import AbortedError, StorageError
from textspot_ray.records import ErrorKind
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import Ledger, open_ledger
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance import compact as compact_module
from textspot_ray.tables.maintenance import compacted_files as base_module
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import WORDS_BY_TEXT


@pytest.fixture
def store(tmp_path):
    job(str(tmp_path / "out"), fold_at=3)
    return open_store(str(tmp_path / "out"))


def check(store):
    report = verify(open_ledger(store, create=False), Plan(store))
    assert report.sound, report.findings
    assert open_ledger(store, create=False).counts() == report.counts
    tables = open_tables(store)
    if tables.data_files["words_by_text"]:
        check_by_text(tables)
    return report


def check_by_text(tables):
    """The sorted copy holds the base's words, each once, in order."""
    columns = WORDS_BY_TEXT.names
    copy, base = [], []
    for part in tables.data_files["words_by_text"]:
        assert pq.read_schema(tables.store.local_path(part.path)).equals(WORDS_BY_TEXT)
        copy += pq.read_table(tables.store.local_path(part.path)).to_pylist()
    beside = tables.recent_words
    for part in tables.data_files["words"]:
        if part not in beside:
            rows = pq.read_table(tables.store.local_path(part.path), columns=columns)
            base += rows.to_pylist()
    texts = [row["text"] for row in copy]
    assert texts == sorted(texts)
    assert sorted(map(repr, copy)) == sorted(map(repr, ({c: r[c] for c in columns} for r in base)))


def test_few_files_same_rows_in_the_order_of_the_plan(store):
    before, counts = table_rows(store), found(store).counts()
    report = compact(found(store))
    assert report.files_before > 15 and report.files_after == 4
    assert (report.shards, report.words) == (8, counts.words)
    assert table_rows(store) == before and found(store).counts() == counts
    check(store)
    (part,) = open_tables(store).data_files["images"]
    ids = pq.read_table(store.local_path(part.path))["image_id"].to_pylist()
    assert ids == sorted(ids)
    finish(found(store), grace_s=0)
    assert len(list(store.list("words/"))) == len(list(store.list("images/"))) == 1
    assert table_rows(store) == before
    assert compact(found(store)).files_after == 4  # nothing left to do


def test_an_empty_table_has_nothing_to_compact(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    report = compact(found(store))
    assert (report.shards, report.files_after) == (0, 0)


def test_old_files_stay_for_readers_that_opened_them_before(store):
    reader = open_tables(store)
    compact(found(store))
    finish(found(store))
    assert reader.words.count_rows() == open_tables(store).words.count_rows() > 0
    assert reader.images.count_rows() == 56
    finish(found(store), grace_s=0)
    with pytest.raises(FileNotFoundError):
        reader.read("images")
    assert open_tables(store).images.count_rows() == 56


def test_new_shards_after_a_compact_and_a_second_compact(store, tmp_path):
    compact(found(store), rows_per_file=60)
    kept = {p.path for p in found(store).snapshot.base if p.rows >= 60}
    assert kept
    plain = str(tmp_path / "plain")
    for uri in (store.uri, plain):
        job(uri, make_items(70))
    assert table_rows(store) == table_rows(open_store(plain))
    check(store)
    compact(found(store), rows_per_file=60)
    assert kept <= {p.path for p in found(store).snapshot.base}  # large files are not copied again
    assert table_rows(store) == table_rows(open_store(plain))
    check(store)


def test_a_compact_during_a_job_takes_what_is_committed(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    ledger, plan = found(store), Plan(store)
    update_plan(plan, make_items(64), OUTPUT, "r")
    for number, task in enumerate(plan.tasks(ledger)):
        work(store, ledger, plan, task)
        ledger.fold(at_least=2)
        if number in (2, 5):
            compact(found(store))  # as another process would
    finish(ledger)
    job(str(tmp_path / "plain"), make_items(64))
    assert table_rows(store) == table_rows(open_store(str(tmp_path / "plain")))
    assert check(store).counts.items == 64


def test_a_fold_that_comes_first_does_not_waste_the_compact(store, monkeypatch):
    more = make_items(60)
    update_plan(Plan(store), more, OUTPUT, "r")
    driver, plan = found(store), Plan(store)
    plan.refresh()
    tasks = list(plan.tasks(driver))
    built = []
    publish = compact_module._publish

    def fold_first(ledger, files):
        if not built:
            for task in tasks:
                work(store, driver, plan, task)
            assert driver.fold(at_least=1)
        built.append(files)
        return publish(ledger, files)

    monkeypatch.setattr(compact_module, "_publish", fold_first)
    report = compact(found(store))
    assert len(built) == 1 and report.shards > 8
    check(store)
    job(store.uri, more)
    assert check(store).counts.items == 60


def test_of_two_compacts_at_once_both_end_and_rows_are_as_before(store, monkeypatch):
    before = table_rows(store)
    publish = compact_module._publish
    raced = []

    def other_first(ledger, files):
        if not raced:
            raced.append(True)
            compact(found(store))
        return publish(ledger, files)

    monkeypatch.setattr(compact_module, "_publish", other_first)
    compact(found(store))
    assert table_rows(store) == before
    check(store)
    finish(found(store), grace_s=0)
    assert len(list(store.list("words/"))) == 1
    assert table_rows(store) == before


def test_a_compact_that_always_loses_gives_up_and_leaves_nothing(store, monkeypatch):
    before, files = table_rows(store), {e.path for e in store.list()}
    monkeypatch.setattr(compact_module, "_publish", lambda *_: False)
    with pytest.raises(AbortedError, match="run compact again"):
        compact(found(store))
    assert {e.path for e in store.list()} == files and table_rows(store) == before


def redo_all(store, items):
    update_plan(Plan(store), items, OUTPUT, "r2", on_changed="redo")
    ledger, plan = found(store), Plan(store)
    plan.refresh()
    tasks = list(plan.tasks(ledger))
    for task in tasks:
        work(store, ledger, plan, task)
    return tasks


@pytest.mark.parametrize("folds", [1, 99])
def test_retry_after_compact_shows_when_absorbed_and_never_twice(store, tmp_path, folds):
    plain = open_store(str(tmp_path / "plain"))
    job(plain.uri, fold_at=99)
    retry_job(plain.uri)
    before = table_rows(store)
    compact(found(store))
    ledger, plan = found(store), Plan(store)
    tasks = list(retry_tasks(plan, ledger))
    assert tasks
    for task in tasks:
        assert work(store, ledger, plan, task, fail=False)
        ledger.fold(at_least=folds)
    assert table_rows(store) == before  # not yet visible, and nothing is there twice
    assert check(store).sound
    assert list(retry_tasks(Plan(store), found(store))) == []  # absorbs first
    assert table_rows(store) == table_rows(plain)
    finish(found(store), grace_s=0)
    assert table_rows(store) == table_rows(plain)
    check(store)
    compact(found(store))
    assert table_rows(store) == table_rows(plain)
    check(store)


def test_redo_and_retry_after_compact_end_as_without_it(store, tmp_path):
    changed = [make_item(n, tag="t1" if n % 4 == 0 else "t0") for n in range(40)]
    again = [make_item(n, tag="t2" if n % 8 == 0 else i.content_tag)
             for n, i in enumerate(changed)]  # fmt: skip
    plain = open_store(str(tmp_path / "plain"))
    job(plain.uri, fold_at=99)
    compact(found(store))
    for items in (changed, again):
        for one in (store, plain):
            assert redo_all(one, items)
            retry_job(one.uri)
            finish(found(one), grace_s=0)
        assert table_rows(store) == table_rows(plain)
        check(store)
        check(plain)
    tags = {row[0]: row[8] for row in table_rows(store)["images"] if row[3] == 0}
    assert [tags[i.image_id] for i in again] == [i.content_tag for i in again]


@pytest.mark.parametrize("swept", [False, True])
def test_a_retry_that_was_under_way_when_compact_came(store, tmp_path, swept):
    plain = open_store(str(tmp_path / "plain"))
    job(plain.uri, fold_at=99)
    retry_job(plain.uri)
    ledger, plan = found(store), Plan(store)
    tasks = list(retry_tasks(plan, ledger))
    early, late = tasks[0], tasks[1:]
    shard = plan.load(early)
    writer = ShardWriter(store, shard, run_id="r", fingerprint=ledger.digest,
                         previous=early.previous, redo=early.redo)  # fmt: skip
    for item in shard.items:
        pages = 3 if (item.size or 0) % 5 == 2 else 1
        for page in range(pages):
            writer.add(make_result(item, page, pages, fail=False))
    if not swept:
        record = writer._write_parts()  # parts made from the files before compact
    compact(found(store))
    if swept:
        finish(found(store), grace_s=0)  # the files that the tasks name are gone
        assert writer.commit() is not None
    else:
        from textspot_ray.tables.commit.commit_record import put_commit_record

        assert record.compaction == -1 and put_commit_record(store, record)
    for task in late:
        assert work(store, ledger, plan, task, fail=False)
    check(store)
    finish(found(store), grace_s=0)
    assert table_rows(store) == table_rows(plain)
    check(store)


def test_every_failure_can_be_retried_on_a_compacted_table(store):
    compact(found(store))
    ledger, plan = found(store), Plan(store)
    for task in list(retry_tasks(plan, ledger, frozenset(ErrorKind))):
        work(store, ledger, plan, task, fail=False)
    finish(ledger, grace_s=0)
    assert table_rows(store)["errors"] == []
    assert check(store).counts.failed == 0


def test_large_tables_get_several_files(store, monkeypatch):
    monkeypatch.setattr(base_module, "ROWS_PER_GROUP", 20)
    before = table_rows(store)
    compact(found(store), memory_bytes=32 * 2**20, rows_per_file=50)
    tables = open_tables(store)
    assert len(tables.data_files["words"]) > 2 and len(tables.data_files["words_by_text"]) > 2
    assert table_rows(store) == before
    check(store)


def test_the_sorted_copy_is_in_the_order_of_keys_and_the_words_in_that_of_the_plan(store):
    before = table_rows(store)
    assert compact(found(store)).files_after == 4
    tables = open_tables(store)

    def rows(table):
        (part,) = tables.data_files[table]
        return pq.read_table(store.local_path(part.path)).to_pylist()

    places = [(row["image_id"], row["word_index"]) for row in rows("words")]
    assert places == sorted(places)
    in_order = [(row["text_key"], row["text"]) for row in rows("words_by_text")]
    assert in_order == sorted(in_order) and len(in_order) == len(places)
    assert table_rows(store) == before
    check(store)


@pytest.mark.parametrize("table", ["words", "images"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_file_is_named_and_nothing_changes(store, table, place):
    part = open_tables(store).data_files[table][place]
    store.delete(part.path)
    store.put(part.path, b"PAR1" + bytes(part.bytes - 8) + b"PAR1")
    files = {entry.path for entry in store.list()}
    with pytest.raises(StorageError, match=f"{part.path} has changed since.*run textspot verify"):
        compact(found(store))
    assert {entry.path for entry in store.list()} == files
    assert not [t.name for t in threading.enumerate() if t.name == "textspot-read-ahead"]


@pytest.mark.parametrize("folded", [False, True])
def test_a_retry_that_commits_while_compact_copies(store, tmp_path, monkeypatch, folded):
    plain = open_store(str(tmp_path / "plain"))
    job(plain.uri, fold_at=99)
    retry_job(plain.uri)
    publish = compact_module._publish
    built = []

    def retry_first(ledger, files):
        if not built:
            driver, plan = found(store), Plan(store)
            for task in list(retry_tasks(plan, driver)):
                work(store, driver, plan, task, fail=False)
            assert driver.fold(at_least=1) or not folded
        built.append(files)
        return publish(ledger, files)

    if not folded:
        monkeypatch.setattr(Ledger, "fold", lambda *_, **__: False)
    monkeypatch.setattr(compact_module, "_publish", retry_first)
    compact(found(store))
    assert len(built) == (2 if folded else 1)  # files with replaced rows are of no use
    check(store)
    finish(found(store), grace_s=0)
    assert table_rows(store) == table_rows(plain)
    check(store)
