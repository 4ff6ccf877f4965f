"""Dry run: what a run with these options would read, skip, tile and cost; nothing is written.

    textspot plan ~/Photos
    textspot plan 's3://bucket/2024/*.tar' --out s3://bucket/tables

The time is estimated from a sample that is spotted in this process, and printed as an interval.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textspot_ray.commands.options import add_run_options, run_config
from textspot_ray.errors import ExitCode
from textspot_ray.redaction import redact_text
from textspot_ray.wording import byte_size, counted, number

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig
    from textspot_ray.engine.estimate import Estimate, Sample
    from textspot_ray.records import Item, Skipped
    from textspot_ray.tables.plan.planner import PlanSummary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_run_options(parser, out_required=False)
    parser.add_argument(
        "--probe",
        type=int,
        default=512,
        metavar="N",
        help="spot up to N images in this process for the estimate (default 512); 0: none",
    )
    parser.add_argument(
        "--probe-s",
        type=float,
        default=30.0,
        metavar="S",
        help="spend at most so many seconds on it (default 30); more narrow the interval",
    )


def main(args: argparse.Namespace) -> int:
    """Print what a run would do."""
    from textspot_ray.engine.estimate import Sample

    config = run_config(args)
    sample = Sample()
    summary, done = _plan(config, sample)
    print(f"items    {number(summary.listed)} listed, {byte_size(summary.bytes)} of new ones")
    if summary.unsized:
        print(f"         {number(summary.unsized)} of unknown size")
    for reason, n in sorted(summary.skipped.items()):
        print(f"skipped  {number(n)} {reason}")
    print(
        f"to do    {number(summary.new)} new in {counted(summary.shards, 'shard')}, "
        f"{number(summary.changed)} changed, {number(summary.broken)} unreadable already"
    )
    if done is not None:
        print(f"done     {counted(done, 'item')} are in {redact_text(config.output.uri)}")
    if summary.new and args.probe > 0:
        estimate = sample.estimate(config, summary.new, args.probe, args.probe_s)
        if estimate is None:
            print("estimate none: no sampled image could be spotted")
        else:
            print("\n".join(estimate_lines(estimate)))
    return ExitCode.OK


def _plan(config: RunConfig, sample: Sample) -> tuple[PlanSummary, int | None]:
    """Count what the sources hold against what the output has planned, and what is done of it.

    The items go into the sample as they are listed. None is done where there is no table yet.
    """
    from textspot_ray.engine.components import fingerprint_of
    from textspot_ray.errors import TableError
    from textspot_ray.records import Skipped
    from textspot_ray.sources.listing import list_items
    from textspot_ray.storage.stores import open_store
    from textspot_ray.tables.commit.ledger import open_ledger
    from textspot_ray.tables.plan.plan import Plan
    from textspot_ray.tables.plan.planner import update_plan

    def listed() -> Iterator[Item | Skipped]:
        for entry in list_items(config.source, config.image):
            if not isinstance(entry, Skipped):
                sample.add(entry)
            yield entry

    output = config.output
    store = open_store(output.uri or "memory://textspot-plan", output.storage_options)
    plan = Plan(store)
    done: int | None = None
    if output.uri:
        with contextlib.suppress(TableError):
            done = open_ledger(store, fingerprint_of(config), create=False).counts().items
    return update_plan(plan, listed(), output, "plan", dry_run=True), done


def estimate_lines(estimate: Estimate) -> list[str]:
    """An estimate for people: passes, and the time as an interval."""
    failed = f", {estimate.failed} more failed" if estimate.failed else ""
    return [
        f"tiles    {estimate.passes:.1f} passes an image in a sample of {estimate.spotted}{failed}",
        f"estimate {_span(estimate.low_s, estimate.high_s)} on this machine if it does nothing "
        f"else, {estimate.item_s:.2f} s an image",
    ]


def _span(low_s: float, high_s: float) -> str:
    """Two times in one unit, with two significant digits."""
    unit, seconds = next(
        ((unit, s) for unit, s in (("h", 3600.0), ("min", 60.0)) if high_s >= 1.5 * s), ("s", 1.0)
    )
    low, high = low_s / seconds, high_s / seconds
    digits = 1 if high < 10 else 0
    return f"{low:,.{digits}f} to {high:,.{digits}f} {unit}"
