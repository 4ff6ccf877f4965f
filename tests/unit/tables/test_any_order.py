"""Whatever is done to a table in whatever order, readers see each item's newest result once."""

from __future__ import annotations

import random

import pytest

from tests.support.table_data import found, make_item, make_result, table_rows
from tests.support.table_job import pages_of
from textspot_ray.config import OutputConfig
from textspot_ray.records import ErrorKind
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.writer import ShardWriter
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.retry_failed import retry_tasks
from textspot_ray.tables.maintenance.rewrite import absorb_pending
from textspot_ray.tables.maintenance.vacuum import finish, vacuum_state
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import update_plan
from textspot_ray.tables.schema import page_id

OUTPUT = OutputConfig(min_shard_items=3, max_shard_items=5)


class Model:
    """A table, and what it must hold."""

    def __init__(self, uri: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = open_store(uri, create=True)
        self.source: dict[int, str] = {}  # number: content tag
        self.expected: dict[str, tuple] = {}  # item: (item, whether its failures pass)
        self.forgotten: set[str] = set()
        self.ledger = found(self.store)  # kept open, as by a long job
        self.plan = Plan(self.store)

    def list_sources(self) -> None:
        """New items, and changed ones, with or without redo."""
        for _ in range(self.rng.randint(0, 6)):
            self.source.setdefault(len(self.source), "t0")
        for number in self.rng.sample(sorted(self.source), min(2, len(self.source))):
            self.source[number] += "x"
        listing = [make_item(n, tag=tag) for n, tag in self.source.items()]
        update_plan(self.plan, listing, OUTPUT, "r", on_changed=self.rng.choice(["keep", "redo"]))

    def work(self, retry: bool = False) -> None:
        """Some of what is to be done."""
        self.ledger.refresh()
        if retry:
            tasks = list(retry_tasks(self.plan, self.ledger, frozenset(ErrorKind)))
        else:
            tasks = list(self.plan.tasks(self.ledger))
        for task in self.rng.sample(tasks, self.rng.randint(0, len(tasks))):
            shard = self.plan.load(task)
            with ShardWriter(self.store, shard, run_id="r", fingerprint=self.ledger.digest,
                             previous=task.previous, redo=task.redo) as writer:  # fmt: skip
                for item in shard.items:
                    for page in range(pages_of(item)):
                        writer.add(self.result(item, page, retry))
                if self.rng.random() < 0.2:
                    continue  # the process died
                record = writer.commit()
            assert record is not None and self.ledger.note(record)
            for item in shard.items:
                self.expected[item.image_id] = (item, retry)
            if self.rng.random() < 0.3:
                self.ledger.fold(at_least=1)
            if self.rng.random() < 0.1:
                compact(found(self.store))  # another process, in the middle of ours

    def result(self, item, page, retry):
        return make_result(item, page, pages_of(item), fail=False if retry else None)

    def forget(self) -> None:
        """One item."""
        names = [make_item(n).image_id for n in self.source]
        if names:
            name = self.rng.choice(names)
            plan = Plan(self.store)
            forget(found(self.store), plan, [name])
            if plan.locate([name]) != [None]:
                self.forgotten.add(name)
            self.plan = Plan(self.store)
            self.plan.refresh()

    def check(self) -> None:
        """Readers see what is expected, before and after all is absorbed."""
        report = verify(found(self.store), Plan(self.store))
        assert report.sound, report.findings
        absorb_pending(found(self.store))
        report = verify(found(self.store), Plan(self.store))
        assert report.sound, report.findings
        rows = table_rows(self.store)
        images = sorted(
            (page_id(item.image_id, page), item.content_tag, str(r.status), len(r.words))
            for name, (item, retry) in self.expected.items()
            if name not in self.forgotten
            for page in range(pages_of(item))
            for r in [self.result(item, page, retry)]
        )
        assert sorted((r[0], r[8], r[14], r[11]) for r in rows["images"]) == images
        words = sum(n for *_, n in images)
        assert len(rows["words"]) == words == found(self.store).counts().words


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_operations(seed, tmp_path):
    model = Model(str(tmp_path / "out"), seed)
    steps = {
        model.list_sources: 3,
        model.work: 4,
        lambda: model.work(retry=True): 3,
        lambda: compact(found(model.store), rows_per_file=model.rng.choice([30, 8_000_000])): 2,
        lambda: finish(found(model.store), grace_s=0): 2,
        lambda: vacuum_state(found(model.store), grace_s=0): 1,
        lambda: found(model.store).fold(at_least=1): 2,
        model.forget: 1,
    }
    for number in range(22):
        model.rng.choices(list(steps), weights=list(steps.values()))[0]()
        if number % 4 == 3:
            model.check()
    model.check()
