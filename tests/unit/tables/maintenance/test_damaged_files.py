"""Damage is never written again with a right checksum: what rewrites checks what it reads."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.table_data import found, make_item, make_items
from tests.support.table_job import job, retry_job
from textspot_ray.errors import DamagedTableError, ExitCode, StorageError, TableError
from textspot_ray.records import ShardId
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.data_files import read_data_file
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.segment import segment_path

COMMANDS = {
    "compact": lambda store: compact(found(store)),
    "forget": lambda store: forget(found(store), Plan(store), [make_item(2).image_id]),
    "merge": lambda store: merge(found(store), found(store), open_store("memory://merged-damage")),
    "retry": lambda store: retry_job(store.uri),
    "redo": lambda store: job(store.uri, [make_item(2, tag="t1")], on_changed="redo", fold_at=99),
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
        if command == "compact" or (command, table) == ("retry", "words"):
            pytest.skip("nothing is left to compact; failed images have no words to take out")
    part = open_tables(store).data_files[table][0]
    if command in ("retry", "redo") and not compacted:
        if command == "retry":
            record = next(iter(retry_tasks(Plan(store), found(store)))).previous
        else:
            record = found(store).commit_record(ShardId(0, 0))
        part = next(part for part in record.files if part.table == table)
    flip(store, part)
    named = {p.path for p in found(store).files()}
    with pytest.raises(StorageError, match=f"{part.path} (has changed|cannot be read)") as caught:
        COMMANDS[command](store)
    assert caught.value.exit_code == ExitCode.ABORTED and "textspot verify" in str(caught.value)
    assert {p.path for p in found(store).files()} == named
    report = verify(found(store), Plan(store))
    assert [f.code for f in report.findings if f.where == part.path] == ["checksum"]
    assert not open_store("memory://merged-damage").exists("_textspot/table.json")


def test_images_are_not_forgotten_in_a_damaged_copy_of_words(store):
    compact(found(store))
    (part,) = found(store).snapshot.by_text
    flip(store, part)
    before = Path(store.local_path(part.path)).read_bytes()
    with pytest.raises(StorageError, match=f"{part.path} (has changed|cannot be read)"):
        forget(found(store), Plan(store), [make_item(n).image_id for n in range(9)])
    assert Path(store.local_path(part.path)).read_bytes() == before
    assert found(store).snapshot.forgotten == 0


@pytest.mark.parametrize("where", ["rows", "head"])
@pytest.mark.parametrize("command", ["forget", "merge", "redo"])
def test_a_damaged_plan_is_not_written_again(store, command, where):
    path = Path(store.local_path(segment_path(0)))
    data = bytearray(path.read_bytes())
    # the head is in the schema that Arrow keeps as base 64, at one of three alignments
    coded = [b64encode(b"\0" * n + b'"created_at":')[4:-4] for n in range(3)]
    data[60 if where == "rows" else max(map(data.find, coded))] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedTableError, match=f"{segment_path(0)} cannot be read") as caught:
        COMMANDS[command](store)
    assert caught.value.exit_code == ExitCode.ABORTED
    assert path.read_bytes() == bytes(data)
    assert not open_store("memory://merged-damage").exists("_textspot/table.json")


def test_damaged_hashes_of_what_was_forgotten_are_not_written_again(store):
    forget(found(store), Plan(store), [make_item(2).image_id])
    path = Path(store.local_path(found(store).snapshot.forgotten_file))
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=f"{path.name} is damaged"):
        forget(found(store), Plan(store), [make_item(3).image_id])
    assert path.read_bytes() == bytes(data)


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
