"""The writer of one shard: rows, order, counts, races, faults of storage."""

from __future__ import annotations

import errno
import math
import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.table_data import (
    TIMES,
    found,
    make_item,
    make_items,
    make_result,
    make_word,
    table_rows,
)
from tests.support.table_job import OUTPUT
from textspot_ray.errors import StorageError
from textspot_ray.records import Counts, ErrorKind, PageInfo, Shard, ShardId, Stage
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit import data_files as parts
from textspot_ray.tables.commit import writer
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import SCHEMAS


def shard_of(items, index=0):
    return Shard(ShardId(0, index), tuple(items))


def open_writer(store, shard, **options):
    return ShardWriter(store, shard, run_id="r1", fingerprint="f", **options)


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    found(store)
    return store


def test_rows_counts_and_files_agree(store):
    items = make_items(40)
    results = [make_result(item) for item in items]
    with open_writer(store, shard_of(items)) as shard_writer:
        for result in results:
            shard_writer.add(result)
        record = shard_writer.commit()
    rows = table_rows(store)
    n_words = sum(len(r.words) for r in results)
    assert len(rows["words"]) == n_words == record.counts.words
    assert len(rows["images"]) == 40 == record.counts.images == record.counts.items
    assert len(rows["errors"]) == record.counts.failed == sum(record.counts.failures.values()) > 0
    assert record.counts.with_words + record.counts.empty + record.counts.failed == 40
    for part in record.files:
        file = Path(store.local_path(part.path))
        assert file.stat().st_size == part.bytes
        assert pq.read_metadata(file).num_rows == part.rows
        assert pq.read_schema(file).equals(SCHEMAS[part.table], check_metadata=True)
    assert list(store.list("_textspot/tmp/")) == []
    assert record.stage_s["read"] == pytest.approx(0.01 * (40 - record.counts.failed))


def test_rows_are_in_item_order_whatever_order_results_come_in(store):
    items = make_items(60)
    results = [make_result(item, fail=False) for item in items]
    random.Random(3).shuffle(results)
    with open_writer(store, shard_of(items)) as shard_writer:
        for result in results:
            shard_writer.add(result)
        record = shard_writer.commit()
    path = next(p.path for p in record.files if p.table == "images")
    ids = pq.read_table(store.local_path(path)).column("image_id").to_pylist()
    assert ids == [item.image_id for item in items]


def test_pages_of_one_item_are_rows_of_their_own_in_page_order(store):
    items = make_items(3)
    results = [make_result(items[0], fail=False)]
    results += [make_result(items[1], page, pages=5, fail=False) for page in (3, 0, 4, 1, 2)]
    results += [make_result(items[2], fail=False)]
    with open_writer(store, shard_of(items)) as shard_writer:
        for result in reversed(results):
            shard_writer.add(result)
        record = shard_writer.commit()
    assert (record.counts.items, record.counts.images) == (3, 7)
    path = next(p.path for p in record.files if p.table == "images")
    table = pq.read_table(store.local_path(path))
    assert table.column("page").to_pylist() == [0, 0, 1, 2, 3, 4, 0]
    assert len(set(table.column("image_id").to_pylist())) == 7
    assert table.column("image_id")[2].as_py() == items[1].image_id + "#page=1"


def test_held_results_are_bounded(store, monkeypatch):
    monkeypatch.setattr(writer, "MAX_HELD_RESULTS", 8)
    items = make_items(50)
    with open_writer(store, shard_of(items)) as shard_writer:
        for item in items[1:]:  # the first comes last: nothing could be handed on in order
            shard_writer.add(make_result(item))
            assert shard_writer._order._n_held < 8
        shard_writer.add(make_result(items[0]))
        record = shard_writer.commit()
    assert record.counts.images == 50
    assert len(table_rows(store)["images"]) == 50


def test_seconds_of_results_that_are_held_until_the_commit_are_counted(store):
    first, second = make_items(2)
    with open_writer(store, shard_of([first, second])) as shard_writer:
        shard_writer.add(make_result(first, pages=9, fail=False))  # eight of which never come
        shard_writer.add(make_result(second, fail=False))
        assert shard_writer._order._n_held == 1
        record = shard_writer.commit()
    assert record.stage_s["read"] == pytest.approx(0.02) and record.counts.images == 2


def test_rows_go_to_disk_in_groups(store, monkeypatch):
    monkeypatch.setattr(writer, "ROWS_PER_GROUP", 50)
    items = make_items(100)
    with open_writer(store, shard_of(items)) as shard_writer:
        for item in items:
            shard_writer.add(make_result(item, fail=False))
            assert shard_writer._rows.n_rows < 50
        record = shard_writer.commit()
    words = next(p for p in record.files if p.table == "words")
    assert pq.read_metadata(store.local_path(words.path)).num_row_groups > 3
    assert words.rows == record.counts.words


