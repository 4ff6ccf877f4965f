"""Looking at a table again and again while it grows."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.insight_tables import FINGERPRINT, Page, run_command, word, write_shard
from textspot_ray.commands import status as module
from textspot_ray.config import OutputConfig
from textspot_ray.errors import ExitCode, NoTableError
from textspot_ray.records import Item
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.driver_status import RunState, RunStatus, put_status, this_system
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two shards planned, the first committed."""
    store = open_store(str(tmp_path / "out"), create=True)
    open_ledger(store, FINGERPRINT)
    items = [Item(f"{n}.jpg", f"file:///archive/{n}.jpg", size=1000) for n in range(4)]
    output = OutputConfig(max_shard_items=2, min_shard_items=2)
    update_plan(Plan(store), items, output, "run-1")
    write_shard(store, [Page(f"{n}.jpg", [word("x")]) for n in range(2)], 0)
    return store


@pytest.fixture
def commits_while_it_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The second shard is committed while the command sleeps for the second time."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            write_shard(store, [Page(f"{n}.jpg", [word("x")]) for n in range(2, 4)], 1)

    monkeypatch.setattr(module.time, "sleep", sleep)
    return slept


def test_it_looks_until_the_table_is_done(
    store: Store, commits_while_it_waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("status", [store.uri, "--watch", "3"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert commits_while_it_waits == [3.0, 3.0]
    assert shown.count("1 of 2 committed") == 2 and shown.count("2 of 2 committed") == 1
    assert shown.count(": done") == 1


def test_programs_get_an_object_a_look(
    store: Store, commits_while_it_waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("status", [store.uri, "--watch", "--json"]) == ExitCode.OK
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [look["counts"]["images"] for look in looks] == [2, 2, 4]
    assert [look["done"] for look in looks] == [False, False, True]


def test_a_terminal_is_written_over(
    store: Store, commits_while_it_waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert run_command("status", [store.uri, "--watch"]) == ExitCode.OK
    assert "2 of 2 committed" in out.getvalue() and "\x1b[" in out.getvalue()
    assert out.getvalue().rstrip().endswith("\x1b[?25h")  # and the cursor is back


@pytest.mark.parametrize("seconds", ["0", "nan", "x", "-1"])
def test_intervals_are_sensible(store: Store, seconds: str) -> None:
    with pytest.raises(SystemExit):
        run_command("status", [store.uri, "--watch", seconds])


def account(**changed: object) -> RunStatus:
    now = time.time()
    facts = {"items_planned": 4, "images_per_s": 3.0, "state": RunState.WORKING, **changed}
    return RunStatus("run-2", host="far", pid=7, started_at=now - 60, written_at=now, turned_at=now,
                     every_s=10.0, **facts)  # fmt: skip


def test_a_run_that_has_planned_nothing_yet_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path / "new"), create=True)
    open_ledger(store, FINGERPRINT)
    put_status(store, account(state=RunState.STARTING, items_planned=0))
    assert run_command("status", [store.uri]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert f"{store.uri}: not done\n" in shown and "starting" in shown


def test_all_committed_while_sources_are_listed_is_not_done(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard(store, [Page(f"{n}.jpg", [word("x")]) for n in range(2, 4)], 1)
    put_status(store, account(planning=True))
    run_command("status", [store.uri])
    shown = capsys.readouterr().out
    assert ": not done\n" in shown and "sources are still being listed" in shown
    put_status(store, account(planning=True, state=RunState.STOPPED))
    run_command("status", [store.uri])
    assert "ended before it had listed all" in capsys.readouterr().out
    put_status(store, account(state=RunState.DONE))
    run_command("status", [store.uri])
    assert ": done\n" in capsys.readouterr().out


def test_a_driver_without_workers_is_said_to_wait_and_gives_no_time(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    put_status(store, account(waiting_s=42.0))
    run_command("status", [store.uri])
    shown = capsys.readouterr().out
    assert "waiting for workers since 42.0 s" in shown and "left " not in shown
    put_status(store, account(slots={"n": 1}, n_slots=1, n_nodes=1))
    run_command("status", [store.uri])
    shown = capsys.readouterr().out
    assert ": working, " in shown and "left " in shown


def test_a_process_of_this_system_that_is_gone_was_killed(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = replace(account(), host=platform.node(), pid=ended.pid, system=this_system())
    put_status(store, here)
    run_command("status", [store.uri])
    shown = capsys.readouterr().out
    assert ": killed, its last word came " in shown and "now " not in shown
    assert "run the same command again" in shown
    write_shard(store, [Page(f"{n}.jpg", [word("x")]) for n in range(2, 4)], 1)
    run_command("status", [store.uri])  # another driver has done its work
    shown = capsys.readouterr().out
    assert ": done\n" in shown and ": killed, " in shown and "run the same" not in shown
    put_status(store, replace(here, system="another"))
    run_command("status", [store.uri])
    assert ": working, " in capsys.readouterr().out


def test_a_table_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "soon"
    folder.mkdir()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            store = open_store(str(folder))
            open_ledger(store, FINGERPRINT)
            put_status(store, account(state=RunState.DONE, items_planned=0))

    monkeypatch.setattr(module.time, "sleep", sleep)
    assert run_command("status", [str(folder), "--watch"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert slept == [1.0, 1.0, 1.0] and ": done" in shown.out
    assert shown.err.count("waiting 60 s for one") == 1
    with pytest.raises(NoTableError):
        run_command("status", [str(tmp_path), "--watch"])
    assert sum(slept) == 63
    with pytest.raises(NoTableError):
        run_command("status", [str(tmp_path)])
