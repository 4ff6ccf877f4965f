"""Damage is never written again with a right checksum: what rewrites checks what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.table_data import found, make_item, make_items
from tests.support.table_job import job, retry_job
from textspot_ray.errors import ExitCode, StorageError, TableError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.data_files import read_data_file
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan

COMMANDS = {
    "compact": lambda store: compact(found(store)),
    "forget": lambda store: forget(found(store), Plan(store), [make_item(2).image_id]),
    "merge": lambda store: merge(found(store), found(store), open_store("memory://merged-damage")),
    "retry": lambda store: retry_job(store.uri),
}


def flip(store, part):
    """Change a byte of the data of a column, far from head and footer; size stays."""
    path = Path(store.local_path(part.path))
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(3)
    at = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    data[at - 3] ^= 0x10
    path.write_bytes(data)


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "out"), create=True)
    job(store.uri, make_items(30), fold_at=99)
    return store


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("table", ["words", "images", "errors"])
@pytest.mark.parametrize("command", COMMANDS)
def test_damage_stops_what_would_rewrite_it(store, command, table, compacted):
    if compacted:
        compact(found(store))
        if command in ("compact", "retry"):
            pytest.skip("large files stay as they are; a retry reads ids of compacted files alone")
    part = open_tables(store).data_files[table][0]
    if command == "retry":
        task = next(iter(retry_tasks(Plan(store), found(store))))
        part = next(part for part in task.previous.files if part.table == table)
    flip(store, part)
    named = {p.path for p in found(store).files()}
    with pytest.raises(StorageError, match=f"{part.path} (has changed|cannot be read)") as caught:
        COMMANDS[command](store)
    assert caught.value.exit_code == ExitCode.ABORTED and "textspot verify" in str(caught.value)
    assert {p.path for p in found(store).files()} == named
    report = verify(found(store), Plan(store))
    assert [f.code for f in report.findings if f.where == part.path] == ["checksum"]
    assert not open_store("memory://merged-damage").exists("_textspot/table.json")


def test_a_damaged_page_is_noticed_when_it_is_read(store):
    part = open_tables(store).data_files["words"][0]
    assert sum(table.num_rows for table in read_data_file(store, part)) == part.rows
    flip(store, part)
    with pytest.raises(StorageError, match="cannot be read"):
        list(read_data_file(store, part))


def test_a_damaged_manifest_is_not_merged_into_the_next(store):
    ledger = found(store)
    assert ledger.fold(at_least=1)
    (manifest,) = ledger.snapshot.manifests
    path = Path(store.local_path(manifest.path))
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"manifest.*(has changed since|is damaged)"):
        compact(ledger)


@pytest.mark.parametrize(
    "path",
    ["../words/a.parquet", "words/../../a.parquet", "/etc/passwd", "images/a.parquet", "words/"],
)
def test_a_record_that_names_a_file_elsewhere_is_one_line(store, path):
    name = next(e.path for e in store.list("_textspot/done/"))
    record = json.loads(store.read(name))
    record["files"][0] |= {"path": path, "table": "words"}
    store.put(name, json.dumps(record).encode())
    with pytest.raises(TableError, match="is no file of a table") as caught:
        found(store)
    assert name in str(caught.value) and "\n" not in str(caught.value)