def test_a_result_of_another_shard_twice_or_missing_is_a_programmers_error(store):
    items = make_items(2)
    with open_writer(store, shard_of(items)) as shard_writer:
        shard_writer.add(make_result(items[0]))
        with pytest.raises(ValueError, match="added before"):
            shard_writer.add(make_result(items[0]))
        with pytest.raises(ValueError, match="not in shard"):
            shard_writer.add(make_result(make_item(99)))
        with pytest.raises(ValueError, match="lacks 1 items"):
            shard_writer.commit()
    assert list(store.list("words/")) == list(store.list("images/")) == []


@pytest.mark.parametrize(
    "harm",
    [
        lambda w: replace(w, text=""),
        lambda w: replace(w, text_confidence=math.nan),
        lambda w: replace(w, box=(0.0, 0.0, math.inf, -math.inf)),
        lambda w: replace(w, polygon=(1.0, 2.0)),
        lambda w: replace(w, char_confidences=(math.nan,)),
    ],
)
def test_a_word_that_cannot_be_stored_fails_its_image_only(store, harm):
    items = make_items(2)
    good = make_word(random.Random(1))
    info = PageInfo(10, 10, "PNG", 1)
    bad = replace(make_result(items[0], fail=False), info=info, words=(good, harm(good)))
    with open_writer(store, shard_of(items)) as shard_writer:
        shard_writer.add(bad)
        shard_writer.add(replace(make_result(items[1], fail=False), words=(good,)))
        record = shard_writer.commit()
    assert record.counts.failures == {"internal": 1}
    rows = table_rows(store)
    assert [row[0] for row in rows["words"]] == [items[1].image_id]
    assert rows["errors"][0][1:3] == (Stage.WRITE, ErrorKind.INTERNAL)


def test_names_that_are_no_utf8_and_hostile_messages_are_stored(store):
    name = b"caf\xe9 \n\"'.jpg".decode("utf-8", "surrogateescape")
    item = make_item(0, source=f"/a/{name}", member=name, extra='{"label": "\\udcff", "x": NaN}')
    result = make_result(item, fail=True)
    result = replace(
        result, error=replace(result.error, message=f"bad\nname {name}\0" + "x" * 5000)
    )
    with open_writer(store, shard_of([item])) as shard_writer:
        shard_writer.add(result)
        assert shard_writer.commit() is not None
    rows = table_rows(store)
    assert rows["images"][0][2] == "caf%E9 \n\"'.jpg"
    names = [n for n in SCHEMAS["images"].names if n not in TIMES]
    assert rows["images"][0][names.index("extra")] == '{"label": "%FF", "x": null}'
    message = rows["errors"][0][3]
    assert "\n" not in message and len(message) <= 2000


def test_the_loser_of_a_race_deletes_its_parts(store):
    items = make_items(5)
    first, second = open_writer(store, shard_of(items)), open_writer(store, shard_of(items))
    for item in items:
        first.add(make_result(item))
        second.add(make_result(item))
    winner = first.commit()
    assert winner is not None and second.commit() is None
    there = {e.path for table in SCHEMAS for e in store.list(f"{table}/")}
    assert there == {part.path for part in winner.files}


def test_a_put_whose_reply_was_lost_is_a_success(store, monkeypatch):
    put_if_absent = store.put_if_absent
    replies = iter(["lost", "late"])

    def lossy(path, data):
        put_if_absent(path, data)
        if next(replies) == "lost":
            raise StorageError("reply lost")
        return False

    monkeypatch.setattr(store, "put_if_absent", lossy)
    for index in range(2):  # once an exception, once an answer that says somebody was there
        items = make_items(3, start=10 * index)
        with open_writer(store, shard_of(items, index)) as shard_writer:
            for item in items:
                shard_writer.add(make_result(item))
            assert shard_writer.commit() is not None
    assert len(table_rows(store)["images"]) == 6


def test_a_marker_that_cannot_be_put_leaves_nothing_that_counts(store, monkeypatch):
    def refuse(path, data):
        raise StorageError(f"cannot write {path}: quota")

    monkeypatch.setattr(store, "put_if_absent", refuse)
    with open_writer(store, shard_of(make_items(3))) as shard_writer:
        for item in make_items(3):
            shard_writer.add(make_result(item))
        with pytest.raises(StorageError, match="quota"):
            shard_writer.commit()
    assert table_rows(store) == {"words": [], "images": [], "errors": []}


