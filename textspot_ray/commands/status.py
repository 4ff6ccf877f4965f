"""Tell how far a table is, from its folder alone, while the job runs or afterwards."""

from __future__ import annotations

import argparse
import dataclasses
import json

from textspot_ray.commands.table_options import add_folder_argument
from textspot_ray.commands.tables import table_ledger, table_plan
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")


def main(args: argparse.Namespace) -> int:
    """Print the status."""
    from textspot_ray.commands.summary import counts_lines, duration, number
    from textspot_ray.tables.status import table_status

    ledger = table_ledger(args)
    status = table_status(ledger, table_plan(ledger))
    if args.json:
        print(json.dumps({**dataclasses.asdict(status), "done": status.done}))
        return ExitCode.OK
    state = "done" if status.done else "not done"
    print(f"{status.uri}: {state}")
    print(
        f"shards   {number(status.shards_done)} of {number(status.shards_total)} committed, "
        f"{number(status.items_planned)} items planned"
    )
    for line in counts_lines(status.counts):
        print(line)
    if status.redo_shards:
        print(f"changed  {number(status.redo_shards)} shard(s) wait to be read again")
    if status.forgotten:
        print(f"erased   {number(status.forgotten)} images taken out for good")
    if status.images_per_s:
        print(f"rate     {status.images_per_s:.1f} images/s over the last stretch of work")
    if status.last_commit_s is not None:
        print(f"last     commit {duration(status.last_commit_s)} ago")
    if not status.done and status.eta_s is not None:
        print(f"left     about {duration(status.eta_s)} at that rate")
    return ExitCode.OK
