"""Verify finds every kind of damage we could think of, and nothing on a sound table."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.table_data import found, make_items, table_rows
from tests.support.table_job import OUTPUT, job, work
from textspot_ray.records import ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import marker_path
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import SCHEMAS


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "out")
    job(uri, fold_at=99)
    return open_store(uri)


def check(store, checksums=True):
    return verify(open_ledger(store, create=False), Plan(store), checksums)


def part(store, table, index=0):
    return next(p for p in found(store).marker(ShardId(0, index)).files if p.table == table)


def rewrite(store, table, change, index=0):
    """Change a part's rows and make its marker's checksum fit: only the content is wrong."""
    old = part(store, table, index)
    rows = change(pq.read_table(store.local_path(old.path)))
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    store.put(old.path, sink.getvalue())
    refit(store, old, rows.num_rows, index)


def refit(store, old, rows, index):
    from hashlib import sha256

    path = marker_path(ShardId(0, index), 0)
    marker = json.loads(store.read(path))
    data = store.read(old.path)
    for entry in marker["files"]:
        if entry["path"] == old.path:
            entry.update(bytes=len(data), rows=rows, sha256=sha256(data).hexdigest())
    store.put(path, json.dumps(marker).encode())


def column(rows, name, values):
    at = rows.schema.get_field_index(name)
    return rows.set_column(
        at, rows.schema.field(name), pa.array(values, rows.schema.field(at).type)
    )


def codes(report):
    return {f.code for f in report.findings if f.severity == "error"}


def test_a_sound_table_has_no_findings_and_the_sums_hold(store):
    report = check(store)
    assert report.findings == () and report.sound
    ledger = found(store)
    assert report.counts == ledger.counts()
    counts = report.counts
    assert (counts.items, counts.images) == (40, 56)
    assert counts.with_words + counts.empty + counts.failed == 56
    rows = table_rows(store)
    assert len(rows["words"]) == counts.words == sum(row[11] for row in rows["images"])
    assert report.files == len(list(ledger.files()))


def test_unfinished_work_is_a_note_not_an_error(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    ledger, plan = found(store), Plan(store)
    update_plan(plan, make_items(40), OUTPUT, "r")
    for task in list(plan.tasks(ledger))[:3]:
        work(store, ledger, plan, task)
    report = check(store)
    assert report.sound and [f.code for f in report.findings] == ["unfinished"]


def test_litter_is_a_note(store):
    store.put("words/000000-000000-00-0123456789ab.parquet", b"junk")
    report = check(store)
    assert report.sound and [f.code for f in report.findings] == ["litter"]


def test_a_missing_part(store):
    store.delete(part(store, "words").path)
    assert {"missing", "n_words"} <= codes(check(store))


def test_a_flipped_bit(store):
    path = part(store, "images").path
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.put(path, bytes(data))
    assert "checksum" in codes(check(store))


def test_a_cut_part(store):
    path = part(store, "images").path
    store.put(path, store.read(path)[:-1])
    assert "size" in codes(check(store, checksums=False))


def test_words_taken_away(store):
    rewrite(store, "words", lambda rows: rows.slice(1))
    assert {"n_words", "counts"} <= codes(check(store))


def test_a_word_written_twice(store):
    rewrite(store, "words", lambda rows: pa.concat_tables([rows.slice(0, 1), rows]))
    assert {"n_words", "word_index", "counts"} <= codes(check(store))


def test_an_image_written_twice(store):
    rewrite(store, "images", lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    assert "duplicate" in codes(check(store))


def test_an_image_lost(store):
    rewrite(store, "images", lambda rows: rows.slice(1))
    assert {"lost", "orphan"} & codes(check(store)) >= {"lost"}


def test_an_image_nobody_planned(store):
    rewrite(
        store,
        "images",
        lambda rows: column(
            rows, "image_id", ["file:///strange", *rows["image_id"].to_pylist()[1:]]
        ),
    )
    assert {"unplanned", "lost"} <= codes(check(store))


def test_a_status_that_lies(store):
    rewrite(store, "images", lambda rows: column(rows, "status", ["empty"] * rows.num_rows))
    assert "status" in codes(check(store))


def test_an_error_row_lost(store):
    index = next(m.shard.index for m in found(store).markers() if m.counts.failed > 1)
    rewrite(store, "errors", lambda rows: rows.slice(1), index)
    assert "errors" in codes(check(store))


def test_a_part_of_other_columns(store):
    rewrite(store, "images", lambda rows: rows.drop_columns(["tiles"]))
    assert "schema" in codes(check(store))


def test_a_marker_of_other_settings(store):
    path = marker_path(ShardId(0, 0), 0)
    marker = json.loads(store.read(path))
    store.put(path, json.dumps({**marker, "fingerprint": "0" * 16}).encode())
    assert codes(check(store)) == {"fingerprint"}


def test_every_table_is_looked_at(store):
    assert set(SCHEMAS) == {"words", "images", "errors"}
    for table in SCHEMAS:
        index = next(m.shard.index for m in found(store).markers() if m.counts.failed)
        path = part(store, table, index).path
        data = store.read(path)
        store.put(path, b"PAR1" + bytes(len(data) - 8) + b"PAR1")
        assert "checksum" in codes(check(store))
        assert {"unreadable"} <= codes(check(store, checksums=False))
        store.put(path, data)
    assert check(store).sound
