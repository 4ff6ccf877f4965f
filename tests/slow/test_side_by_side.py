"""All commands at once on one table, with random kills: no traceback, no false word, no lost row.

    python -m pytest -m slow tests/slow/test_side_by_side.py        # a minute
    python tests/slow/test_side_by_side.py --seconds 600 --seed 7   # ten
    python tests/slow/test_side_by_side.py --seconds 1200 --kills 1000 --kill-share 0.8

Each command is a fork of this process, so that many come and go in a second. Kills are SIGKILL at a
random moment, or the end at a random fail-point of the commit protocol. A reader may never see
fewer images than an earlier one, but for those forgotten; in the end the table equals one on which
nothing of this was done.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb  # noqa: F401  here, so that forks need not
import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.support.table_data import found, make_item, make_items, table_rows
from tests.support.table_job import job, retry_job
from textspot_ray.cli import main
from textspot_ray.errors import ExitCode, TextspotError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables import failpoints
from textspot_ray.tables.maintenance.compact import compact
from textspot_ray.tables.maintenance.forget import forget
from textspot_ray.tables.maintenance.vacuum import clean
from textspot_ray.tables.maintenance.verify import verify
from textspot_ray.tables.plan.plan import Plan

ITEMS = 400
FORGOTTEN = (*range(3, 40, 6), *range(60, ITEMS, 41))
AT_ONCE = 4
# What a command may end with when others are in its way; each says so in one line.
BUSY = re.compile(r"other drivers keep|was rewritten while|a running job keeps changing|run again")
ENDED_BY_US = (-signal.SIGKILL, failpoints.EXIT_STATUS)


def as_command(action: Callable[[], object]) -> int:
    """What the front desk does with a fault."""
    try:
        action()
    except TextspotError as exc:
        print(f"textspot: {exc}", file=sys.stderr)
        for frame in traceback.extract_tb(exc.__traceback__):
            print(f"  at {frame.filename}:{frame.lineno} {frame.name}", file=sys.stderr)
        return exc.exit_code
    return ExitCode.OK


@dataclass
class Process:
    name: str
    pid: int
    log: Path
    kill_at: float | None
    forgot: frozenset[str] = frozenset()
    floor: int = 0


@dataclass
class Table:
    """The orchestra."""

    uri: str
    logs: Path
    rng: random.Random
    ends: Counter[str] = field(default_factory=Counter)
    forgotten: set[str] = field(default_factory=set)  # asked for, done or not
    seen: int = 0  # images that some reader has counted
    planned: int = 40
    kill_share: float = 0.3
    most_kills: int = 1 << 30
    running: list[Process] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many commands did not come to their end."""
        return sum(n for end, n in self.ends.items() if int(end.split()[1]) in ENDED_BY_US)

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
            share = (time.monotonic() - began) / seconds
            self.planned = max(self.planned, int(ITEMS * min(1.0, 1.2 * share)))
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
            if self.rng.random() < 0.5:
                kill_at = time.monotonic() + self.rng.uniform(0.0, 1.0)
            else:
                point = f"{self.rng.choice(failpoints.POINTS)}:{self.rng.randint(1, 3)}"
        forgot = frozenset[str]()
        if name == "forget":
            forgot = frozenset({make_item(self.rng.choice(FORGOTTEN)).image_id})
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
                        status = int(ACTIONS[name](self, random.Random(seed), forgot))
                    except SystemExit as exc:
                        status = int(exc.code or 0)
                    except BaseException:
                        traceback.print_exc()
                    sys.stdout.flush()
                    sys.stderr.flush()
            finally:
                os._exit(status)
        return Process(name, pid, log, kill_at, forgot, floor)

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
        self.ends[f"{process.name} {code}"] += 1
        where = f"{process.name} ended with {code}: {said[-3000:]}"
        assert "Traceback" not in said, where
        assert "missing though" not in said, where
        assert "NOT SOUND" not in said, where
        allowed = {*ENDED_BY_US, ExitCode.OK, ExitCode.NO_MATCH}
        if code not in allowed:
            assert code == ExitCode.ABORTED and BUSY.search(said), where
        if process.name == "query" and code == ExitCode.OK:
            images = int(said.split()[-1])
            assert images >= process.floor, f"{images} images, {process.floor} were there: {said}"
            self.seen = max(self.seen, images)
        process.log.unlink()


def _run(table: Table, rng: random.Random, _: frozenset[str]) -> int:
    return as_command(lambda: job(table.uri, make_items(table.planned), fold_at=rng.randint(1, 6)))


def _command(*arguments: str) -> Callable[[Table, random.Random, frozenset[str]], int]:
    return lambda table, rng, _: main([arguments[0], table.uri, *arguments[1:]])


ACTIONS: dict[str, Callable[[Table, random.Random, frozenset[str]], int]] = {
    "run": _run,
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


WEIGHTS = [
    3 if name in ("run", "retry-failed", "compact", "forget", "query") else 1 for name in ACTIONS
]


def play(
    folder: Path, seconds: float, seed: int, kill_share: float = 0.3, most_kills: int = 1 << 30
) -> Counter[str]:
    uri, plain = str(folder / "out"), str(folder / "plain")
    (folder / "logs").mkdir()
    child = os.fork()  # threads of Arrow's do not outlive a fork: this process reads no table yet
    if child == 0:
        job(uri, make_items(40))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    table = Table(
        uri, folder / "logs", random.Random(seed), kill_share=kill_share, most_kills=most_kills
    )
    table.play(seconds)
    for one in (uri, plain):
        store = open_store(one, create=True)
        for _ in range(3):
            job(one, make_items(ITEMS))
            retry_job(one)
        forget(found(store), Plan(store), table.forgotten)
    store = open_store(uri)
    compact(found(store))
    clean(found(store), older_than_s=-1, grace_s=0)
    report = verify(found(store), Plan(store), deep=True)
    assert report.sound and not report.findings, report.findings
    assert table_rows(store) == table_rows(open_store(plain))
    return table.ends


@pytest.mark.slow
def test_commands_beside_each_other(tmp_path):
    ends = play(tmp_path, float(os.environ.get("TEXTSPOT_TEST_SECONDS", "60")), seed=1)
    for name in ACTIONS:
        assert any(end.startswith(f"{name} ") for end in ends), f"{name} never ran"
    assert sum(n for end, n in ends.items() if int(end.split()[1]) in ENDED_BY_US) > 5


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=1 << 30, help="stop after so many")
    parser.add_argument("--kill-share", type=float, default=0.3, help="of the commands")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends = play(Path(folder), args.seconds, args.seed, args.kill_share, args.kills)
    for end, n in sorted(ends.items()):
        print(f"{n:6d} {end}")
    print(f"{sum(n for end, n in ends.items() if int(end.split()[1]) in ENDED_BY_US):6d} killed")
