"""Kill the process at every step of the commit; the same job again gives the same tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.fast_folder import fast_folder
from tests.support.table_data import found, make_item, make_items, table_rows
from tests.support.table_job import job, killed_at, retry_job
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan

POINTS = [
    "table:1",
    "before_segment:1",
    "after_segment:1",
    "before_parts:1",
    "before_parts:3",
    "between_parts:1",
    "between_parts:2",
    "between_parts:3",
    "between_parts:7",
    "before_marker:1",
    "before_marker:4",
    "after_marker:1",
    "after_marker:5",
    "before_snapshot:1",
    "after_snapshot:1",
    "before_snapshot:2",
    "after_snapshot:2",
]


def check_sound(uri):
    """No finding but litter, and the plain globs hold just what readers see."""
    store = open_store(uri)
    plan = Plan(store)
    report = verify(found(store), plan)
    assert report.findings == (), report.findings
    for table, rows in table_rows(store).items():
        files = sorted(Path(uri, table).glob("*.parquet"))
        assert sum(pq.read_metadata(file).num_rows for file in files) == len(rows), table
    return report


@pytest.fixture(scope="module")
def undisturbed():
    with fast_folder() as folder:
        uri = str(folder / "out")
        job(uri)
        report = check_sound(uri)
        assert report.counts.items == 40 and report.counts.images == 56
        yield table_rows(open_store(uri))


@pytest.mark.parametrize("point", POINTS)
def test_killed_once_and_run_again_the_tables_are_as_if_undisturbed(point, tmp_path, undisturbed):
    uri = str(tmp_path / "out")
    assert killed_at(point, job, uri)
    job(uri)
    check_sound(uri)
    assert table_rows(open_store(uri)) == undisturbed


@pytest.mark.parametrize("point", ["between_parts:4", "before_marker:2", "after_marker:2"])
def test_killed_again_and_again_it_still_ends(point, tmp_path, undisturbed):
    uri = str(tmp_path / "out")
    deaths = 0
    while killed_at(point, job, uri):  # each run gets one commit further
        deaths += 1
        assert deaths < 30
        store = open_store(uri)
        report = verify(found(store), Plan(store))
        assert report.sound, report.findings  # what is there is right at any moment
    assert deaths >= 2
    check_sound(uri)
    assert table_rows(open_store(uri)) == undisturbed


@pytest.mark.parametrize(
    "point",
    ["before_parts:1", "between_parts:1", "before_marker:2", "after_marker:1", "before_delete:2"],
)
def test_a_killed_retry_changes_nothing_or_all_of_a_shard(point, tmp_path):
    plain, hurt = str(tmp_path / "plain"), str(tmp_path / "hurt")
    for uri in (plain, hurt):
        job(uri, fold_at=99)
    before = table_rows(open_store(hurt))
    retry_job(plain)
    assert killed_at(point, retry_job, hurt)
    report = verify(found(open_store(hurt)), Plan(open_store(hurt)))
    assert report.sound, report.findings
    retry_job(hurt)
    check_sound(hurt)
    after = table_rows(open_store(hurt))
    assert after == table_rows(open_store(plain))
    assert len(after["errors"]) < len(before["errors"])
    assert {row for row in after["errors"] if row[2] == "timeout"} == set()


@pytest.mark.parametrize("point", ["before_segment:2", "after_segment:2", "between_parts:1"])
def test_a_killed_redo_ends_with_the_new_version_of_changed_images(point, tmp_path):
    items = make_items(40)
    changed = [make_item(n, tag="t1" if n % 9 == 0 else "t0") for n in range(44)]
    plain, hurt = str(tmp_path / "plain"), str(tmp_path / "hurt")
    for uri in (plain, hurt):
        job(uri, items)
    job(plain, changed, "redo")
    assert killed_at(point, job, hurt, changed, "redo")
    job(hurt, changed, "redo")
    check_sound(hurt)
    after = table_rows(open_store(hurt))
    assert after == table_rows(open_store(plain))
    tags = {row[0]: row[8] for row in after["images"]}
    assert [tags[item.image_id] for item in changed] == [item.content_tag for item in changed]


def test_every_fault_point_is_covered():
    from textspot_ray.tables.failpoints import POINTS as NAMED

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in NAMED if f'"{name}:' not in text] == []
