"""Kills on Ray: whatever dies, the tables come out as if nothing had."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.support.drive import start_driver, wait_for_images
from tests.support.scripted import scripted_config, scripted_parts, write_images
from tests.support.tables_equal import all_rows
from textspot_ray.engine.run import run
from textspot_ray.records import ErrorKind

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


def actors(name: str) -> list[psutil.Process]:
    """Processes of an actor class among our descendants."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ray::{name}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def fatal_signals_handled(pid: int) -> list[signal.Signals]:
    """Those among the signals of a crash that a process would not simply end by."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
    fatal = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
    return [number for number in fatal if caught >> (number - 1) & 1]


def expect(count: int) -> dict[str, list[str]]:
    return {f"{n:04d}": [f"w{n}"] for n in range(count)}


def words_of(out) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for row in all_rows(out)["words"]:
        words.setdefault(row["image_id"][-8:-4], []).append(row["text"])
    return words


def test_killed_actors_cost_nothing(tmp_path, ray_cluster):
    count = 120
    folder = write_images(tmp_path / "in", [f"words=w{n};sleep=0.05" for n in range(count)])
    victims = ["DetectorActor", "RecognizerActor", "RunnerActor"]
    next_at = [5]
    handled: list[signal.Signals] = []

    def kill_in_turn(progress):
        if victims and progress.images >= next_at[0]:
            for process in actors(victims[0]):
                handled.extend(fatal_signals_handled(process.pid))
                os.kill(process.pid, signal.SIGKILL)
                next_at[0] = progress.images + 8
                victims.pop(0)
                break

    config = scripted_config(tmp_path / "out", kind="ray", in_flight=2)
    report = run(config, parts=scripted_parts(folder), on_progress=kill_in_turn)
    assert not victims
    assert not handled, "Ray's stack trace of a crash would take minutes and gigabytes"
    assert words_of(tmp_path / "out") == expect(count)
    assert report.counts.images == count and report.counts.failed == 0


def test_poison_costs_one_row_and_leaves_no_process_behind(tmp_path, ray_cluster):
    scripts = [f"words=w{n}" for n in range(12)]
    scripts[4] = "words=x;do=crash"
    scripts[8] = "words=x;read_do=hold"
    folder = write_images(tmp_path / "in", scripts)
    config = scripted_config(tmp_path / "out", kind="ray", min_deadline_s=1.0)
    report = run(config, parts=scripted_parts(folder))
    assert report.counts.images == 12 and report.counts.failed == 2
    errors = {row["image_id"][-8:-4]: row["kind"] for row in all_rows(tmp_path / "out")["errors"]}
    assert errors == {"0004": str(ErrorKind.CRASHED), "0008": str(ErrorKind.STALLED)}
    gone = {n: w for n, w in expect(12).items() if n not in errors}
    assert words_of(tmp_path / "out") == gone
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(
        actors(name) for name in ("DetectorActor", "RecognizerActor", "RunnerActor")
    ):
        time.sleep(0.2)
    assert not actors("DetectorActor") and not actors("RecognizerActor")
    assert not actors("RunnerActor")


@pytest.mark.slow  # starts Ray twice
@pytest.mark.timeout(600)
def test_a_ray_driver_is_drained_then_killed_and_nothing_is_lost_or_left(tmp_path):
    count = 120
    source = write_images(tmp_path / "in", [f"words=w{n};sleep=0.05" for n in range(count)])
    out = tmp_path / "out"

    driver = start_driver(source, out, "ray")
    processes = wait_for_images(driver, 5)
    assert len(processes) > 4  # Ray's daemons and three actors
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=90)
    assert driver.returncode == 143 and "no new images" in errors
    assert not psutil.wait_procs(processes, timeout=30)[1]

    driver = start_driver(source, out, "ray")
    processes = wait_for_images(driver, 5)
    # Ray's two agents first try for a minute or two to tell a head that is gone, then end as well.
    processes = [process for process in processes if "Agent" not in process.name()]
    assert len(processes) > 4
    driver.kill()
    driver.communicate(timeout=30)
    assert not psutil.wait_procs(processes, timeout=30)[1]

    report = run(scripted_config(out), parts=scripted_parts(source))
    assert 0 < report.run_counts.images < count
    assert words_of(out) == expect(count)
