"""Verify finds every kind of damage we could think of, and nothing on a sound table."""

from __future__ import annotations

import io
import json
import math
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.old_tables import make_version
from tests.support.table_data import found, make_items, table_rows
from tests.support.table_job import OUTPUT, job, work
from textspot_ray.records import ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import record_path
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import SCHEMAS


@pytest.fixture
def store(tmp_path):
    uri = str(tmp_path / "out")
    job(uri, fold_at=99)
    return open_store(uri)


def check(store, checksums=True, deep=False):
    return verify(open_ledger(store, create=False), Plan(store), checksums, deep)


def part(store, table, index=0):
    return next(p for p in found(store).commit_record(ShardId(0, index)).files if p.table == table)


def test_every_value_of_a_sound_table_is_sound(store):
    assert check(store, deep=True).findings == ()
    compact(found(store))
    finish(found(store), grace_s=0)
    assert check(store, deep=True).findings == ()
    make_version(store, 1)
    assert check(store, deep=True).sound


def put(column, value, row=1):
    """Rows with one value changed."""

    def change(rows):
        at = rows.schema.get_field_index(column)
        values = rows.column(at).to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.types[at]))

    return change


@pytest.mark.parametrize(
    ("table", "column", "value", "says"),
    [
        ("words", "text", "", "empty text"),
        ("words", "text_key", "other", "text_key that is not"),
        ("words", "text_confidence", 5.9e25, "text_confidence that is not within"),
        ("words", "text_confidence", math.nan, "text_confidence that is not within"),
        ("words", "char_confidences", [0.5, -0.1], "char_confidence that is not"),
        ("words", "detection_confidence", None, "no detection_confidence"),
        ("words", "x_max", 9000.0, "box outside its image"),
        ("words", "y_min", -40.0, "box outside its image"),
        ("words", "x_min", lambda x: x + 500, "end is before its start"),
        ("words", "x_min", math.inf, "not finite"),
        ("words", "polygon", lambda p: p[:6], "polygon without four corners"),
        ("words", "polygon", lambda p: [math.nan, *p[1:]], "polygon that is not finite"),
        ("words", "angle_deg", 720.0, "beyond 180"),
        ("words", "line_index", -1, "negative line_index"),
        ("images", "n_unread", -4, "negative n_unread"),
        ("images", "width", 0, "no size or format"),
        ("images", "read_s", math.nan, "read_s that is no time"),
        ("images", "content_sha256", "abc", "content_sha256 that is none"),
        ("images", "extra", "[1", "extra that is no JSON"),
        ("images", "shard", "x", "shard that is none"),
        ("errors", "stage", "lunch", "unknown stage"),
        ("errors", "kind", "odd", "unknown kind"),
        ("errors", "attempts", 0, "not tried once"),
    ],
)
def test_values_that_cannot_be_are_named(store, table, column, value, says):
    row = 0 if table == "errors" else 1
    if table == "images":
        rows = pq.read_table(store.local_path(part(store, table).path))
        row = rows["status"].to_pylist().index("words")
    rewrite(store, table, put(column, value, row))
    if column != "kind":
        assert check(store).sound  # nothing to be seen without looking at values
    report = check(store, deep=True)
    found_ = [f for f in report.findings if f.code == "value"]
    assert (part(store, table).path, True) in {(f.where, says in f.message) for f in found_}
    assert not report.sound


def test_a_sorted_copy_without_some_words_is_told(store):
    compact(found(store))
    finish(found(store), grace_s=0)
    (by_text,) = found(store).snapshot.by_text
    rows = pq.read_table(store.local_path(by_text.path))
    sink = io.BytesIO()
    pq.write_table(rows.slice(1).sort_by([("text", "descending")]), sink)
    store.put(by_text.path, sink.getvalue())
    path = next(e.path for e in store.list("_textspot/snap/") if e.path.endswith(".json"))
    snapshot = json.loads(store.read(path))
    fresh = {"bytes": len(sink.getvalue()), "rows": by_text.rows - 1}
    snapshot["by_text"][0] |= {**fresh, "sha256": sha256(sink.getvalue()).hexdigest()}
    store.put(path, json.dumps(snapshot).encode())
    assert check(store).sound
    found_ = [(f.severity, f.code) for f in check(store, deep=True).findings]
    assert found_ == [("error", "by_text"), ("note", "by_text")]


def test_a_damaged_page_is_a_finding_even_without_checksums(store):
    path = store.local_path(part(store, "words").path)
    data = bytearray(path.read_bytes())
    data[8] ^= 0xFF
    path.write_bytes(data)
    codes = [f.code for f in check(store, checksums=False).findings if f.severity == "error"]
    assert codes[0] == "unreadable"


def rewrite(store, table, change, index=0):
    """Change a part's rows and make its record's checksum fit: only the content is wrong."""
    old = part(store, table, index)
    rows = change(pq.read_table(store.local_path(old.path)))
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    store.put(old.path, sink.getvalue())
    refit(store, old, rows.num_rows, index)


def refit(store, old, rows, index):
    path = record_path(ShardId(0, index), 0)
    record = json.loads(store.read(path))
    data = store.read(old.path)
    for entry in record["files"]:
        if entry["path"] == old.path:
            entry.update(bytes=len(data), rows=rows, sha256=sha256(data).hexdigest())
    store.put(path, json.dumps(record).encode())


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
    index = next(m.shard.index for m in found(store).commit_records() if m.counts.failed > 1)
    rewrite(store, "errors", lambda rows: rows.slice(1), index)
    assert "errors" in codes(check(store))


def test_a_part_of_other_columns(store):
    rewrite(store, "images", lambda rows: rows.drop_columns(["tiles"]))
    assert "schema" in codes(check(store))


def test_a_marker_of_other_settings(store):
    path = record_path(ShardId(0, 0), 0)
    record = json.loads(store.read(path))
    store.put(path, json.dumps({**record, "fingerprint": "0" * 16}).encode())
    assert codes(check(store)) == {"fingerprint"}


def test_every_table_is_looked_at(store):
    assert set(SCHEMAS) == {"words", "images", "errors"}
    for table in SCHEMAS:
        index = next(m.shard.index for m in found(store).commit_records() if m.counts.failed)
        path = part(store, table, index).path
        data = store.read(path)
        store.put(path, b"PAR1" + bytes(len(data) - 8) + b"PAR1")
        assert "checksum" in codes(check(store))
        assert {"unreadable"} <= codes(check(store, checksums=False))
        store.put(path, data)
    assert check(store).sound
