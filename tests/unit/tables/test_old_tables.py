"""Tables that an earlier version wrote: opened, gone on with and rewritten as before."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.support.old_tables import make_version
from tests.support.table_data import found, make_items, table_rows
from tests.support.table_job import job, retry_job
from textspot_ray.query.search import SearchQuery, search
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.schema import ADDED, SCHEMAS, schema_of

NEW = {name for columns in ADDED[2].values() for name in columns}


@pytest.fixture(params=["parts", "compacted"])
def old(request, tmp_path):
    """A table of version 1, of forty items."""
    store = open_store(str(tmp_path / "out"), create=True)
    job(store.uri, make_items(40), fold_at=99)
    if request.param == "compacted":
        compact(found(store))
        finish(found(store), grace_s=0)
    make_version(store, 1)
    for table in SCHEMAS:
        for part in open_tables(store).data_files[table]:
            names = set(pq.read_schema(store.local_path(part.path)).names)
            assert not names & NEW and names == set(schema_of(table, 1).names)
    assert open_ledger(store).version == 1
    return store


@pytest.fixture
def new(tmp_path):
    """What this version makes of the same items."""
    store = open_store(str(tmp_path / "new"), create=True)
    job(store.uri, make_items(40), fold_at=99)
    return store


def check(store):
    report = verify(open_ledger(store, create=False), Plan(store))
    assert report.sound, report.findings
    return report


def old_columns(store):
    """Rows without the columns that version 1 did not have."""
    return {
        table: sorted(
            tuple((name, str(value)) for name, value in row.items() if name in kept)
            for row in open_tables(store).read(table).to_pylist()
        )
        for table in SCHEMAS
        if (kept := {n for n in schema_of(table, 1).names if not n.endswith("_s")})
    }


def test_it_reads_with_nulls_everywhere(old, new):
    check(old)
    assert old_columns(old) == old_columns(new)
    with open_views(old.uri) as tables:
        assert tables.cursor().table("words").columns == SCHEMAS["words"].names
        assert tables.cursor().table("images").columns == SCHEMAS["images"].names
        sql = "SELECT count(text_key), count(line_index) FROM words"
        assert tables.rows(sql) == [(0, 0)]
        assert tables.rows("SELECT count(*), count(run_id), count(shard) FROM images") == [
            (56, 0, 0)
        ]
        same_hits(tables, new)


def same_hits(tables: TableViews, new):
    word = tables.rows("SELECT text FROM words ORDER BY text LIMIT 1")[0][0]
    query = SearchQuery((word,), min_confidence=0.0)
    with open_views(new.uri) as others:
        assert [hit.image_id for hit in search(tables, query)] == [
            hit.image_id for hit in search(others, query)
        ]


def test_it_is_gone_on_with_and_compacted(old, tmp_path):
    plain = str(tmp_path / "plain")
    for uri in (old.uri, plain):
        job(uri, make_items(70))
    check(old)
    assert old_columns(old) == old_columns(open_store(plain))
    with open_views(old.uri) as tables:  # files of both versions
        ((n, keyed),) = tables.rows("SELECT count(*), count(text_key) FROM words")
        assert 0 < keyed < n
    retry_job(old.uri)
    retry_job(plain)
    check(old)
    compact(found(old))
    finish(found(old), grace_s=0)
    check(old)
    assert old_columns(old) == old_columns(open_store(plain))
    keys = open_tables(old).read("words")
    assert keys["text_key"].null_count == 0 < keys["line_index"].null_count < keys.num_rows
    for table in ("words", "words_by_text"):
        for part in open_tables(old).data_files[table]:
            schema = pq.read_schema(old.local_path(part.path))
            assert schema.equals(schema_of(table), check_metadata=True)


def test_its_images_are_tried_again_and_forgotten(old, new):
    gone = make_items(40)[3].image_id
    for store in (old, new):
        retry_job(store.uri)
        forget(found(store), Plan(store), [gone])
        check(store)
    assert old_columns(old) == old_columns(new)
    assert gone not in open_tables(old).read("images")["image_id"].to_pylist()
    with open_views(old.uri) as tables:
        same_hits(tables, new)


def test_it_is_merged_with_a_new_one(old, tmp_path):
    other = open_store(str(tmp_path / "other"), create=True)
    job(other.uri, make_items(20, 40))
    out = open_store(str(tmp_path / "merged"), create=True)
    merge(found(old), found(other), out)
    assert open_ledger(out).version == 2
    check(out)
    a, b, c = old_columns(old), old_columns(other), old_columns(out)
    assert {table: sorted(a[table] + b[table]) for table in SCHEMAS} == c
    shards = {row["shard"] for row in open_tables(out).read("images").to_pylist()}
    # the second table's plans come after the first's
    assert shards == {None, *(f"000001-{n:06d}" for n in range(5))}
    assert len(table_rows(out)["words"]) == len(c["words"])
