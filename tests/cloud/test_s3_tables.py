"""The commit protocol on an S3 emulator: the same tables as on a disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from helpers.fast_folder import fast_folder
from helpers.table_data import found, make_items, table_rows
from helpers.table_job import OUTPUT, job, retry_job, work

from textspot_ray.archive.storage import Store, open_store
from textspot_ray.tables.compact import compact
from textspot_ray.tables.forget import forget
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan import Plan
from textspot_ray.tables.planner import update_plan
from textspot_ray.tables.sweep import finish
from textspot_ray.tables.verify import verify

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

Options = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def options() -> Iterator[Options]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "s3": {
            "key": "test",
            "secret": "test",
            "endpoint_url": f"http://{host}:{port}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
    }
    server.stop()


@pytest.fixture
def store(options: Options, request: pytest.FixtureRequest) -> Store:
    import s3fs

    fs = s3fs.S3FileSystem(**options["s3"])
    if not fs.exists("tables"):
        fs.call_s3("create_bucket", Bucket="tables")
    return open_store(f"s3://tables/{request.node.name}", options)


def rows(store: Store, options: Options) -> dict[str, list[tuple[object, ...]]]:
    return table_rows(store, options)


def sound(store: Store) -> None:
    report = verify(found(store), Plan(store))
    assert report.sound, report.findings


def test_run_retry_compact_and_forget_as_on_a_disk(store: Store, options: Options) -> None:
    with fast_folder() as folder:
        local = open_store(str(folder / "out"), create=True)
        for one in (local, store):
            job(one, fold_at=3)
        assert rows(store, options) == table_rows(local)
        for one in (local, store):
            retry_job(one)
            compact(found(one))
            finish(found(one), grace_s=0)
        assert rows(store, options) == table_rows(local)
        for one in (local, store):
            forget(found(one), Plan(one), [make_items(3)[2].image_id])
        assert rows(store, options) == table_rows(local)
        sound(store)
        assert len(list(store.list("words/"))) == 1
        tables = open_tables(store.uri, options)
        assert tables.words.count_rows() == found(store).counts().words


def test_several_drivers_at_once(store: Store, options: Options) -> None:
    found(store)
    won: list[int] = []

    def drive(seed: int) -> None:
        mine = open_store(store.uri, options)
        ledger, plan = found(mine), Plan(mine)
        update_plan(plan, make_items(40), OUTPUT, f"r{seed}")
        tasks = list(plan.tasks(ledger))
        for task in tasks if seed else reversed(tasks):
            if not ledger.is_settled(task.shard, task.gen):
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
        assert rows(store, options) == table_rows(open_store(str(folder / "out")))
    plan = Plan(store)
    plan.refresh()
    assert sum(won) == plan.n_shards
    sound(store)
