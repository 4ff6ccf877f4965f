"""A bad day on a cluster, shortened: tables must come out as if nothing had happened.

    python tests/slow/soak.py --minutes 30 --work /tmp/soak --report /tmp/soak/report.json

A Ray cluster of three worker nodes on this machine spots stub images from an S3 emulator behind a
proxy that fails (`tests/support/fault_proxy.py`), into a table of each model family at once.
Meanwhile, by a seeded plan, nodes are killed, terminated or drained and others added, actors are
killed, drivers are killed or terminated and started again, a second driver joins, and `compact`,
`query` and `verify` work on the same tables, some of them killed, too. New images come while it
goes on. At the end, the tables must equal those of an undisturbed run of the in-process engine,
straight on the emulator, and no command may have shown a traceback or fewer images than before.

Needs the extra ``cloud-test``. It costs about half a core; `--sleep-s` is the brake.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.support.soak_parts import (
    HEIGHT,
    WIDTH,
    batch,
    python_path,
    soak_parts,
)
from textspot_ray.commands.table_options import OPTIONS_VARIABLE
from textspot_ray.config import RunConfig, config_from_dict
from textspot_ray.engine.run import exit_code, run
from textspot_ray.errors import TextspotError
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.driver_status import fold_statuses, read_statuses
from textspot_ray.tables.open import open_tables

NODES = 3
_VARIES = ("read_s", "decode_s", "detect_s", "recognise_s", "attempts", "run_id", "shard")
# What happens, and how often among happenings.
HAPPENINGS = {
    "kill node": 5,
    "terminate node": 3,
    "drain node": 4,
    "kill actor": 6,
    "kill driver": 4,
    "terminate driver": 2,
    "second driver": 3,
    "compact": 5,
    "compact, killed": 4,
    "query": 5,
    "verify": 2,
}
# What a command may end with when a run is in its way; each says so in one line.
BUSY = re.compile(r"other drivers keep|was rewritten while|a running job keeps changing|run again")


def storage_options(url: str) -> dict[str, Any]:
    return {"s3": {"endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}}}


def configure(args: argparse.Namespace) -> RunConfig:
    options = storage_options(args.endpoint)
    engine: dict[str, Any] = {"kind": "local"}
    if args.address:
        engine = {"kind": "ray", "address": args.address, "status_s": 5.0, "slots": 2}
        if args.second:
            engine.update(slots=1, cpus_per_slot=1.0)  # what the first ones leave
    return config_from_dict(
        {
            "source": {"uris": [args.source], "storage_options": options},
            "image": {"tiles": "off"},
            "model": {"name": args.bundle},
            "engine": {"cpus_per_slot": 2.0, **engine, "threads": 1, "pending_timeout_s": 180.0,
                       "start_timeout_s": 300.0},
            "output": {"uri": args.out, "storage_options": options, "max_shard_items": 64},
        }
    )  # fmt: skip


def drive(args: argparse.Namespace) -> int:
    """The driver: what `textspot run` does, with the brake in the models."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    config = configure(args)
    try:
        report = run(config, parts=soak_parts(config, args.sleep_s))
    except TextspotError as exc:
        print(f"textspot: {exc}", flush=True)
        return exc.exit_code
    print(f"report {report.run_counts.images} of {report.counts.images}", flush=True)
    return exit_code(report)


@dataclass
class SoakTable:
    """One table, its photos, and what is known of it."""

    family: str
    bundle: Path
    batches: int = 0
    images: int = 0
    counted: int = 0  # images that some query has seen
    whole: bool = False  # whether a driver has found nothing more to do

    @property
    def out(self) -> str:
        return f"s3://soak/{self.family}-table"

    @property
    def reference(self) -> str:
        return f"s3://soak/{self.family}-reference"

    @property
    def photos(self) -> str:
        return f"s3://soak/{self.family}-photos"


@dataclass
class Driver:
    table: SoakTable
    process: subprocess.Popen[bytes]
    log: Path
    second: bool
    ended_by_us: str = ""


@dataclass
class Command:
    table: SoakTable
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    floor: int
    kill_at: float | None


