"""A whole small job on the tables room alone, and a way to kill it at a named point.

The same by the engine has models that say of an item what `make_result` does.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np

from tests.support.scripted import ScriptedRecognizer, encode_words
from tests.support.table_data import FINGERPRINT, make_items, make_result
from textspot_ray.config import OutputConfig, RunConfig, config_from_dict
from textspot_ray.engine.components import Components
from textspot_ray.engine.slot.slot import Recipe
from textspot_ray.records import DetectedPage, Encoded, ImageResult, Item, PageInfo, Readings
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables import failpoints as faultpoints
from textspot_ray.tables.commit.ledger import Ledger, open_ledger
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.vacuum import finish
from textspot_ray.tables.plan.plan import Plan, Task
from textspot_ray.tables.plan.planner import update_plan

OUTPUT = OutputConfig(min_shard_items=8, max_shard_items=8)


def pages_of(item: Item) -> int:
    """One item in five has three pages."""
    return 3 if (item.size or 0) % 5 == 2 else 1


def work(store: Store, ledger: Ledger, plan: Plan, task: Task, fail: bool | None = None) -> bool:
    """Run one task to its commit."""
    shard = plan.load(task)
    with ShardWriter(
        store, shard, run_id="r", fingerprint=ledger.digest, previous=task.previous, redo=task.redo
    ) as writer:
        for item in shard.items:
            for page in range(pages_of(item)):
                writer.add(make_result(item, page, pages_of(item), fail=fail))
        record = writer.commit()
    return record is not None and ledger.note(record)


def job(
    where: str | Store,
    items: Iterable[Item] | None = None,
    on_changed: str = "keep",
    fold_at: int = 2,
    fail: bool | None = None,
) -> None:
    """List, plan, work, fold and sweep, as an engine does."""
    store = open_store(where, create=True) if isinstance(where, str) else where
    ledger, plan = open_ledger(store, FINGERPRINT), Plan(store)
    update_plan(plan, items or make_items(40), OUTPUT, "r", on_changed=on_changed)
    for task in plan.tasks(ledger):
        work(store, ledger, plan, task, fail)
        ledger.fold(at_least=fold_at)
    finish(ledger)


def retry_job(where: str | Store) -> None:
    """Try the transient failures again; this time they pass."""
    store = open_store(where) if isinstance(where, str) else where
    ledger, plan = open_ledger(store, FINGERPRINT), Plan(store)
    for task in list(retry_tasks(plan, ledger)):
        work(store, ledger, plan, task, fail=False)
        ledger.fold(at_least=2)
    finish(ledger)


def killed_at(point: str, function: Callable[..., None], *args: object) -> bool:
    """Run in a forked process that dies at ``point``; False if it never came there.

    A fork, because starting an interpreter for every point would take the suite minutes.
    """
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.environ[faultpoints.VARIABLE] = point
            try:
                function(*args)
                status = 0
            except BaseException:
                traceback.print_exc()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, faultpoints.EXIT_STATUS), f"the job failed at {point}"
    return status == faultpoints.EXIT_STATUS


class PageModels:
    """Models for `make_result`, which needs no more of them than an item's number of pages."""

    def detector(self) -> PageModels:
        return self

    def recognizer(self) -> ScriptedRecognizer:
        return ScriptedRecognizer()

    def sized(self, threads: object) -> PageModels:
        return self

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, np.ndarray]:
        pages = 1 if data.startswith(b"\x89PNG") else int(data)
        return DetectedPage(PageInfo(640, 480, "JPEG", 1, pages=pages), ()), encode_words([])


class PageReader:
    """An item's bytes are its number of pages."""

    def read(self, items: Iterable[Item]) -> Iterator[Encoded]:
        for item in items:
            yield Encoded(item, str(pages_of(item)).encode())

    def close(self) -> None:
        pass


def _assemble(
    encoded: Encoded,
    page: int,
    detected: DetectedPage,
    readings: Readings | None,
    fail: bool | None,
) -> ImageResult:
    if detected.error is not None:
        return ImageResult(encoded.item, page, detected.info, error=detected.error)
    return make_result(encoded.item, page, pages_of(encoded.item), fail=fail)


def engine_parts(planned: int, fail: bool | None) -> Components:
    recipe = Recipe(PageModels(), PageReader, partial(_assemble, fail=fail))  # type: ignore[arg-type]
    return Components(recipe, FINGERPRINT, lambda *_: iter(make_items(planned)))


def engine_config(uri: str) -> RunConfig:
    output = {"uri": uri, "min_shard_items": 8, "max_shard_items": 8}
    # A loaded machine is no fault of an image's, nor are the kills of this test.
    engine = {"kind": "local", "min_deadline_s": 120.0, "start_timeout_s": 600.0}
    return config_from_dict({"engine": engine, "output": output})
