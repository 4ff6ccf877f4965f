"""What an engine itself costs an image: CPU time by process, with models that do nothing.

    python -m jobs.bench.transport --engine ray --words 3 --kb 60

A detector rests for ``--ms`` in place of inference, so that images wait for it as in a real run. An
image is a file of so many kB in which so many words are found, with features of the published
size. What Ray's processes take while nothing is done is measured first and taken off: on a machine
that others keep busy that is guesswork.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from jobs.bench.single_slot import Steps, open_slot
from textspot_ray.config import config_from_dict
from textspot_ray.engine.components import Components
from textspot_ray.engine.slot.slot import Job, Recipe
from textspot_ray.records import (
    DetectedPage,
    Detection,
    Encoded,
    ImageResult,
    Item,
    PageInfo,
    Reading,
    Readings,
)
from textspot_ray.spotting.composite.contract import FEATURE_SHAPE
from textspot_ray.spotting.spotter import assemble as join
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.plan.plan import Plan, Task
from textspot_ray.tables.plan.planner import update_plan

SHARD, IDLE_S = 128, 10.0
NAMES = ("RunnerActor", "DetectorActor", "RecognizerActor", "local_child", "raylet/raylet",
         "gcs_server", "DashboardAgent", "RuntimeEnvAgent", "monitor.py", "log_monitor",
         "dashboard.py")  # fmt: skip


@dataclass(frozen=True, slots=True)
class IdleModels:
    """Finds so many words wherever it looks, after a while without work."""

    words: int
    sleep_s: float

    def detector(self) -> IdleModels:
        return self

    def recognizer(self) -> IdleModels:
        return self

    def sized(self, threads: Any) -> IdleModels:
        return self

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, Any]:
        time.sleep(self.sleep_s)
        features = np.zeros((self.words, *FEATURE_SHAPE), np.float32)
        corners = (0.0, 0.0, 9.0, 0.0, 9.0, 9.0, 0.0, 9.0)
        boxes = (Detection(0.9, (0.0, 0.0, 9.0, 9.0), corners, 0.0),) * self.words
        info = PageInfo(640, 480, "none", 1)
        return DetectedPage(
            info, boxes, detect_s=self.sleep_s, feature_bytes=features.nbytes
        ), features

    def read(self, features: Any) -> Readings:
        return Readings((Reading("word", 0.9, (0.9,) * 4),) * len(features))

    def blank(self) -> Any:
        return np.zeros((1, *FEATURE_SHAPE), np.float32)


class Files:
    """Reads whole files."""

    def read(self, items: Any) -> Iterator[Encoded]:
        for item in items:
            yield Encoded(item, Path(item.source).read_bytes())

    def close(self) -> None:
        pass


def listed(folder: Path) -> Iterator[Item]:
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        yield Item(path.as_uri(), str(path), size=size, content_tag=str(size))


def assembled(encoded: Encoded, page: int, found: Any, readings: Any) -> ImageResult:
    return join(encoded.item, page, found, readings)


def cpu_by_process() -> Counter[str]:
    """CPU seconds of this process and its descendants, by what they are."""
    spent: Counter[str] = Counter()
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        name = next((name for name in NAMES if name in line), "others")
        spent["driver" if process == own else name] += times.user + times.system
    return spent


def work(slot: Steps, tasks: list[Task]) -> int:
    """Run shards to the end; their images."""
    waiting, left, done, wants = list(tasks), 0, 0, True
    while waiting or left:
        given = [waiting.pop(0)] if waiting and wants else []
        left += len(given)
        report = slot.step(given, 1.0, more=bool(waiting))
        wants = report.wants
        left -= len(report.settled)
        done += sum(settled.counts.images for settled in report.settled)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("local", "ray"), default="ray")
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--words", type=int, default=3)
    parser.add_argument("--kb", type=int, default=60)
    parser.add_argument("--mib", type=int, default=512, help="engine.max_bytes_in_flight")
    parser.add_argument("--ms", type=float, default=30.0, help="a detector rests for an image")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="textspot-transport-"))
    slot: Steps | None = None
    try:
        (folder / "in").mkdir()
        for number in range(args.images + 2 * SHARD):
            (folder / "in" / f"{number:06d}").write_bytes(bytes(1024 * args.kb))
        config = config_from_dict(
            {
                "engine": {
                    "kind": args.engine,
                    "threads": 2,
                    "in_flight": 4,
                    "max_bytes_in_flight": args.mib * 2**20,
                },
                "output": {
                    "uri": str(folder / "out"),
                    "min_shard_items": SHARD,
                    "max_shard_items": SHARD,
                },
            }
        )
        recipe = Recipe(IdleModels(args.words, args.ms / 1e3), Files, assembled)
        parts = Components(recipe, {"bundle": "none"}, partial(listed, folder / "in"))
        store = open_store(config.output.uri, create=True)
        ledger, plan = open_ledger(store, parts.fingerprint), Plan(store)
        update_plan(plan, parts.listing(), config.output, "run")
        tasks = list(plan.tasks(ledger))
        slot = open_slot(Job(config, "run", dict(parts.fingerprint), recipe))
        work(slot, tasks[:2])
        before, began = cpu_by_process(), time.perf_counter()
        time.sleep(IDLE_S)
        idle, idle_s = cpu_by_process() - before, time.perf_counter() - began
        before, began = cpu_by_process(), time.perf_counter()
        images = work(slot, tasks[2:])
        spent, wall_s = cpu_by_process() - before, time.perf_counter() - began
    finally:
        if slot is not None:
            slot.close()
        shutil.rmtree(folder, ignore_errors=True)
    net = {name: 1e3 * (s - idle[name] * wall_s / idle_s) / images for name, s in spent.items()}
    print(
        f"{args.engine}, {images} images of {args.kb} kB and {args.words} words: "
        f"{sum(net.values()):.2f} ms of CPU an image ({1e3 * wall_s / images:.2f} ms by the clock)"
    )
    for name, ms in sorted(net.items(), key=lambda pair: -pair[1]):
        print(
            f"  {name:16} {ms:6.2f} ms an image, {1e3 * idle[name] / idle_s:5.1f} ms a second idle"
        )


if __name__ == "__main__":
    from jobs.bench import transport  # workers import the models by this name

    transport.main()
