"""What must be so on every object store: exclusive puts, true listings, tables as on a disk."""

from __future__ import annotations

import threading
import time

import pytest

from tests.cloud.conftest import Cloud
from tests.support.fast_folder import fast_folder
from tests.support.table_data import found, make_items, table_rows
from tests.support.table_job import OUTPUT, job, retry_job, work
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.driver_status import read_statuses
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]


def folder_of(cloud: Cloud, name: str) -> Store:
    return open_store(f"{cloud.root}/{name}", cloud.options)


def sound(store: Store) -> None:
    report = verify(found(store), Plan(store))
    assert report.sound, report.findings


def test_puts_are_exclusive_and_what_is_not_there_is_missing(cloud: Cloud) -> None:
    store = folder_of(cloud, "exclusive")
    assert store.probe_exclusive()
    assert store.put_if_absent("t.json", b"first")
    assert not store.put_if_absent("t.json", b"second")
    assert store.read("t.json") == b"first"
    store.put("t.json", b"third")
    assert store.read("t.json") == b"third" and store.size("t.json") == 5
    with pytest.raises(FileNotFoundError):
        store.read("none")
    assert not list(store.list("nothing/"))
    store.delete("none")
    (entry,) = store.list("")
    assert entry.path == "t.json" and abs(entry.mtime - time.time()) < 120


def test_of_many_writers_one_wins(cloud: Cloud) -> None:
    wins: list[int] = []

    def put(n: int) -> None:
        if folder_of(cloud, "race").put_if_absent("marker", str(n).encode()):
            wins.append(n)

    threads = [threading.Thread(target=put, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = folder_of(cloud, "race").read("marker")
    assert [str(n).encode() for n in wins] == [kept]


def test_lists_pass_pages_in_order_and_are_never_cached(cloud: Cloud) -> None:
    store = folder_of(cloud, "pages")
    names = [f"d/{n:04d}/x" for n in range(1030)]
    cloud.put({f"pages/{name}": b"x" for name in [*names, "d2/not-in-it"]})
    assert [entry.path for entry in store.list("d/")] == names
    store.put("d/9999", b"xyz")
    last = list(store.list("d/"))[-1]
    assert (last.path, last.size) == ("d/9999", 3)
    assert last.mtime > 1e9


def test_run_retry_compact_and_forget_as_on_a_disk(cloud: Cloud) -> None:
    store = folder_of(cloud, "tables")
    with fast_folder() as folder:
        local = open_store(str(folder / "out"), create=True)
        for one in (local, store):
            job(one, fold_at=3)
        assert table_rows(store, cloud.options) == table_rows(local)
        for one in (local, store):
            retry_job(one)
            compact(found(one))
            finish(found(one), grace_s=0)
        assert table_rows(store, cloud.options) == table_rows(local)
        for one in (local, store):
            forget(found(one), Plan(one), [make_items(3)[2].image_id])
        assert table_rows(store, cloud.options) == table_rows(local)
    sound(store)
    assert len(list(store.list("words/"))) == 1
    tables = open_tables(store.uri, cloud.options)
    assert tables.words.count_rows() == found(store).counts().words
    assert read_statuses(store) == []


def test_several_drivers_at_once(cloud: Cloud) -> None:
    store = folder_of(cloud, "drivers")
    found(store)
    won: list[int] = []

    def drive(seed: int) -> None:
        mine = folder_of(cloud, "drivers")
        ledger, plan = found(mine), Plan(mine)
        update_plan(plan, make_items(40), OUTPUT, f"r{seed}")
        tasks = list(plan.tasks(ledger))
        for task in tasks if seed else reversed(tasks):
            ledger.refresh()
            if task.shard not in ledger.settled():
                won.append(work(mine, ledger, plan, task))
                ledger.fold(at_least=3)

    threads = [threading.Thread(target=drive, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job(store)
    finish(found(store))
    with fast_folder() as folder:
        job(str(folder / "out"))
        assert table_rows(store, cloud.options) == table_rows(open_store(str(folder / "out")))
    plan = Plan(store)
    plan.refresh()
    assert sum(won) == plan.n_shards
    sound(store)
