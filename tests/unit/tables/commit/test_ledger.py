"""The ledger: fingerprint, what is settled, counts, snapshots."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from hashlib import sha256

import pyarrow.parquet as pq
import pytest

from tests.support.table_data import (
    FINGERPRINT,
    commit,
    found,
    make_items,
    make_result,
    table_rows,
    write_shard,
)
from tests.support.table_job import job
from textspot_ray.errors import (
    ExitCode,
    FingerprintError,
    MissingFileError,
    StorageError,
    TableError,
)
from textspot_ray.records import Counts, ErrorKind, PageInfo, Shard, ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit import snapshot as snapshot_module
from textspot_ray.tables.commit.codec import put_once
from textspot_ray.tables.commit.commit_record import (
    CommitRecord,
    DataFile,
    commit_record_from_json,
    commit_record_to_json,
    put_commit_record,
)
from textspot_ray.tables.commit.copy_on_write import find_images, sum_images
from textspot_ray.tables.commit.data_files import read_data_file
from textspot_ray.tables.commit.ledger import TABLE_FILE, open_ledger
from textspot_ray.tables.commit.snapshot import latest_snapshot, put_snapshot
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan


def record_of(index, generation=0, plan=0, words=2, **fields):
    counts = Counts(
        items=3, images=3, with_words=1, empty=1, failed=1, words=words, failures={"corrupt": 1}
    )
    values = {
        "shard": ShardId(plan, index), "generation": generation,
        "attempt": f"{index:06x}{generation:06x}",
        "run_id": "r1", "reason": "run", "fingerprint": "f", "counts": counts,
        "files": (DataFile("images", f"images/{index}.{generation}.parquet", 10, 3, "ab" * 32),),
        "environment": {"python": "3.11"}, "started_at": 1.5, "finished_at": 2.5,
        "stage_s": {"read": 0.5}, **fields,
    }  # fmt: skip
    return CommitRecord(**values)


def test_a_commit_record_comes_back_as_it_was():
    record = record_of(7, generation=2, redo=4, compaction=1)
    stored = commit_record_to_json(record)
    assert commit_record_from_json(stored, "here") == record
    keys = json.loads(stored)  # these stay, whatever fields are called
    assert (keys["plan"], keys["shard"], keys["gen"], keys["base"]) == (0, 7, 2, 1)
    assert keys["counts"]["none"] == 1 and not {"generation", "compaction"} & set(keys)
    assert record.path == "_textspot/done/000000-000007.02.json"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"version": 1}', b"[1]", b"\xff"])
def test_a_damaged_commit_record_is_named(data):
    with pytest.raises(TableError, match="here"):
        commit_record_from_json(data, "here")


def test_the_table_file_comes_first_and_another_setting_is_refused_by_name(store):
    open_ledger(store, FINGERPRINT)
    assert [e.path for e in store.list()] == [TABLE_FILE]
    assert open_ledger(store, FINGERPRINT).fingerprint == FINGERPRINT
    with pytest.raises(FingerprintError) as caught:
        open_ledger(store, {**FINGERPRINT, "detection_threshold": "0.4", "tiles": "off"})
    assert "detection_threshold: 0.5 there, 0.4 now" in str(caught.value)
    assert "tiles: absent there, off now" in str(caught.value)
    assert "precision" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.FINGERPRINT == 4
    another = {**FINGERPRINT, "bundle": "x 2", **{f"rule{n}": "long " * 40 for n in range(9)}}
    with pytest.raises(
        FingerprintError, match=r"\(bundle: .* there, x 2 now; .*; 8 more\)"
    ) as caught:
        open_ledger(store, another)
    assert len(str(caught.value)) < 240


def test_two_founders_with_different_settings_one_wins(store):
    other = open_store(store.uri)
    open_ledger(store, FINGERPRINT)
    with pytest.raises(FingerprintError):
        open_ledger(other, {"precision": "int8"})


def test_no_table_a_damaged_one_and_a_newer_one_are_refused_in_one_line(store):
    with pytest.raises(TableError, match="not a textspot table"):
        open_ledger(store, create=False)
    store.put(TABLE_FILE, b"{}")
    with pytest.raises(TableError, match="damaged"):
        open_ledger(store, create=False)
    store.put(TABLE_FILE, json.dumps({"version": 99, "fingerprint": {}}).encode())
    with pytest.raises(TableError, match="upgrade textspot-ray"):
        open_ledger(store, FINGERPRINT)


def test_a_second_driver_sees_what_the_first_settles(store):
    mine, theirs = found(store), found(store)
    write_shard(store, mine, make_items(4), index=3)
    assert ShardId(0, 3) in mine.settled() and ShardId(0, 3) not in theirs.settled()
    theirs.refresh()
    assert ShardId(0, 2) not in theirs.settled()
    assert theirs.settled()[ShardId(0, 3)] == 0
    write_shard(store, mine, make_items(4, 4), index=4)
    theirs.refresh()
    assert list(theirs.settled()) == [ShardId(0, 3), ShardId(0, 4)]
    assert theirs.counts() == mine.counts()
    assert list(theirs.files()) == list(mine.files())


def test_one_marker_a_shard_and_generation(store):
    ledger = found(store)
    assert commit(ledger, record_of(0))
    assert not commit(ledger, record_of(0, attempt="f" * 12))
    assert commit(ledger, record_of(0, attempt="000000000000"))  # its own, put twice


def test_the_highest_generation_wins_in_counts_files_and_settled(store):
    ledger = found(store)
    for generation, words in ((0, 2), (1, 5), (2, 9)):
        commit(ledger, record_of(1, generation=generation, words=words, redo=generation - 1))
    commit(ledger, record_of(2, words=1))
    for view in (ledger, found(store)):
        assert view.settled()[ShardId(0, 1)] == 2
        assert view.counts().words == 10 and view.counts().images == 6
        assert view.counts().failures == {"corrupt": 2}
        assert sorted(p.path for p in view.files()) == ["images/1.2.parquet", "images/2.0.parquet"]
        assert view.commit_record(ShardId(0, 1)).counts.words == 9
        assert view.commit_record(ShardId(0, 5)) is None


def test_folding_changes_nothing_that_readers_see(store):
    ledger = found(store)
    for index in range(5):
        write_shard(store, ledger, make_items(6, 6 * index), index=index)
    before, rows = ledger.counts(), table_rows(store)
    assert not ledger.fold(at_least=6)
    assert ledger.fold(at_least=5)
    assert latest_snapshot(store).n == 1 and latest_snapshot(store).shards == 5
    write_shard(store, ledger, make_items(6, 30), index=5)
    for view in (ledger, found(store)):
        assert len(view.settled()) == 6
        assert view.counts() == before + view.commit_record(ShardId(0, 5)).counts
    assert set(rows["words"]) < set(table_rows(store)["words"])


def test_a_generation_after_a_fold_replaces_the_absorbed_one(store):
    ledger = found(store)
    for index in range(3):
        commit(ledger, record_of(index))
    assert ledger.fold(at_least=1)
    commit(ledger, record_of(1, generation=1, words=7))
    for folded in (False, True):
        view = found(store)
        assert view.counts().words == 2 + 7 + 2 and view.counts().items == 9
        assert view.settled()[ShardId(0, 1)] == 1
        assert sorted(p.path for p in view.files()) == [
            "images/0.0.parquet", "images/1.1.parquet", "images/2.0.parquet",
        ]  # fmt: skip
        assert [
            m.generation for m in sorted(view.commit_records(), key=lambda m: m.shard.index)
        ] == [
            0,
            1,
            0,
        ]
        if not folded:
            assert ledger.fold(at_least=1)


def test_many_folds_keep_few_manifests_and_every_record(store, monkeypatch):
    monkeypatch.setattr(snapshot_module, "MERGE_FACTOR", 4)
    ledger = found(store)
    for index in range(64):
        commit(ledger, record_of(index % 8, plan=index // 8))
        assert ledger.fold(at_least=1)
    assert len(latest_snapshot(store).manifests) <= 3 * 3 + 1
    view = found(store)
    assert len(view.settled()) == 64 == len({m.shard for m in view.commit_records()})
    assert view.counts().words == 128


def test_damaged_images_are_counted_through_records_folds_and_what_is_taken_out(store):
    ledger, items = found(store), make_items(6)
    info = PageInfo(640, 480, "JPEG", 1, damage="premature end")
    with ShardWriter(
        store, Shard(ShardId(0, 0), tuple(items)), run_id="r", fingerprint=ledger.digest
    ) as writer:
        for number, item in enumerate(items):
            result = make_result(item, fail=False)
            writer.add(replace(result, info=info) if number < 2 else result)
        ledger.note(writer.commit())
    assert ledger.counts().damaged == found(store).counts().damaged == 2
    assert ledger.fold(at_least=1)
    assert found(store).counts().damaged == 2
    assert found(store).commit_record(ShardId(0, 0)).counts.damaged == 2
    rows = find_images(store, found(store).files("images"), frozenset({items[0].image_id}))
    assert (found(store).counts() - sum_images(rows)).damaged == 1


def test_manifests_of_before_damage_was_counted_are_read_and_merged(store, monkeypatch):
    monkeypatch.setattr(snapshot_module, "MERGE_FACTOR", 2)
    ledger = found(store)
    commit(ledger, record_of(0))
    assert ledger.fold(at_least=1)
    head = latest_snapshot(store)
    (manifest,) = head.manifests
    path = store.local_path(manifest.path)
    pq.write_table(pq.read_table(path).drop_columns(["damaged"]), path)
    data = path.read_bytes()
    older = replace(manifest, bytes=len(data), sha256=sha256(data).hexdigest())
    path = store.local_path(f"_textspot/snap/{head.n:08d}.json")
    facts = json.loads(path.read_bytes())
    facts["manifests"] = [asdict(older)]
    del facts["counts"]["damaged"]
    path.write_text(json.dumps(facts))
    view = found(store)
    assert view.counts().images == 3 and view.counts().damaged == 0
    assert view.commit_record(ShardId(0, 0)).counts.words == 2
    assert [record.counts.damaged for record in view.commit_records()] == [0]
    commit(view, record_of(1))
    assert view.fold(at_least=1)
    assert len(latest_snapshot(store).manifests) == 1 and found(store).counts().images == 6


def test_of_two_that_fold_at_once_one_wins_and_nothing_is_lost(store, monkeypatch):
    first, second = found(store), found(store)
    commit(first, record_of(0))
    second.refresh()
    commit(second, record_of(1))
    assert first.fold(at_least=1)  # knows shard 0 only
    put = store.put_if_absent
    assert not second.fold(at_least=1)  # number 1 is taken
    monkeypatch.setattr(store, "put_if_absent", put)
    assert second.fold(at_least=1)
    assert len(found(store).settled()) == 2 == latest_snapshot(store).shards
    names = {e.path for e in store.list("_textspot/snap/") if "manifest" in e.path}
    assert names == {m.path for m in latest_snapshot(store).manifests}


def test_a_put_without_a_reply_is_told_by_the_bytes_that_are_there(store, monkeypatch):
    def refuse(path, data):
        raise StorageError("no reply")

    monkeypatch.setattr(store, "put_if_absent", refuse)
    with pytest.raises(StorageError, match="no reply"):
        put_once(store, "state.json", b"mine")  # nothing is there
    store.put("state.json", b"mine")
    assert put_once(store, "state.json", b"mine")
    store.put("state.json", b"another's")
    assert not put_once(store, "state.json", b"mine")


def test_a_marker_put_late_for_an_absorbed_generation_does_not_count(store):
    ledger = found(store)
    commit(ledger, record_of(0))
    ledger.fold(at_least=1)
    store.delete(record_of(0).path)  # the sweep
    late = record_of(0, attempt="e" * 12, words=50)
    assert put_commit_record(store, late)
    assert not ledger.note(late)
    assert found(store).counts().words == 2
    assert [p.path for p in found(store).files()] == ["images/0.0.parquet"]


def test_a_snapshot_of_a_newer_version_is_refused(store):
    ledger = found(store)
    commit(ledger, record_of(0))
    ledger.fold(at_least=1)
    path = snapshot_module.snapshot_path(1)
    data = json.loads(store.read(path))
    store.put(path, json.dumps({**data, "version": 9}).encode())
    with pytest.raises(TableError, match="upgrade"):
        open_ledger(store, create=False)


def test_run_records_are_kept_beside_the_tables(store):
    ledger = found(store)
    ledger.record_run("r1", {"config": {"a": 1}})
    ledger.record_run("r1", {"config": {"a": 1}, "finished_at": 3.0})
    assert json.loads(store.read("_textspot/runs/r1.json"))["finished_at"] == 3.0


def test_a_folder_that_is_deleted_meanwhile_is_one_line(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    ledger = found(store)
    write_shard(store, ledger, make_items(3))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(StorageError, match="the output folder was deleted") as caught:
        ledger.refresh()
    assert "\n" not in str(caught.value)


def test_what_went_meanwhile_is_read_from_the_latest_state(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    job(store.uri, make_items(20), fold_at=99)
    ledger = found(store)
    looks = []

    def read():
        looks.append(ledger.state())
        files = list(ledger.files("words"))
        if len(looks) == 1:  # another process compacts just now, and deletes at once
            compact(found(store))
            finish(found(store), grace_s=0)
        return sum(rows.num_rows for part in files for rows in read_data_file(store, part))

    assert ledger.on_latest(read) == open_tables(store).words.count_rows() > 0
    assert len(looks) == 2
    (part,) = ledger.files("words")
    store.delete(part.path)
    with pytest.raises(MissingFileError, match="missing though it is committed"):
        ledger.on_latest(read)


def fold_elsewhere(store):
    """Another process folds, and takes the manifests away that this replaces."""
    other = found(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_module, "MERGE_FACTOR", 2)
        write_shard(store, other, make_items(8, start=1000), index=90)
        assert other.fold(at_least=1)
    finish(other, grace_s=0)


def test_a_record_is_found_after_a_fold_elsewhere(store):
    job(store.uri, make_items(20), fold_at=1)
    ledger = found(store)
    first = ledger.commit_record(ShardId(0, 0))
    manifests = [m.path for m in ledger.snapshot.manifests]
    fold_elsewhere(store)
    assert not all(store.exists(path) for path in manifests)
    assert ledger.commit_record(ShardId(0, 0)) == first is not None


def test_retries_are_found_though_the_taker_refreshes(store):
    items = make_items(40)
    job(store, items, fold_at=99, fail=True)
    ledger, plan = found(store), Plan(store)
    whole = len(list(retry_tasks(plan, ledger, frozenset(ErrorKind))))
    tasks = retry_tasks(plan, ledger, frozenset(ErrorKind))
    shards = [next(tasks).shard]
    compact(found(store))  # by another process; the files of all other shards go
    finish(found(store), grace_s=0)
    ledger.refresh()
    shards += [task.shard for task in tasks]
    assert len(shards) == len(set(shards)) == whole > 2


def test_a_number_of_a_swept_snapshot_is_not_taken_again(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    job(store.uri, make_items(40), fold_at=99)
    late = found(store)
    for count in (40, 60):
        job(store.uri, make_items(count), fold_at=99)
        compact(found(store))
    store.delete("_textspot/snap/00000001.json")  # as a sweep would, an hour later
    head = found(store).snapshot.n
    assert not put_snapshot(store, replace(late.snapshot, n=1, attempt="late"))
    assert found(store).snapshot.n == head >= 2
