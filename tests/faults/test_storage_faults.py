"""A full disk, a read-only output, two drivers at once: one line, nothing half-committed."""

from __future__ import annotations

import os
import random
import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.support.fast_folder import fast_folder
from tests.support.table_data import FINGERPRINT, found, make_items, table_rows
from tests.support.table_job import OUTPUT, job, work
from textspot_ray.errors import StorageError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan

NOBODY = 65534


def message_of_child(function):
    """Run in a forked process; the StorageError's message, or what else happened."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
            text = "finished"
        except StorageError as exc:
            text = f"StorageError: {exc}"
        except BaseException as exc:
            text = repr(exc)
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def sound(uri):
    report = verify(found(open_store(uri)), Plan(open_store(uri)))
    assert report.sound, report.findings
    return report


@pytest.fixture(scope="module")
def undisturbed():
    with fast_folder() as folder:
        job(str(folder / "out"))
        yield table_rows(open_store(str(folder / "out")))


@pytest.mark.parametrize("limit", [3_000, 6_000])
def test_a_disk_that_fills_up_while_parts_are_written(limit, tmp_path, undisturbed):
    uri = str(tmp_path / "out")
    plan = Plan(open_store(uri, create=True))
    open_ledger(plan.store, FINGERPRINT)
    update_plan(plan, make_items(40), OUTPUT, "r")

    def full_disk():
        # No file may grow past the limit: parts do, records do not.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        job(uri)

    message = message_of_child(full_disk)
    assert message.startswith("StorageError: cannot write") and uri in message, message
    assert "\n" not in message and "free space" in message
    assert sound(uri).counts.items < 40
    assert list(open_store(uri).list("_textspot/tmp/")) == []
    job(uri)
    assert table_rows(open_store(uri)) == undisturbed


def test_an_output_that_cannot_be_written(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o555)
    tmp_path.chmod(0o755)

    def as_nobody():
        if os.getuid() == 0:  # root may write anywhere
            os.setuid(NOBODY)
        job(str(folder))

    message = message_of_child(as_nobody)
    assert message.startswith("StorageError: cannot write"), message
    assert str(folder) in message and "\n" not in message
    assert list(folder.iterdir()) == []


def test_an_output_that_becomes_read_only_between_shards(tmp_path):
    uri = str(tmp_path / "out")
    store = open_store(uri, create=True)
    ledger, plan = found(store), Plan(store)
    update_plan(plan, make_items(40), OUTPUT, "r")
    work(store, ledger, plan, next(plan.tasks(ledger)))
    for folder in (Path(uri), *Path(uri).rglob("*")):
        folder.chmod(0o555 if folder.is_dir() else 0o444)
    tmp_path.chmod(0o755)

    def as_nobody():
        if os.getuid() == 0:
            os.setuid(NOBODY)
        job(uri)

    message = message_of_child(as_nobody)
    assert message.startswith("StorageError: cannot write") and "\n" not in message
    for folder in (Path(uri), *Path(uri).rglob("*")):
        folder.chmod(0o755)
    assert sound(uri).counts.items == 5


def drive(uri: str, seed: int, fold_at: int) -> int:
    """A driver that takes its tasks in an order of its own; how many shards it won."""
    store = open_store(uri, create=True)
    ledger, plan = open_ledger(store, FINGERPRINT), Plan(store)
    update_plan(plan, make_items(160), OUTPUT, f"r{seed}")
    tasks = list(plan.tasks(ledger))
    random.Random(seed).shuffle(tasks)
    won = 0
    for task in tasks:
        ledger.refresh()
        if task.shard not in ledger.settled():
            won += work(store, ledger, plan, task)
            ledger.fold(at_least=fold_at)
    ledger.refresh()
    for task in plan.tasks(ledger):  # what the other planned
        won += work(store, ledger, plan, task)
    finish(ledger)
    return won


def test_two_drivers_at_once_share_the_work_and_the_tables_are_right(tmp_path):
    plain, shared = str(tmp_path / "plain"), str(tmp_path / "shared")
    job(plain, make_items(160))
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        won = [f.result() for f in [pool.submit(drive, shared, seed, 3) for seed in range(3)]]
    report = sound(shared)
    plan = Plan(open_store(shared))
    plan.refresh()
    assert plan.n_items == 160 == report.counts.items
    assert sum(won) == plan.n_shards  # each shard was won once
    assert table_rows(open_store(shared)) == table_rows(open_store(plain))
    assert not any(finding.severity == "error" for finding in report.findings)


def test_readers_during_a_job_see_whole_shards_only(tmp_path):
    uri = str(tmp_path / "out")
    store = open_store(uri, create=True)
    found(store)
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        job_done = pool.submit(drive, uri, 1, 3)
        looked = 0
        while not job_done.done():
            rows = table_rows(store)
            n_words = {row[0]: row[11] for row in rows["images"]}
            seen: dict[str, int] = {}
            for row in rows["words"]:
                seen[row[0]] = seen.get(row[0], 0) + 1
            assert seen == {i: n for i, n in n_words.items() if n}
            failed = {row[0] for row in rows["images"] if row[14] == "failed"}
            assert {row[0] for row in rows["errors"]} == failed
            looked += 1
        job_done.result()
    assert looked >= 2