def test_a_full_disk_is_one_line_and_leaves_no_parts(store, monkeypatch):
    class FullDisk(pq.ParquetWriter):
        def write_table(self, *args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts.pq, "ParquetWriter", FullDisk)
    with (
        pytest.raises(StorageError) as caught,
        open_writer(store, shard_of(make_items(3))) as shard_writer,
    ):
        for item in make_items(3):
            shard_writer.add(make_result(item))
        shard_writer.commit()
    message = str(caught.value)
    assert "No space left" in message and store.uri in message and "\n" not in message
    monkeypatch.undo()
    assert table_rows(store) == {"words": [], "images": [], "errors": []}
    assert list(store.list("_textspot/tmp/")) == []


def test_an_upload_that_fails_half_way_takes_back_the_first_part(store, monkeypatch):
    upload = store.upload
    done = []

    def second_fails(local_file, path):
        if done:
            raise StorageError("disk full")
        done.append(path)
        upload(local_file, path)

    monkeypatch.setattr(store, "upload", second_fails)
    with (
        pytest.raises(StorageError),
        open_writer(store, shard_of(make_items(9))) as shard_writer,
    ):
        for item in make_items(9):
            shard_writer.add(make_result(item))
        shard_writer.commit()
    assert done and not store.exists(done[0])


def test_remote_stores_get_the_same_rows():
    store = open_store("memory://writer-remote", create=True)
    found(store)
    items = make_items(10)
    with open_writer(store, shard_of(items)) as shard_writer:
        for item in items:
            shard_writer.add(make_result(item))
        record = shard_writer.commit()
    rows = table_rows(store)
    assert (len(rows["images"]), len(rows["words"])) == (10, record.counts.words)


def test_what_is_added_counts_as_in_the_tables(store):
    items = make_items(3)
    good = make_word(random.Random(1))
    results = [replace(make_result(item, fail=False), words=(good,)) for item in items]
    results[1] = replace(results[1], words=(good, replace(good, text_confidence=math.nan)))
    total = Counts()
    with open_writer(store, shard_of(items)) as shard_writer:
        for result in reversed(results):
            total += shard_writer.add(result)
        record = shard_writer.commit()
    assert total == record.counts
    assert (total.with_words, total.failed, total.words) == (2, 1, 2)


def test_rows_tell_run_shard_damage_and_hash_and_words_their_line_and_key(store):
    item = make_item(0)
    word = make_word(random.Random(1))
    at = ((0, 0), (50, 0), (0, 40))
    words = tuple(
        replace(
            word,
            text=text,
            box=(x, y, x + 40.0, y + 12.0),
            polygon=(x, y, x + 40.0, y, x + 40.0, y + 12.0, x, y + 12.0),
            angle_deg=0.0,
        )
        for text, (x, y) in zip(("Café", "BAR", "&"), at, strict=True)
    )
    info = PageInfo(640, 480, "JPEG", 1, damage="extraneous\nbytes")
    result = replace(make_result(item, fail=False), words=words, info=info, sha256="ab" * 32)
    with open_writer(store, shard_of([item], 7)) as shard_writer:
        shard_writer.add(result)
        shard_writer.commit()
    (image,) = open_tables(store).read("images").to_pylist()
    assert (image["run_id"], image["shard"]) == ("r1", "000000-000007")
    assert (image["damage"], image["content_sha256"]) == ("extraneous bytes", "ab" * 32)
    rows = open_tables(store).read("words").to_pylist()
    told = [(row["line_index"], row["text"], row["text_key"]) for row in rows]
    assert told == [(0, "Café", "cafe"), (0, "BAR", "bar"), (1, "&", "")]


def test_what_was_forgotten_meanwhile_is_not_brought_back(store):
    update_plan(Plan(store), make_items(16), OUTPUT, "r")
    plan, ledger = Plan(store), found(store)
    plan.refresh()
    tasks = list(plan.tasks(ledger))
    shards = [plan.load(task) for task in tasks]
    gone = shards[0].items[2]
    with open_writer(store, shards[0]) as shard_writer:
        for item in shards[0].items:
            shard_writer.add(make_result(item, fail=False))
        assert forget(found(store), Plan(store), [gone.image_id]).items == 1
        record = shard_writer.commit()
    ids = {row[0] for row in table_rows(store)["images"]}
    assert record.counts.items == len(ids) == len(shards[0].items) - 1 and gone.image_id not in ids
    assert {row[0] for row in table_rows(store)["words"]} <= ids
