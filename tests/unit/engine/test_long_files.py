"""Several slots at one long file: an engine of slots in one thread, in which any may be lost."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.inprocess import ActedWorker, Bench, ListReader, make_shard
from tests.support.scripted import scripted_config, scripted_parts, write_images
from textspot_ray.engine.control import Control
from textspot_ray.engine.progress import OnProgress, Progress
from textspot_ray.engine.run import run
from textspot_ray.engine.sizing import Threads
from textspot_ray.engine.slot.done_pages import BLOCK_PAGES, DonePages
from textspot_ray.engine.slot.slot import Report, Slot
from textspot_ray.records import Counts, Encoded, RunReport
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import PAGES
from textspot_ray.tables.open import open_tables
from textspot_ray.tables.plan.plan import Task

PAGES_IN_FILE = 330
N_PAGES = PAGES_IN_FILE + 1  # of both files
SCRIPTS = [f"words=a;pages={PAGES_IN_FILE}", "words=b"]


class Slots:
    """Stands for `run_local`, with several slots."""

    def __init__(self, count: int, after: Callable[[Slots, Report], None] | None = None) -> None:
        self.count = count
        self.after = after
        self.numbers = itertools.count()
        self.slots: dict[int, Slot] = {}
        self.workers: dict[int, ActedWorker] = {}
        self.owner = -1
        self.lost: list[int] = []

    def __call__(self, control: Control) -> None:
        self.control = control
        wants: dict[int, bool] = {}
        while True:
            coming = control.turn()
            if control.draining and not self.slots:
                break
            if not coming and not control.dispatch.busy:
                break
            while len(self.slots) < self.count and not control.draining:
                self.add(next(self.numbers))
            for number, slot in list(self.slots.items()):
                if number in self.lost:
                    continue
                draining = control.draining
                can = wants.get(number, True) and not draining
                task = control.dispatch.take(number) if can else None
                if task is not None and task.help_pages is None:
                    self.owner = number
                report = slot.step(
                    [task] if task is not None else [],
                    0.02,
                    more=not draining and control.dispatch.has_for(number),
                    drain=draining,
                )
                wants[number] = report.wants
                control.on_report(number, report)
                if draining and report.idle:
                    self.slots.pop(number).close()
                if self.after is not None:
                    self.after(self, report)
        for slot in self.slots.values():
            slot.close()

    def add(self, number: int) -> None:
        def make_workers(events):
            self.workers[number] = ActedWorker(events)
            return [self.workers[number]]

        self.slots[number] = Slot(self.control.job, make_workers, Threads(1, 1, 1))

    def lose(self, number: int) -> None:
        """As by a kill: nothing more is put or told."""
        self.slots.pop(number)
        self.workers[number].kill()
        self.lost.append(number)
        self.control.on_lost(number)

    @property
    def asked(self) -> dict[int, int]:
        """Pages each slot has detected; a page is asked for twice, for its boxes and its words."""
        return {number: len(worker.asked) // 2 for number, worker in self.workers.items()}


def run_in(folder: Path, slots: Slots, on_progress: OnProgress | None = None) -> RunReport:
    """Run on the files of a folder, with its ``out`` for the tables."""
    source = write_images(folder / "in", [f"{script};sleep=0.001" for script in SCRIPTS])
    config = scripted_config(folder / "out", min_deadline_s=60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textspot_ray.engine.local.run_local", slots)
        return run(config, parts=scripted_parts(source), on_progress=on_progress)


def stored_rows(folder: Path) -> dict[str, list]:
    """Rows as they lie in the files, without what varies."""
    found = {}
    for table in ("words", "images", "errors"):
        found[table] = open_tables(str(folder / "out")).read(table).to_pylist()
        for row in found[table]:
            row["image_id"] = row["image_id"].rpartition("/")[2]
            for name in ("source", "read_s", "decode_s", "detect_s", "recognise_s", "run_id"):
                row.pop(name, None)
    return found


def kept(folder: Path) -> list[str]:
    return [entry.path for entry in open_store(str(folder / "out")).list(PAGES)]


@pytest.fixture(scope="module")
def rows_of_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run_in(folder, alone := Slots(1))
    assert alone.asked == {0: N_PAGES}
    return stored_rows(folder)


def test_three_slots_share_a_file_and_the_table_is_that_of_one(tmp_path, rows_of_one):
    seen: list[Progress] = []
    slots = Slots(3)
    report = run_in(tmp_path, slots, seen.append)
    assert report.counts.images == report.run_counts.images == N_PAGES
    assert stored_rows(tmp_path) == rows_of_one
    assert all(pages >= 2 * BLOCK_PAGES for pages in slots.asked.values())
    assert sum(slots.asked.values()) <= N_PAGES + 2 * BLOCK_PAGES
    assert not kept(tmp_path)
    images = [progress.images for progress in seen]
    assert images == sorted(images) and images[-1] == N_PAGES


@pytest.mark.parametrize("who", ["helper", "owner"])
def test_a_lost_slot_costs_time_alone(tmp_path, rows_of_one, who):
    def lose(slots: Slots, report: Report) -> None:
        helped = [n for n, pages in slots.asked.items() if n != slots.owner and pages > 40]
        if helped and not slots.lost:
            slots.lose(slots.owner if who == "owner" else helped[0])

    slots = Slots(3, lose)
    report = run_in(tmp_path, slots)
    assert len(slots.lost) == 1 and len(slots.asked) == 4
    assert report.run_counts.images == N_PAGES
    assert stored_rows(tmp_path) == rows_of_one
    assert sum(slots.asked.values()) <= N_PAGES + 4 * BLOCK_PAGES
    assert not kept(tmp_path)


def test_a_run_that_is_stopped_keeps_what_helpers_have_done(tmp_path, rows_of_one):
    def stop(slots: Slots, report: Report) -> None:
        if sum(slots.asked.values()) > 200:
            slots.control.stop.signal = signal.SIGTERM

    slots = Slots(3, stop)
    report = run_in(tmp_path, slots)
    assert report.signal == signal.SIGTERM and kept(tmp_path)
    again = Slots(1)
    report = run_in(tmp_path, again)
    assert report.counts.images == N_PAGES and not kept(tmp_path)
    assert stored_rows(tmp_path) == rows_of_one
    assert sum(again.asked.values()) <= N_PAGES - 200 + BLOCK_PAGES


@pytest.mark.parametrize("what", ["changes", "goes"])
def test_a_file_that_changes_meanwhile_is_what_its_owner_read(tmp_path, rows_of_one, what):
    file = tmp_path / "in" / "0000.img"

    def change(slots: Slots, report: Report) -> None:
        if report.long_files and what == "changes":
            file.write_text(file.read_text().replace("words=a", "words=x"))
        elif report.long_files:
            file.unlink(missing_ok=True)

    slots = Slots(2, change)
    run_in(tmp_path, slots)
    assert stored_rows(tmp_path) == rows_of_one
    assert slots.asked[slots.owner] >= PAGES_IN_FILE


def test_what_is_put_after_the_commit_goes_with_the_end_of_the_run(tmp_path):
    late: dict[str, bytes] = {}
    store = open_store(str(tmp_path / "out"), create=True)

    def put_late(slots: Slots, report: Report) -> None:
        late.update({path: store.read(path) for path in kept(tmp_path)})
        if report.settled:
            for path, data in late.items():
                store.put(path, data)

    run_in(tmp_path, Slots(2, put_late))
    assert late and not kept(tmp_path)


def test_a_forgotten_file_is_not_helped_with(tmp_path):
    def ask(slots: Slots, report: Report) -> None:
        for file in report.long_files:
            task = Task(file.shard, 0, "run", 1, 1, only=("gone",), help_pages=(64, 96))
            slots.add(99)
            assert slots.slots[99].step([task], 0.0, more=False).idle
            slots.lose(99)

    slots = Slots(1, ask)
    assert run_in(tmp_path, slots).counts.images == N_PAGES
    assert slots.lost and slots.asked[99] == 0


def test_blocks_are_not_asked_for_while_the_file_is_read(tmp_path):
    class Waits(ListReader):
        def read(self, items):
            may_read.wait(20.0)
            yield from (replace(e, sha256="0") for e in super().read(items))

    may_read = threading.Event()
    bench = Bench(reader=Waits, min_deadline_s=60.0, start_timeout_s=60.0)
    store = open_store(str(tmp_path), create=True)
    shard = make_shard(["words=a;pages=400"])
    assert bench.runner.wants_shard
    for start in (320, 288):
        bench.runner.help(shard, DonePages(store, shard, "f"), range(start, start + BLOCK_PAGES))
        bench.runner.pump(0.0)
        assert not bench.runner.wants_shard
    may_read.set()
    assert not bench.finish() and bench.runner.open_counts == Counts()
    found = {block.start for block in bench.runner.take_helped()}
    bench.runner.close()
    assert found == {320, 288} and len(bench.workers[0].asked) == 2 * 2 * BLOCK_PAGES
    (item,) = shard.items
    done = DonePages(store, shard, "f").begin(Encoded(item, b"", sha256="0"), 288, 320)
    assert [result.page for result in done] == list(range(288, 320))