@dataclass
class Soak:
    """The orchestra and its report."""

    args: argparse.Namespace
    rng: random.Random
    work: Path
    env: dict[str, str]
    report: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    tables: list[SoakTable] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # what a command should not have said
    driver_mib: list[tuple[float, float]] = field(default_factory=list)
    silent_s: float = 0.0

    def start(self) -> None:
        """Emulator, proxy, cluster, first images."""
        self.began = time.monotonic()
        moto = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1"]
        self.moto = self._spawn([*moto, "-p", str(self.args.port)], "moto")
        self.direct = f"http://127.0.0.1:{self.args.port}"
        self._wait_for_port(self.args.port)
        proxy = [sys.executable, "-m", "tests.support.fault_proxy"]
        proxy += ["--upstream", f"127.0.0.1:{self.args.port}", "--seed", str(self.args.seed)]
        proxy += ["--listen", f"127.0.0.1:{self.args.port + 1}"]
        self.proxy = self._spawn([*proxy, "--counts", str(self.work / "faults.json")], "proxy")
        self.faulty = f"http://127.0.0.1:{self.args.port + 1}"
        self._wait_for_port(self.args.port + 1)
        import s3fs

        self.s3 = s3fs.S3FileSystem(**storage_options(self.direct)["s3"])
        self.s3.call_s3("create_bucket", Bucket="soak")
        from tests.support.bundles import make_stub_bundle
        from tests.support.lines_bundle import write_lines_bundle

        spotting = make_stub_bundle(self.work / "spotting", height=HEIGHT, width=WIDTH)
        lines = write_lines_bundle(self.work / "lines")
        self.tables = [SoakTable("spotting", spotting), SoakTable("lines", lines)]
        for table in self.tables:
            self.add_images(table)
        from ray.cluster_utils import Cluster

        from tests.support.ray_nodes import start_patiently

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
        self.cluster = start_patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.nodes: list[Any] = []
        while len(self.nodes) < NODES:
            self.add_node()

    def add_images(self, table: SoakTable) -> None:
        count = self.args.batch
        for path, data in batch(table.batches, count, table.family).items():
            self.s3.pipe_file(f"{table.photos.removeprefix('s3://')}/{path}", data)
        table.batches += 1
        table.whole = False
        table.images += count

    def add_node(self) -> None:
        from tests.support.ray_nodes import add_node

        self.nodes.append(add_node(self.cluster, cpus=4))

    def start_driver(self, table: SoakTable, second: bool = False) -> None:
        log = self.work / f"driver-{len(self.events):03d}-{table.family}.log"
        command = [sys.executable, __file__, "--driver", "--address", self.cluster.address]
        command += ["--endpoint", self.faulty, "--out", table.out, "--source", table.photos]
        command += ["--bundle", str(table.bundle), "--sleep-s", str(self.args.sleep_s)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, *(["--second"] if second else [])], env=self.env, stdout=out, stderr=out
            )
        self.drivers.append(Driver(table, process, log, second))
        self.note("driver starts" if not second else "second driver starts", table=table.family)

    def start_command(self, name: str) -> None:
        """`compact`, `query` or `verify`, as typed, on one of the tables."""
        table = self.rng.choice(self.tables)
        kill_at = None
        if name.endswith(", killed"):
            name, kill_at = name.removesuffix(", killed"), time.monotonic() + self.rng.uniform(2, 9)
        arguments = {
            "compact": ["--rows-per-file", self.rng.choice(["500", "5000", "100000"])],
            "query": ["SELECT count(*) AS n FROM images", "--format", "csv"],
            "verify": [],
        }[name]
        log = self.work / f"command-{len(self.events):03d}-{name}.log"
        command = [sys.executable, "-m", "textspot_ray", name, table.out, *arguments]
        env = {**self.env, OPTIONS_VARIABLE: json.dumps(storage_options(self.faulty))}
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        self.commands.append(Command(table, name, process, log, table.counted, kill_at))

    def look_at_commands(self) -> None:
        for command in list(self.commands):
            if command.kill_at is not None and time.monotonic() > command.kill_at:
                command.process.kill()
                command.kill_at = None
            status = command.process.poll()
            if status is None:
                continue
            self.commands.remove(command)
            self.ends[f"{command.name}: {status}"] += 1
            said = command.log.read_text(errors="replace").strip()
            last = said.splitlines()[-1:] or [""]
            table, name = command.table, command.name
            self.note(f"{name} ended", status=status, table=table.family, last=last[0][:300])
            fine = status in (0, -9) or (status == 5 and BUSY.search(said))
            if "is not a textspot table" in said and not table.counted:
                fine = True  # nothing is committed yet
            if not fine or "Traceback" in said or "missing though" in said:
                self.wrong.append(f"{name} of {table.family}, {status}: {said[-2000:]}")
            if name == "query" and status == 0:
                count = int(last[0])
                if count < command.floor:
                    self.wrong.append(f"{table.family}: {count} images, {command.floor} before")
                table.counted = max(table.counted, count)

    def note(self, what: str, **more: Any) -> None:
        self.events.append({"at_s": round(time.monotonic() - self.began, 1), "what": what, **more})
        print(json.dumps(self.events[-1]), flush=True)

    def work_until(self, end_s: float) -> None:
        """Things happen until then; afterwards only the faults of storage go on."""
        calm = self.args.calm_s
        next_s = time.monotonic() + self.rng.uniform(0.5, 1.5) * calm
        refill_s: list[float] = []
        while True:
            now = time.monotonic()
            self.look(end_s)
            self.look_at_commands()
            whole = all(table.whole for table in self.tables)
            if now >= end_s and whole and not self.drivers and not self.commands:
                return
            if now - end_s > self.args.patience_s:
                raise SystemExit("the last driver does not come to its end")
            for table in self.tables:
                firsts = [d for d in self.drivers if d.table is table and not d.second]
                if not table.whole and not firsts:
                    self.start_driver(table)
            if now < end_s and now >= next_s:
                next_s = now + self.rng.uniform(0.5, 1.5) * calm
                self.happen(self.rng.choices(list(HAPPENINGS), list(HAPPENINGS.values()))[0])
                refill_s.append(now + self.rng.uniform(5, 40))
            if refill_s and now >= refill_s[0]:
                refill_s.pop(0)
                if len(self.nodes) < NODES:
                    try:
                        self.add_node()
                        self.note("node added")
                    except Exception as exc:  # a machine so busy that Ray gives its start up
                        self.note("node not added", reason=str(exc)[:80])
                        refill_s.append(now + 30)
            time.sleep(1.0)

    def look(self, end_s: float) -> None:
        """Drivers that ended, nodes that ended, figures."""
        now = time.monotonic()
        for driver in list(self.drivers):
            status = driver.process.poll()
            if status is None:
                continue
            self.drivers.remove(driver)
            last = driver.log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            self.ends[f"{driver.ended_by_us or 'by itself'}: {status}"] += 1
            self.note(
                "driver ended", status=status, by=driver.ended_by_us, last=last[0][:300],
                table=driver.table.family,
            )  # fmt: skip
            if not driver.ended_by_us and "Traceback" in driver.log.read_text(errors="replace"):
                self.wrong.append(f"{driver.log.name}: a traceback")
            done = not driver.ended_by_us and not driver.second and status in (0, 3)
            if done:
                driver.table.whole = True
                if now < end_s - 60:
                    self.add_images(driver.table)
        self.nodes = [node for node in self.nodes if _lives(node)]
        if now - getattr(self, "_sampled", 0) > 10:
            self._sampled = now
            for driver in self.drivers[:1]:
                mib = _uss_mib(driver.process.pid)
                if mib:
                    self.driver_mib.append((round(now - self.began), mib))
            for table in self.tables:
                seen = read_statuses(open_store(table.out, storage_options(self.direct)))
                live = fold_statuses(seen)
                if live.drivers:
                    self.silent_s = max(self.silent_s, min(one.age_s for one in seen if one.live))
                self.report["status_seen"] = self.report.get("status_seen", 0) + bool(live.drivers)

    def happen(self, what: str) -> None:
        firsts = [d for d in self.drivers if not d.second and not d.ended_by_us]
        first = self.rng.choice(firsts) if firsts else None
        if what.endswith(" node"):
            if len(self.nodes) < 2:
                return
            node = self.rng.choice(self.nodes)
            self.note(what, node=node.node_id[:8])
            raylet = _raylet(node)
            if raylet is None:
                return
            if what == "kill node":
                _kill_tree(raylet)
            elif what == "terminate node":
                raylet.terminate()
            else:
                subprocess.run(
                    [sys.executable, "-c", _LEAVE, node.node_id, self.cluster.address,
                     str(raylet.pid)],
                    env=self.env, timeout=120, check=False,
                )  # fmt: skip
        elif what == "kill actor":
            actors = _actors()
            if actors:
                actor = self.rng.choice(actors)
                self.note(what, name=actor.cmdline()[0])
                actor.kill()
        elif what == "second driver":
            if not any(driver.second for driver in self.drivers):
                self.start_driver(self.rng.choice(self.tables), second=True)
        elif what.removesuffix(", killed") in ("compact", "query", "verify"):
            self.note(what)
            self.start_command(what)
        elif first is not None:
            self.note(what, table=first.table.family)
            first.ended_by_us = what
            (first.process.kill if what == "kill driver" else first.process.terminate)()

    def finish(self) -> bool:
        """The undisturbed runs, the comparisons, the report."""
        self.cluster.shutdown()
        results = [self._compared(table) for table in self.tables]
        self.report.update(
            minutes=round((time.monotonic() - self.began) / 60, 1),
            seed=self.args.seed,
            tables=results,
            wrong=self.wrong,
            happenings=dict(Counter(e["what"] for e in self.events)),
            ends=dict(self.ends),
            requests=json.loads((self.work / "faults.json").read_text()),
            status_oldest_s=round(self.silent_s, 1),
            driver_uss_mib=self.driver_mib,
            events=self.events,
        )
        Path(self.args.report).write_text(json.dumps(self.report, indent=1))
        brief = {k: v for k, v in self.report.items() if k not in ("events", "driver_uss_mib")}
        print(json.dumps(brief, indent=1), flush=True)
        return not self.wrong and all(one["equal"] for one in results)

    def _compared(self, table: SoakTable) -> dict[str, Any]:
        reference = [sys.executable, __file__, "--driver", "--endpoint", self.direct]
        reference += ["--out", table.reference, "--source", table.photos]
        reference += ["--bundle", str(table.bundle)]
        with (self.work / f"{table.family}-reference.log").open("wb") as out:
            status = subprocess.call(reference, env=self.env, stdout=out, stderr=out)
        options = storage_options(self.direct)
        ours = {name: _rows(table.out, options, name) for name in ("images", "words", "errors")}
        wanted = {name: _rows(table.reference, options, name) for name in ours}
        ids = [Counter((r["image_id"], r["page"]) for r in t["images"]) for t in (ours, wanted)]
        verified = subprocess.run(
            [sys.executable, "-c", _VERIFY, table.out, self.direct],
            env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        differing = {name: _differing(ours[name], wanted[name]) for name in ours}
        return {
            "family": table.family,
            "images": table.images,
            "words": len(ours["words"]),
            "errors": dict(Counter(r["kind"] for r in ours["errors"])),
            "lost": len(ids[1].keys() - ids[0].keys()),
            "doubled": sum(n - 1 for n in ids[0].values()),
            "differing_rows": differing,
            "reference_status": status,
            "verify": verified.stdout.strip() or verified.stderr.strip()[-500:],
            "equal": not any(differing.values())
            and verified.returncode == 0
            and status in (0, 3)
            and len(ids[1]) >= table.images,
        }

    def stop(self) -> None:
        for one in (*self.drivers, *self.commands):
            one.process.kill()
        if hasattr(self, "cluster"):
            self.cluster.shutdown()
        for name in ("proxy", "moto"):
            if hasattr(self, name):
                getattr(self, name).terminate()

    def _spawn(self, command: list[str], name: str) -> subprocess.Popen[bytes]:
        with (self.work / f"{name}.log").open("wb") as out:
            return subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=out, stderr=out)

    def _wait_for_port(self, port: int) -> None:
        import socket

        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"nothing listens on {port}")


