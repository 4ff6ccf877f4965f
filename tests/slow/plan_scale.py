"""Plan, half-commit and resume a large made-up archive; prints times, sizes and peak memory.

    python tests/slow/plan_scale.py --items 10000000 --out /tmp/scale

Nothing is read and no model runs: the plan, the ledger and its snapshots are the real ones, and
records are committed as a run would commit them, only without parts.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from textspot_ray.config import OutputConfig
from textspot_ray.records import Counts, Item, ShardId
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import (
    CommitRecord,
    DataFile,
    commit_record_to_json,
    new_attempt,
    put_commit_record,
)
from textspot_ray.tables.commit.committed import CommittedShards
from textspot_ray.tables.commit.ledger import Ledger, open_ledger
from textspot_ray.tables.commit.manifest import read_manifest_index, to_table, write_manifest
from textspot_ray.tables.commit.snapshot import MAX_MERGED_ROWS
from textspot_ray.tables.maintenance.vacuum import vacuum_state
from textspot_ray.tables.plan.plan import Plan
from textspot_ray.tables.plan.planner import PlanSummary, update_plan

FINGERPRINT = {"precision": "f32"}


def listing(count: int) -> Iterator[Item]:
    """Items as a bucket's listing would give them."""
    for n in range(count):
        path = f"s3://some-bucket/archive/2024/{n // 10_000:05d}/photo-{n:09d}.jpg"
        yield Item(image_id=path, source=path, size=350_000, content_tag=f"etag:{n:032x}")


def a_record(shard: ShardId, digest: str, images: int, now: float) -> CommitRecord:
    """A record of realistic size."""
    attempt = new_attempt()
    files = tuple(
        DataFile(t, f"{t}/{shard}-00-{attempt}.parquet", 80_000, 2_000, secrets.token_hex(32))
        for t in ("words", "images", "errors")
    )
    counts = Counts(images, images, images - 20, 18, 2, images * 12, {"corrupt": 2})
    stage_s = {"read": 1.1, "decode": 22.5, "detect": 60.25, "recognise": 12.125}
    return CommitRecord(shard, 0, attempt, "20260101-120000-abcdef", "run", digest, counts, files,
                  environment={"node": "worker-1", "openvino": "2025.3", "cpu_flags": "avx2"},
                  started_at=now, finished_at=now + 100, stage_s=stage_s)  # fmt: skip


def plan_once(store: Store, items: int) -> PlanSummary:
    """List and plan, as the start of every run does."""
    return update_plan(Plan(store), listing(items), OutputConfig(), "scale")


def commit_half(store: Store, ledger: Ledger, share: float) -> tuple[int, float, float]:
    """Commit a share of the shards; seconds of commits and of folds."""
    plan = Plan(store)
    plan.refresh()
    todo = int(plan.n_shards * share)
    commit_s = fold_s = 0.0
    for n, task in enumerate(plan.tasks(ledger)):
        if n >= todo:
            break
        start = time.perf_counter()
        record = a_record(task.shard, ledger.digest, task.items, 1e9 + n)
        put_commit_record(store, record)
        ledger.note(record)
        middle = time.perf_counter()
        if ledger.fold():
            vacuum_state(ledger, grace_s=0.0)
        commit_s += middle - start
        fold_s += time.perf_counter() - middle
    return todo, commit_s, fold_s


def resume(store: Store, items: int) -> tuple[PlanSummary, int]:
    """What a second run does before its first shard: list all, find nothing new, find the rest."""
    ledger = open_ledger(store, FINGERPRINT)
    plan = Plan(store)
    summary = update_plan(plan, listing(items), OutputConfig(), "again")
    return summary, sum(1 for _ in plan.tasks(ledger))


def manifests_of(store: Store, shards: int) -> None:
    """Size, write and read time of the manifests that hold this many shards."""
    bytes_ = rows = 0
    write_s = read_s = 0.0
    settled = CommittedShards()
    per_plan = 400
    while rows < shards:
        n = min(MAX_MERGED_ROWS, shards - rows)
        records = (
            a_record(ShardId(r // per_plan, r % per_plan), "f" * 16, 256, 1e9 + r)
            for r in range(rows, rows + n)
        )
        table = to_table(records)
        start = time.perf_counter()
        manifest = write_manifest(store, table, 1)
        middle = time.perf_counter()
        settled.absorb(read_manifest_index(store, manifest))
        read_s += time.perf_counter() - middle
        write_s += middle - start
        bytes_ += manifest.bytes
        rows += n
        store.delete(manifest.path)
    json_bytes = len(commit_record_to_json(a_record(ShardId(0, 0), "f" * 16, 256, 1e9)))
    print(f"{shards} shards ({shards * 256 / 1e6:.0f} M images): manifests {bytes_ / 2**20:.0f} MB "
          f"({bytes_ / shards:.0f} B a shard; a record is {json_bytes} B), "
          f"written in {write_s:.1f} s, resume reads them in {read_s:.1f} s")  # fmt: skip
    assert len(settled) == shards


class Clock:
    """Seconds since it was made, by the wall and of this process's CPU time."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return f"{wall:.1f} s ({cpu:.1f} s of CPU)"


def peak_mb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=0, help="also measure manifests of so many")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    store = open_store(str(args.out), create=True)
    ledger = open_ledger(store, FINGERPRINT)
    clock = Clock()
    summary = plan_once(store, args.items)
    print(f"planned {summary.new} items, {summary.shards} shards, {summary.segments} segments in "
          f"{clock}; peak {peak_mb():.0f} MB", flush=True)  # fmt: skip
    size = sum(entry.size for entry in store.list("_textspot/plan/"))
    print(f"plan: {size / 2**20:.0f} MB, {size / args.items:.1f} B an item")
    done, commit_s, fold_s = commit_half(store, ledger, 0.5)
    print(f"committed {done} shards: {1e3 * commit_s / max(done, 1):.2f} ms a record, folds and "
          f"sweeps {fold_s:.1f} s in all; peak {peak_mb():.0f} MB")  # fmt: skip
    clock = Clock()
    again, left = resume(store, args.items)
    print(f"resumed with half done: {again.listed} listed, {again.new} new, {left} shards left, in "
          f"{clock}; peak {peak_mb():.0f} MB", flush=True)  # fmt: skip
    assert again.new == 0 and left == summary.shards - done
    if args.shards:
        manifests_of(store, args.shards)
        print(f"peak {peak_mb():.0f} MB")
    shutil.rmtree(args.out, ignore_errors=True)


if __name__ == "__main__":
    main()
