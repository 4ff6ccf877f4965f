"""The driver killed at each step of a run; the next run makes the tables whole."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.drive import start_driver, wait_for_images
from tests.support.scripted import plain_scripts, scripted_config, scripted_parts, write_images
from tests.support.tables_equal import all_rows
from textspot_ray.engine.run import run
from textspot_ray.tables.commit.commit_record import PAGES
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.vacuum import clean
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan

KILLED = 137


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Sources, and the tables of a run in which nothing happened."""
    folder = tmp_path_factory.mktemp("faults")
    source = write_images(folder / "in", [*plain_scripts(20), "do=bad", "words=a,b;pages=3"])
    run(scripted_config(folder / "out"), parts=scripted_parts(source))
    return source, all_rows(folder / "out")


def sound(out: Path) -> bool:
    store = open_tables(str(out)).store
    plan = Plan(store)
    plan.refresh()
    return verify(open_ledger(store, create=False), plan).sound


@pytest.mark.parametrize(
    "point",
    [
        "table",
        "before_segment",
        "after_segment",
        "before_parts:2",
        "between_parts:5",
        "before_marker:2",
        "after_marker:2",
    ],
)
def test_a_driver_killed_at_any_step_is_made_good_by_the_next(tmp_path, undisturbed, point):
    source, expected = undisturbed
    out = tmp_path / "out"
    driver = start_driver(source, out, env={"TEXTSPOT_FAULT": point})
    driver.communicate(timeout=60)
    assert driver.returncode == KILLED
    report = run(scripted_config(out), parts=scripted_parts(source))
    assert all_rows(out) == expected
    assert sound(out)
    if point == "after_marker:2":  # what is committed is not done again
        assert report.run_counts.images < report.counts.images


def test_a_killed_driver_leaves_no_process_behind(tmp_path, undisturbed):
    source = write_images(tmp_path / "in", ["words=a;sleep=0.05"] * 200)
    driver = start_driver(source, tmp_path / "out")
    children = wait_for_images(driver, 1)
    assert children
    driver.kill()
    driver.communicate(timeout=10)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_drains_and_the_next_run_goes_on(tmp_path, number, status):
    count = 120
    source = write_images(tmp_path / "in", [f"words=w{n};sleep=0.03" for n in range(count)])
    out = tmp_path / "out"
    driver = start_driver(source, out)
    wait_for_images(driver, 10)
    driver.send_signal(number)
    output, errors = driver.communicate(timeout=40)
    assert driver.returncode == status, errors
    assert "no new images" in errors and "Traceback" not in errors
    first = int(output.split("report")[1].split()[0])
    assert 0 < first < count
    assert sound(out)
    report = run(scripted_config(out), parts=scripted_parts(source))
    assert report.counts.images == count
    assert report.run_counts.images == count - first
    assert len(all_rows(out)["words"]) == count


def test_a_second_signal_stops_at_once(tmp_path):
    # one stall only: shards come in any order, and the others must pass by it
    source = write_images(tmp_path / "in", ["words=a"] * 8 + ["words=x;do=stall"])
    driver = start_driver(source, tmp_path / "out", min_deadline_s=60)
    children = wait_for_images(driver, 8)
    driver.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert driver.poll() is None  # images in flight are given their time
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=10)
    assert driver.returncode == 143
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_two_drivers_at_once_share_the_work(tmp_path):
    count = 80
    source = write_images(tmp_path / "in", [f"words=w{n};sleep=0.05" for n in range(count)])
    out = tmp_path / "out"
    drivers = [start_driver(source, out) for _ in range(2)]
    ends = [driver.communicate(timeout=100) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], ends
    reports = [end[0].split("report")[1].split() for end in ends]
    assert [int(total) for _, total in reports] == [count, count]
    own = [int(done) for done, _ in reports]
    assert sum(own) == count  # what counts was done once
    assert len(all_rows(out)["words"]) == count and sound(out)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_a_long_file_goes_on_where_it_was(tmp_path, number):
    script = ["words=a;pages=400;sleep=0.01", "words=b"]
    source = write_images(tmp_path / "in", script)
    plain = tmp_path / "plain"
    run(scripted_config(plain), parts=scripted_parts(source))
    out = tmp_path / "out"
    driver = start_driver(source, out)
    wait_for_images(driver, 200)
    driver.send_signal(number)
    driver.communicate(timeout=30)
    store = open_tables(str(out)).store
    kept = [entry.path for entry in store.list(PAGES)]
    assert len(kept) >= (2 if number == signal.SIGKILL else 3)
    words = store.read(kept[0])
    report = run(scripted_config(out), parts=scripted_parts(source))
    assert report.run_counts.images == report.counts.images == 401
    assert all_rows(out) == all_rows(plain) and sound(out)
    assert not list(store.list(PAGES))
    store.put(kept[0], words)  # as a kill between commit and clean-up leaves it
    clean(open_ledger(store, create=False))
    assert not list(store.list(PAGES))
