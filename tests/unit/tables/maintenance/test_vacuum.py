"""What is deleted, and above all what is not."""

from __future__ import annotations

import os
import time

from tests.support.table_data import found, make_items, make_result, table_rows, write_shard
from textspot_ray.records import Shard, ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import data_file_path, record_path
from textspot_ray.tables.commit.snapshot import snapshot_numbers
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.vacuum import clean, finish, vacuum_state


def age(store, path, seconds):
    then = time.time() - seconds
    os.utime(store.local_path(path), (then, then))


def paths(store, prefix=""):
    return {entry.path for entry in store.list(prefix)}


def litter(store, index, generation=0, table="words"):
    path = data_file_path(table, ShardId(0, index), generation, "0123456789ab")
    store.put(path, b"half a part")
    return path


def next_generation(store, ledger, index, items):
    previous = ledger.commit_record(ShardId(0, index))
    shard = Shard(ShardId(0, index), tuple(items), previous.generation + 1, "retry")
    with ShardWriter(store, shard, run_id="r", fingerprint="f", previous=previous) as writer:
        for item in items:
            writer.add(make_result(item, fail=False))
        assert ledger.note(writer.commit())


def test_litter_of_settled_shards_goes_and_work_in_progress_stays(store):
    ledger = found(store)
    write_shard(store, ledger, make_items(9), index=0)
    rows = table_rows(store)
    lost = [litter(store, 0), litter(store, 0, table="images")]
    in_progress = [
        litter(store, 1),
        litter(store, 0, generation=1),
        litter(store, 7, table="errors"),
    ]
    store.put("words/somebody-elses.parquet", b"x")
    store.put("words/notes.txt", b"x")
    report = finish(ledger)
    assert report.files == 2 and report.bytes == 2 * len(b"half a part")
    assert not any(store.exists(path) for path in lost)
    assert all(store.exists(path) for path in in_progress)
    assert store.exists("words/somebody-elses.parquet") and store.exists("words/notes.txt")
    assert table_rows(store) == rows


def test_clean_takes_old_litter_of_unsettled_shards_too(store):
    ledger = found(store)
    write_shard(store, ledger, make_items(9), index=0)
    old, young = litter(store, 1), litter(store, 2)
    age(store, old, 7200)
    for path in paths(store, "words/") & {p.path for p in ledger.files()}:
        age(store, path, 7200)  # age alone is no reason
    store.put("_textspot/tmp/leftover", b"x")
    age(store, "_textspot/tmp/leftover", 7200)
    rows = table_rows(store)
    assert clean(ledger, older_than_s=3600).files == 2
    assert not store.exists(old) and store.exists(young)
    assert paths(store, "_textspot/tmp/") == set()
    assert table_rows(store) == rows


def test_parts_replaced_by_a_newer_generation_go(store):
    ledger = found(store)
    items = make_items(30)
    write_shard(store, ledger, items, index=0)
    failed = [item for item in items if make_result(item).error is not None]
    before = {p.path for p in ledger.files()}
    next_generation(store, ledger, 0, failed)
    finish(ledger)
    named = {p.path for p in ledger.files()}
    there = paths(store, "words/") | paths(store, "images/") | paths(store, "errors/")
    assert there == named | {"errors/empty.parquet"} and not before & named
    assert len(table_rows(store)["images"]) == 30 and table_rows(store)["errors"] == []


def test_absorbed_markers_go_after_the_grace_period_and_nothing_changes_for_readers(store):
    ledger = found(store)
    for index in range(4):
        write_shard(store, ledger, make_items(5, 5 * index), index=index)
    assert ledger.fold(at_least=1)
    write_shard(store, ledger, make_items(5, 20), index=4)
    assert ledger.fold(at_least=1)
    rows, counts = table_rows(store), ledger.counts()
    assert vacuum_state(ledger, grace_s=600).files == 0
    assert len(paths(store, "_textspot/done/")) == 5
    vacuum_state(ledger, grace_s=0)
    assert paths(store, "_textspot/done/") == set()
    assert snapshot_numbers(store) == [1, 2]  # no number is free for a driver that comes late
    age(store, "_textspot/snap/00000001.json", 7200)
    vacuum_state(ledger, grace_s=0)
    assert snapshot_numbers(store) == [2]
    named = {m.path for m in ledger.snapshot.manifests}
    assert {p for p in paths(store, "_textspot/snap/") if "manifest" in p} == named
    view = found(store)
    assert table_rows(store) == rows and view.counts() == counts and len(view.settled()) == 5


def test_markers_that_only_the_latest_snapshot_has_stay_while_an_older_one_may_be_read(store):
    ledger = found(store)
    write_shard(store, ledger, make_items(5), index=0)
    ledger.fold(at_least=1)
    write_shard(store, ledger, make_items(5, 5), index=1)
    ledger.fold(at_least=1)
    age_of_first = 1000.0
    path = "_textspot/snap/00000001.json"
    text = store.read(path).decode()
    created = f'"created_at": {ledger.snapshot.created_at}'
    assert created in store.read("_textspot/snap/00000002.json").decode()
    old = text.split('"created_at": ')[1].split(",")[0]
    store.put(path, text.replace(old, str(time.time() - age_of_first)).encode())
    # Snapshot 1 was replaced just now: its readers still look for shard 1's record.
    vacuum_state(ledger, grace_s=600)
    assert paths(store, "_textspot/done/") == {record_path(ShardId(0, 1), 0)}
    assert snapshot_numbers(store) == [1, 2]


def test_a_reader_in_the_middle_of_a_fold_and_sweep_starts_over(store, monkeypatch):
    driver = found(store)
    for index in range(3):
        write_shard(store, driver, make_items(5, 5 * index), index=index)
    rows = table_rows(store)
    reader = open_store(store.uri)
    list_files = reader.list
    meddled = []

    def meddling(prefix=""):
        if prefix == "_textspot/done/" and not meddled:
            meddled.append(driver.fold(at_least=1))  # after the reader took "no snapshot"
            vacuum_state(driver, grace_s=0)
        return list_files(prefix)

    monkeypatch.setattr(reader, "list", meddling)
    assert table_rows(reader) == rows and meddled == [True]
