"""A table's folder as other engines see it."""

from __future__ import annotations

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.support.table_data import found, make_items
from tests.support.table_job import job, retry_job
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.vacuum import clean, finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.schema import SCHEMAS


def check(store):
    """Names match the tables, each of which can be matched."""
    for table, schema in SCHEMAS.items():
        rows = duckdb.sql(f"SELECT * FROM '{store.uri}/{table}/*.parquet'")
        assert rows.columns == schema.names
        assert len(rows) == open_tables(store).read(table).num_rows
        assert pq.read_table(f"{store.uri}/{table}").schema.equals(schema)
    report = verify(found(store), Plan(store))
    assert report.sound and "litter" not in {f.code for f in report.findings}


def test_a_table_without_errors_or_words_has_files_all_the_same(store):
    job(store.uri, make_items(4), fail=False)
    check(store)
    assert [e.path for e in store.list("errors/")] == ["errors/empty.parquet"]
    clean(found(store), older_than_s=-1, grace_s=0)
    compact(found(store))
    finish(found(store), grace_s=0)
    check(store)
    job(store.uri, make_items(40))
    assert len(open_tables(store).read("errors")) > 0
    assert not store.exists("errors/empty.parquet")
    check(store)


def test_the_readme_is_of_the_hub_and_stays_as_people_change_it(store, tmp_path):
    job(store.uri, make_items(4))
    text = store.read("README.md").decode()
    head = text.split("---\n")[1]
    assert head.count("config_name: ") == 3 and "data_files: words/*.parquet" in head
    store.put("README.md", b"mine")
    retry_job(store.uri)
    assert store.read("README.md") == b"mine"
    out = open_store(str(tmp_path / "merged"), create=True)
    merge(found(store), found(store), out)
    assert out.read("README.md").decode() == text
    check(out)


@pytest.mark.parametrize("config", ["words", "images"])
def test_the_hubs_library_reads_it(store, tmp_path, config):
    datasets = pytest.importorskip("datasets")
    job(store.uri, make_items(8), fail=False)
    loaded = datasets.load_dataset(store.uri, config, cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.column_names == SCHEMAS[config].names
    assert loaded.num_rows == open_tables(store).read(config).num_rows


def test_the_hubs_library_streams_a_table_without_rows(store, tmp_path):
    """It cannot load one at once (datasets 4.4: «corresponds to no data»); the README says so."""
    datasets = pytest.importorskip("datasets")
    job(store.uri, make_items(8), fail=False)
    loaded = datasets.load_dataset(store.uri, "errors", streaming=True)["train"]
    assert list(loaded) == [] and list(loaded.features) == SCHEMAS["errors"].names
    assert "streaming=True" in store.read("README.md").decode()


def test_pandas_reads_a_folder(store):
    pandas = pytest.importorskip("pandas")
    job(store.uri, make_items(8))
    assert len(pandas.read_parquet(f"{store.uri}/words")) == open_tables(store).words.count_rows()
