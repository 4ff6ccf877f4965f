"""The status file follows the run, outlives storage faults, and tells how the run ended."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from tests.support.scripted import plain_scripts, scripted_config, scripted_parts, write_images
from textspot_ray.cli import main
from textspot_ray.engine import status_writer
from textspot_ray.engine.progress import Progress
from textspot_ray.engine.run import run
from textspot_ray.engine.status_writer import StatusWriter
from textspot_ray.errors import AbortedError, StorageError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.driver_status import (
    RunState,
    RunStatus,
    SeenStatus,
    read_statuses,
    this_system,
)


def progress(**changed) -> Progress:
    facts = dict(items_planned=10, items_done=4, images=3, words=7, failed=1, shards_done=2,
                 images_per_s=1.5, eta_s=None, elapsed_s=9.0)  # fmt: skip
    return Progress(**{**facts, **changed})


def wait_until(true, limit_s=10.0):
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_it_follows_the_figures_and_ends_with_the_run(tmp_path):
    store = open_store(str(tmp_path), create=True)
    writer = StatusWriter(store, "run-1", 0.05)
    wait_until(lambda: read_statuses(store))
    assert read_statuses(store)[0].status.state is RunState.STARTING
    writer(progress(images=3))
    wait_until(lambda: read_statuses(store)[0].status.images == 3)
    writer(progress(images=8, failures={"corrupt": 2}))
    wait_until(lambda: read_statuses(store)[0].status.images == 8)
    writer.close(RunState.DONE)
    (seen,) = read_statuses(store)
    assert seen.status.state is RunState.DONE and seen.status.failures == {"corrupt": 2}
    writer.close(RunState.FAILED, "too late")
    assert read_statuses(store)[0].status.state is RunState.DONE


def test_storage_that_fails_or_stalls_costs_the_run_nothing(tmp_path, caplog):
    store = open_store(str(tmp_path), create=True)
    put, broken = store.put, threading.Event()
    broken.set()

    def failing(path, data):
        if broken.is_set():
            raise StorageError("down")
        put(path, data)

    store.put = failing
    writer = StatusWriter(store, "run-1", 0.02)
    writer(progress())
    time.sleep(0.2)
    assert [r.message for r in caplog.records if "could not be written" in r.message] != []
    assert len([r for r in caplog.records if "could not be written" in r.message]) == 1
    broken.clear()
    wait_until(lambda: read_statuses(store))
    writer.close(RunState.DONE)

    store.put = lambda path, data: time.sleep(3600)
    stuck = StatusWriter(store, "run-2", 0.02)
    began = time.monotonic()
    stuck(progress())
    assert time.monotonic() - began < 0.5


def test_a_run_tells_of_itself_while_it_works_and_afterwards(tmp_path, capsys):
    scripts = [f"{script};sleep=0.2" for script in plain_scripts(16)]
    folder = write_images(tmp_path / "in", [*scripts, "do=bad", "words=a"])
    out = tmp_path / "out"
    store = open_store(str(out), create=True)
    seen = []

    def look(_):
        seen.extend(read_statuses(store))

    config = scripted_config(out, status_s=0.05)
    run(config, parts=scripted_parts(folder), on_progress=look)
    working = [one.status for one in seen if one.status.state is RunState.WORKING]
    assert working and all(one.live for one in seen)
    assert any(status.n_slots == 1 and status.open_items > 0 for status in working)
    (last,) = read_statuses(store)
    status = last.status
    assert status.state is RunState.DONE
    assert (status.images, status.failed, status.failures) == (18, 1, {"corrupt": 1})
    assert (status.items_done, status.items_planned, status.open_items) == (18, 18, 0)
    assert status.memory_bytes["driver"] > 2**20
    assert set(status.stage_s) == {"read", "decode", "detect", "recognise"}

    assert main(["status", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"driver   {status.run_id}" in text and ": done " in text and "18 images" in text
    assert "now " not in text


def test_a_run_that_fails_says_why(tmp_path):
    folder = write_images(tmp_path / "in", ["words=a"] * 4)
    from tests.support.scripted import ScriptedModels

    config = scripted_config(tmp_path / "out", max_deaths=2)
    with pytest.raises(AbortedError):
        run(config, parts=scripted_parts(folder, ScriptedModels(die=True)))
    (seen,) = read_statuses(open_store(str(tmp_path / "out")))
    assert seen.status.state is RunState.FAILED
    assert "without a finished image" in seen.status.note


def test_status_tells_a_killed_driver_from_a_living_one(tmp_path, capsys):
    folder = write_images(tmp_path / "in", plain_scripts(4))
    out = tmp_path / "out"
    run(scripted_config(out), parts=scripted_parts(folder))
    store = open_store(str(out))
    now = time.time()
    import dataclasses

    from textspot_ray.tables.driver_status import put_status

    (done,) = read_statuses(store)
    living = dataclasses.replace(
        done.status, run_id="living", state=RunState.WORKING, started_at=now, written_at=now,
        turned_at=now,
        images_per_s=2.5, open_items=3, n_slots=4, n_nodes=2, slots={"a": 2, "b": 2},
    )  # fmt: skip
    killed = dataclasses.replace(living, run_id="killed", every_s=1e-9, images_per_s=50.0)
    put_status(store, living)
    put_status(store, killed)
    import os

    old = now - 700
    os.utime(out / "_textspot" / "status" / "killed.json", (old, old))
    assert main(["status", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if " living on " in line]
    assert "working" in told and "4 slots on 2 nodes" in told
    (stale,) = [line for line in lines if " killed on " in line]
    assert "no word for 12 min" in stale and "run the same command again" in stale
    (now_line,) = [line for line in lines if line.startswith("now ")]
    assert "2.5 images/s by 1 driver," in now_line and "3 items done and not" in now_line


def test_a_driver_of_this_machine_that_is_gone_is_stale_at_once(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    now = time.time()
    host, pid = platform.node(), os.getpid()
    here = RunStatus("r", RunState.STARTING, host, pid, now, now, now, 30.0, this_system())
    gone = dataclasses.replace(here, pid=ended.pid)
    assert not SeenStatus(here, 1.0).stale
    assert SeenStatus(gone, 1.0).stale
    assert not SeenStatus(dataclasses.replace(gone, host="elsewhere"), 1.0).stale
    # a container of this host, or another machine of its name: the number means nothing here
    assert not SeenStatus(dataclasses.replace(gone, system="boot pid:[7]"), 1.0).stale
    assert not SeenStatus(dataclasses.replace(gone, system=""), 1.0).stale
    # the number was given to another process since
    reused = dataclasses.replace(here, started_at=now - 10**7)
    assert SeenStatus(reused, 1.0).stale


def test_the_first_files_come_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(status_writer, "_FIRST_S", 0.02)
    store = open_store(str(tmp_path), create=True)
    writer = StatusWriter(store, "r", 1000.0)
    writer(progress(images=3))
    wait_until(lambda: [one.status.images for one in read_statuses(store)] == [3])
    (seen,) = read_statuses(store)
    assert seen.status.every_s < 100
    writer.close(RunState.DONE)
