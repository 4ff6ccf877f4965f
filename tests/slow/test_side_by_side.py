"""All commands at once on one table, with random kills: no traceback, no false word, no lost row.

    python -m pytest -m slow tests/slow/test_side_by_side.py        # a minute
    python tests/slow/test_side_by_side.py --seconds 600 --seed 7   # ten
    python tests/slow/test_side_by_side.py --seconds 1200 --kills 1000 --kill-share 0.8

Each command is a fork of this process, so that many come and go in a second. Kills are SIGKILL at a
random moment of the time that the command usually takes, or the end at a random fail-point of those
that it passes. A reader may never see fewer images than an earlier one, but for those forgotten; in
the end the table equals one on which nothing of this was done, and so do the two merged with a
third. ``engine run`` and ``engine retry`` are runs of the local engine, with its slot, its child
process and models that say what the table's test data say.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import sys
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401  here, so that forks need not
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.support.fast_folder import fast_folder
from tests.support.table_data import found, make_item, make_items, table_rows
from tests.support.table_job import engine_config, engine_parts, job, retry_job
from textspot_ray.cli import main
from textspot_ray.engine.run import exit_code, retry, run
from textspot_ray.errors import ExitCode, TextspotError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables import failpoints
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.merge import merge
from textspot_ray.tables.maintenance.vacuum import clean
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan

ITEMS = 400
AT_ONCE = 4
# What a command may end with when others are in its way; each says so in one line.
BUSY = re.compile(r"other drivers keep|was rewritten while|a running job keeps changing|run again")
ENDED_BY_US = (-signal.SIGKILL, failpoints.EXIT_STATUS)
OTHERS = make_items(40, start=100_000)  # of the table that is merged with ours
COMMITS = ("before_parts", "between_parts", "before_marker", "after_marker")
FOLDS = ("before_snapshot", "after_snapshot", "before_delete")
PASSED: dict[str, tuple[str, ...]] = {
    "run": ("before_segment", "after_segment", *COMMITS, *FOLDS),
    "engine run": ("before_segment", "after_segment", *COMMITS, *FOLDS),
    "retry-failed": (*COMMITS, *FOLDS),
    "engine retry": (*COMMITS, *FOLDS),
    "compact": ("compact_parts", *FOLDS),
    "forget": ("between_parts", *FOLDS),
    "clean": ("before_delete",),
    "merge": ("compact_parts", "table", "before_snapshot", "after_snapshot"),
}


def as_command(action: Callable[[], int | None]) -> int:
    """What the front desk does with a fault."""
    try:
        return int(action() or ExitCode.OK)
    except TextspotError as exc:
        print(f"textspot: {exc}", file=sys.stderr)
        for frame in traceback.extract_tb(exc.__traceback__):
            print(f"  at {frame.filename}:{frame.lineno} {frame.name}", file=sys.stderr)
        return exc.exit_code


@dataclass
class Process:
    name: str
    pid: int
    log: Path
    began: float
    kill_at: float | None
    forgot: frozenset[str] = frozenset()
    floor: int = 0
    point: str = ""
    merged: Path | None = None


@dataclass
class Table:
    """The orchestra."""

    uri: str
    logs: Path
    rng: random.Random
    other: str = ""
    items: int = ITEMS
    ends: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)  # at which commands ended by us
    forgotten: set[str] = field(default_factory=set)  # asked for, done or not
    seen: int = 0  # images that some reader has counted
    planned: int = 40
    kill_share: float = 0.3
    most_kills: int = 1 << 30
    running: list[Process] = field(default_factory=list)
    killed_merges: list[Path] = field(default_factory=list)
    took_s: dict[str, deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque([1.0], maxlen=20))
    )

    @property
    def kills(self) -> int:
        """How many commands did not come to their end."""
        return sum(n for end, n in self.ends.items() if int(end.split()[-1]) in ENDED_BY_US)

    def play(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        began = time.monotonic()
        try:
            self._play(began, end, seconds)
        finally:
            for process in self.running:
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)

    def _play(self, began: float, end: float, seconds: float) -> None:
        while time.monotonic() < end and self.kills < self.most_kills:
            share = max((time.monotonic() - began) / seconds, self.kills / self.most_kills)
            self.planned = max(self.planned, int(self.items * min(1.0, 1.2 * share)))
            while len(self.running) < AT_ONCE:
                self.running.append(self.start())
            self.look()
            time.sleep(0.005)
        for process in self.running:
            process.kill_at = None
        while self.running:
            self.look()
            time.sleep(0.01)

    def start(self) -> Process:
        name = self.rng.choices(list(ACTIONS), WEIGHTS)[0]
        kill_at, point = None, None
        if self.rng.random() < self.kill_share:
            if name not in PASSED or self.rng.random() < 0.5:
                usual_s = statistics.median(self.took_s[name])
                kill_at = time.monotonic() + self.rng.uniform(0.0, usual_s)
            else:
                point = f"{self.rng.choice(PASSED[name])}:{self.rng.choice((1, 1, 1, 2, 3))}"
        forgot = frozenset[str]()
        merged = None
        if name == "merge":
            merged = self.logs / f"merged-{time.monotonic_ns()}"
            if self.killed_merges:
                merged = self.killed_merges.pop()
        if name == "forget":
            number = self.rng.randrange(3, self.planned, 6)
            forgot = frozenset({make_item(number).image_id})
            self.forgotten |= forgot
        log = self.logs / f"{sum(self.ends.values())}-{time.monotonic_ns()}-{name}.log"
        floor = self.seen - len(self.forgotten) * 3  # an item has up to three pages
        seed = self.rng.random()
        log.touch()
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                with log.open("wb") as file:
                    if point is not None:
                        os.environ[failpoints.VARIABLE] = point
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                    try:
                        argument = forgot if merged is None else merged
                        status = int(ACTIONS[name](self, random.Random(seed), argument))
                    except SystemExit as exc:
                        status = int(exc.code or 0)
                    except BaseException:
                        traceback.print_exc()
                    sys.stdout.flush()
                    sys.stderr.flush()
            finally:
                os._exit(status)
        began = time.monotonic()
        return Process(name, pid, log, began, kill_at, forgot, floor, point or "", merged)

    def look(self) -> None:
        for process in list(self.running):
            if process.kill_at is not None and time.monotonic() > process.kill_at:
                os.kill(process.pid, signal.SIGKILL)
                process.kill_at = None
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                self.running.remove(process)
                self.judge(process, os.waitstatus_to_exitcode(status))

    def judge(self, process: Process, code: int) -> None:
        said = process.log.read_text(errors="replace")
        self.ends[f"{process.name}: {code}"] += 1
        where = f"{process.name} ended with {code}: {said[-3000:]}"
        assert "Traceback" not in said, where
        assert "internal error" not in said, where
        assert "missing though" not in said, where
        assert "NOT SOUND" not in said, where
        allowed = {*ENDED_BY_US, ExitCode.OK, ExitCode.NO_MATCH}
        if process.name.startswith("engine"):
            allowed.add(ExitCode.FAILED_IMAGES)
        if code not in allowed:
            assert code == ExitCode.ABORTED and BUSY.search(said), where
        if process.name == "query" and code == ExitCode.OK:
            images = int(said.split()[-1])
            assert images >= process.floor, f"{images} images, {process.floor} were there: {said}"
            self.seen = max(self.seen, images)
        if code in ENDED_BY_US:
            self.points[process.point or "SIGKILL"] += 1
        elif not process.point and process.kill_at is None:
            self.took_s[process.name].append(time.monotonic() - process.began)
        if process.merged is not None:
            if code in ENDED_BY_US:
                self.killed_merges.append(process.merged)
            else:
                shutil.rmtree(process.merged, ignore_errors=True)
        process.log.unlink()


def _run(table: Table, rng: random.Random, _: object) -> int:
    return as_command(lambda: job(table.uri, make_items(table.planned), fold_at=rng.randint(1, 6)))


def _engine_run(table: Table, rng: random.Random, _: object) -> int:
    parts = engine_parts(table.planned, fail=None)
    return as_command(lambda: exit_code(run(engine_config(table.uri), parts=parts)))


def _engine_retry(table: Table, rng: random.Random, _: object) -> int:
    parts = engine_parts(table.planned, fail=False)
    return as_command(lambda: exit_code(retry(engine_config(table.uri), parts=parts)))


def _merge(table: Table, rng: random.Random, out: Path) -> int:
    """Into an empty folder, or one that a killed merge has left; what counts there is right."""
    done = (out / "_textspot" / "table.json").exists()
    if done:
        assert main(["verify", str(out), "--deep"]) == ExitCode.OK
    code = main(["merge", table.uri, table.other, "--out", str(out)])
    if code == ExitCode.USAGE and done:
        return ExitCode.OK  # it was killed after its end, and our table has changed since
    return main(["verify", str(out), "--deep"]) if code == ExitCode.OK else code


def _command(*arguments: str) -> Callable[[Table, random.Random, Any], int]:
    return lambda table, rng, _: main([arguments[0], table.uri, *arguments[1:]])


ACTIONS: dict[str, Callable[[Table, random.Random, Any], int]] = {
    "run": _run,
    "engine run": _engine_run,
    "engine retry": _engine_retry,
    "merge": _merge,
    "retry-failed": lambda table, rng, _: as_command(lambda: retry_job(table.uri)),
    "compact": lambda table, rng, _: main(
        ["compact", table.uri, "--grace", rng.choice("05"), "--rows-per-file",
         rng.choice(["100", "1000", "100000"])]
    ),
    "forget": lambda table, rng, ids: main(["forget", table.uri, "-y", "--image", *ids]),
    "clean": lambda table, rng, _: main(["clean", table.uri, "--grace", rng.choice("05")]),
    "query": _command("query", "SELECT count(*) AS n FROM images", "--format", "csv"),
    "search": _command("search", "a", "--prefix"),
    "stats": _command("stats"),
    "status": _command("status"),
    "errors": _command("errors"),
    "verify": _command("verify", "--deep"),
}  # fmt: skip


WEIGHTS = [3 if name in PASSED or name == "query" else 1 for name in ACTIONS]


def play(
    folder: Path,
    seconds: float,
    seed: int,
    kill_share: float = 0.3,
    most_kills: int = 1 << 30,
    items: int = ITEMS,
) -> Table:
    uri, plain, other = (str(folder / name) for name in ("out", "plain", "other"))
    (folder / "logs").mkdir()
    child = os.fork()  # threads of Arrow's do not outlive a fork: this process reads no table yet
    if child == 0:
        job(uri, make_items(40))
        job(other, OTHERS)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    table = Table(
        uri,
        folder / "logs",
        random.Random(seed),
        other,
        items,
        kill_share=kill_share,
        most_kills=most_kills,
    )
    table.play(seconds)
    for half in table.killed_merges:
        shutil.rmtree(half, ignore_errors=True)
    for one in (uri, plain):
        store = open_store(one, create=True)
        for _ in range(3):
            job(one, make_items(items))
            retry_job(one)
        forget(found(store), Plan(store), table.forgotten)
    store = open_store(uri)
    compact(found(store))
    clean(found(store), older_than_s=-1, grace_s=0)
    report = verify(found(store), Plan(store), deep=True)
    assert report.sound and not report.findings, report.findings
    rows = table_rows(store)
    assert rows == table_rows(open_store(plain))
    merges = []
    for one in (uri, plain):
        out = open_store(f"{one}-merged", create=True)
        merge(found(open_store(one)), found(open_store(other)), out)
        report = verify(found(out), Plan(out), deep=True)
        assert report.sound and not report.findings, report.findings
        merges.append(table_rows(out))
    assert merges[0] == merges[1]
    assert len(merges[0]["images"]) > len(rows["images"])
    return table


@pytest.mark.slow
def test_commands_beside_each_other(tmp_path: Path) -> None:
    table = play(tmp_path, float(os.environ.get("TEXTSPOT_TEST_SECONDS", "60")), seed=1)
    for name in ACTIONS:
        assert any(end.startswith(f"{name}:") for end in table.ends), f"{name} never ran"
    assert table.kills > 5


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=1 << 30, help="stop after so many")
    parser.add_argument("--kill-share", type=float, default=0.3, help="of the commands")
    parser.add_argument("--items", type=int, default=ITEMS, help="that are planned bit by bit")
    args = parser.parse_args()
    with fast_folder() as folder:
        table = play(folder, args.seconds, args.seed, args.kill_share, args.kills, args.items)
    for title, counted in (("ends", table.ends), ("killed at", table.points)):
        print(f"{title}:")
        for name, n in sorted(counted.items()):
            print(f"{n:6d} {name}")
    print(f"{sum(table.ends.values())} commands, of which {table.kills} were killed")
    print("0 rows lost, 0 doubled, 0 other than undisturbed; verify sound")