_LEAVE = """
import sys
from textspot_ray.deploy.pre_stop import WorkerNode, leave
leave([WorkerNode(sys.argv[1], sys.argv[2], int(sys.argv[3]))])
"""
_VERIFY = """
import sys
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.maintenance.verify import verify
options = {"s3": {"endpoint_url": sys.argv[2], "client_kwargs": {"region_name": "us-east-1"}}}
store = open_store(sys.argv[1], options)
plan = Plan(store)
plan.refresh()
report = verify(open_ledger(store, create=False), plan)
print("sound" if report.sound else report.findings)
sys.exit(not report.sound)
"""


def _lives(node: Any) -> bool:
    return _raylet(node) is not None


def _raylet(node: Any) -> psutil.Process | None:
    infos = node.all_processes.get("raylet", [])
    for info in infos:
        process = info.process
        if process.poll() is None:
            return psutil.Process(process.pid)
    return None


def _kill_tree(process: psutil.Process) -> None:
    """As when a machine is switched off."""
    for one in [process, *process.children(recursive=True)]:
        try:
            one.kill()
        except psutil.Error:
            continue


def _actors() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("Actor" in word and word.startswith("ray::") for word in process.cmdline()[:1]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _uss_mib(pid: int) -> float:
    try:
        return round(psutil.Process(pid).memory_full_info().uss / 2**20, 1)
    except psutil.Error:
        return 0.0


def _rows(out: str, options: dict[str, Any], table: str) -> list[dict[str, Any]]:
    rows = open_tables(out, options).read(table).to_pylist()
    for row in rows:
        for name in _VARIES:
            row.pop(name, None)
        if row.get("kind") in ("crashed", "stalled"):
            # Engines name the process by their own words, and an abort may hang in its handler.
            row.update(kind="ended its process", message="")
    return sorted(rows, key=lambda r: (r["image_id"], r.get("page", 0), r.get("word_index", 0)))


def _differing(ours: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> int:
    """Rows that are not the same; each missing or surplus one counts."""
    pairs = sum(a != b for a, b in zip(ours, wanted, strict=False))
    for a, b in [(a, b) for a, b in zip(ours, wanted, strict=False) if a != b][:3]:
        print("differs:", a, b, sep="\n  ", flush=True)
    return pairs + abs(len(ours) - len(wanted))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("/tmp/textspot-soak"))
    parser.add_argument("--report", default="")
    parser.add_argument("--port", type=int, default=5610)
    parser.add_argument("--batch", type=int, default=1000, help="images added at a time")
    parser.add_argument("--sleep-s", type=float, default=0.0, help="brake, seconds an image")
    parser.add_argument("--calm-s", type=float, default=25.0, help="mean time between happenings")
    parser.add_argument("--patience-s", type=float, default=900.0)
    for hidden in ("--address", "--endpoint", "--source", "--out", "--bundle"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    for hidden in ("--driver", "--second"):
        parser.add_argument(hidden, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.driver:
        return drive(args)
    args.work.mkdir(parents=True, exist_ok=True)
    args.report = args.report or str(args.work / "report.json")
    os.environ.update(
        AWS_ACCESS_KEY_ID="soak",
        AWS_SECRET_ACCESS_KEY="soak",
        RAY_USAGE_STATS_ENABLED="0",
        PYTHONPATH=python_path(ROOT),
    )
    os.environ.pop("RAY_ADDRESS", None)
    soak = Soak(args, random.Random(args.seed), args.work, dict(os.environ))
    try:
        soak.start()
        soak.work_until(time.monotonic() + 60 * args.minutes)
        equal = soak.finish()
    finally:
        soak.stop()
    print("the tables are equal to the undisturbed run's" if equal else "NOT EQUAL", flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
