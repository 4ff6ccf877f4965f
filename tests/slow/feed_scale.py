"""Feed a thousand slots from one driver, with Ray's transport replaced by a fake in this process.

    python tests/slow/feed_scale.py --slots 1000 --images 1000000 --out DIR

Plan, ledger, dispatcher, scheduler, progress and status file are the real ones. A fake slot
finishes a shard after as many reports as a real one would send in the time that a shard takes
(``--images-per-s`` of one slot), commits a record without parts, and answers at once: so the rate
that comes out is the driver's own limit, without Ray's share.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "slow")]

from plan_scale import FINGERPRINT, a_record, listing

from textspot_ray.config import config_from_dict
from textspot_ray.engine import run as engine
from textspot_ray.engine.components import Components
from textspot_ray.engine.ray import scheduler
from textspot_ray.engine.ray.cluster import Node
from textspot_ray.engine.slot.open_shards import ShardOutcome
from textspot_ray.engine.slot.slot import Recipe, Report
from textspot_ray.engine.slot.slot_metrics import PARTS, QUEUES, SlotMetrics
from textspot_ray.records import TIMED_STAGES, Counts
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import put_commit_record
from textspot_ray.tables.commit.ledger import fingerprint_digest

PER_NODE = 8


class Costs:
    """Seconds of what is the slots' work and not the driver's."""

    slots_s = 0.0


@dataclass(eq=False)
class FakeRef:
    """A call that has its answer."""

    value: Any


class FakeRunner:
    """A slot that works at a fixed rate, in steps."""

    def __init__(self, number: int, config: Any, images_per_s: float) -> None:
        self._node = f"node-{number // PER_NODE:04d}"
        self._store = open_store(config.output.uri)
        self._digest = fingerprint_digest(FINGERPRINT)
        self._tasks: deque[Any] = deque()
        self._done = 0.0
        self._images_per_s = images_per_s
        self.open = SimpleNamespace(remote=lambda: FakeRef(self._node))
        self.step = SimpleNamespace(remote=self._step)
        self.close = SimpleNamespace(remote=lambda: FakeRef(None))

    def _step(self, tasks: list[Any], timeout_s: float, more: bool, drain: bool) -> FakeRef:
        began = time.thread_time()
        self._tasks.extend(tasks)
        settled = []
        self._done += timeout_s * self._images_per_s
        if self._tasks and self._done >= self._tasks[0].items:
            task = self._tasks.popleft()
            self._done = 0.0
            record = a_record(task.shard, self._digest, task.items, time.time())
            put_commit_record(self._store, record)
            settled.append(ShardOutcome(task.shard, task.generation, record, record.counts))
        n = int(self._done)
        metrics = SlotMetrics(
            self._node,
            dict.fromkeys(TIMED_STAGES, 1.5),
            dict.fromkeys(QUEUES, 2),
            dict.fromkeys(PARTS, 2**28),
            {"image": 0, "storage": 1},
        )
        report = Report(
            tuple(settled),
            Counts(n, n, n, 0, 0, 12 * n, {"corrupt": n // 100}),
            wants=len(self._tasks) < 2,
            idle=not self._tasks,
            events=(),
            metrics=metrics,
        )
        Costs.slots_s += time.thread_time() - began
        return FakeRef(report)


class FakeRay:
    """What the scheduler uses of Ray."""

    def __init__(self, config: Any, images_per_s: float, ready: int) -> None:
        self._made = 0
        self._ready = ready
        self._at = 0
        self._config = config
        self._images_per_s = images_per_s

    def remote(self, _: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._make))

    def _make(self, *_: Any) -> FakeRunner:
        self._made += 1
        return FakeRunner(self._made - 1, self._config, self._images_per_s)

    def wait(
        self, refs: list[Any], num_returns: int = 1, timeout: float = 0, fetch_local: bool = True
    ) -> tuple[list[Any], list[Any]]:
        found = min(num_returns, self._ready)
        self._at = (self._at + found) % len(refs)
        turned = refs[self._at :] + refs[: self._at]  # each slot's turn comes
        return turned[:found], turned[found:]

    def get(self, ref: FakeRef, timeout: float = 0) -> Any:
        return ref.value

    def kill(self, *_: Any, **__: Any) -> None:
        pass

    def available_resources(self) -> dict[str, float]:
        return {}


class FakeCluster:
    """A cluster of as many nodes as the slots need."""

    def __init__(self, slots: int) -> None:
        self._nodes = [
            Node(f"node-{n:04d}", f"10.0.{n // 256}.{n % 256}", 8.0 * PER_NODE)
            for n in range(-(-slots // PER_NODE))
        ]

    def nodes(self) -> list[Node]:
        return self._nodes

    def leaving(self) -> frozenset[str]:
        return frozenset()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--images-per-s", type=float, default=2.5, help="of one slot")
    parser.add_argument("--ready", type=int, default=20, help="reports that are there at a turn")
    parser.add_argument("--out", required=True, metavar="DIR", help="an empty folder")
    args = parser.parse_args()
    config = config_from_dict({"output": {"uri": args.out}})
    scheduler.ray = FakeRay(config, args.images_per_s, args.ready)  # type: ignore[assignment]
    scheduler.placement_group = lambda bundles, *_, **__: SimpleNamespace(  # type: ignore[assignment]
        bundle_specs=bundles, wait=lambda _: True
    )
    scheduler.remove_placement_group = lambda _: None  # type: ignore[assignment]
    scheduler.in_group = lambda *_: {}  # type: ignore[assignment]
    turns = [0]

    def run_on_fake(control: Any) -> None:
        work = scheduler.Scheduler(control, FakeCluster(args.slots))  # type: ignore[arg-type]
        turn = control.turn

        def counted() -> bool:
            turns[0] += 1
            return bool(turn())

        control.turn = counted
        work.run()

    scheduler._GATHER_S = 0.0  # the fake is never waited for
    scheduler.run_on_ray = run_on_fake  # type: ignore[assignment]
    nothing: Any = None
    parts = Components(Recipe(nothing, nothing, nothing), FINGERPRINT, lambda: listing(args.images))
    # All is planned first: how long that takes is plan_scale.py's to tell.
    with contextlib.suppress(FileNotFoundError):
        from textspot_ray.tables.commit.ledger import open_ledger
        from textspot_ray.tables.plan.plan import Plan
        from textspot_ray.tables.plan.planner import update_plan

        store = open_store(args.out, create=True)
        open_ledger(store, FINGERPRINT)
        update_plan(Plan(store), listing(args.images), config.output, "feed")
    began, cpu = time.perf_counter(), time.process_time()
    report = engine.run(config, parts=parts)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    driver_s = cpu_s - Costs.slots_s
    print(
        f"{report.run_counts.images} images in {report.shards_done} shards by {args.slots} slots: "
        f"{driver_s:.1f} s of the driver's CPU (and {Costs.slots_s:.1f} s of fake slots'), "
        f"{wall_s:.1f} s by the wall, {turns[0]} turns: {report.run_counts.images / driver_s:.0f} "
        f"images/s at most; {report.shards_done / driver_s:.0f} shards/s"
    )
    assert report.run_counts.images == args.images


if __name__ == "__main__":
    main()
