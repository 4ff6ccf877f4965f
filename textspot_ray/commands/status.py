"""Tell how far a table is, from its folder alone, while the job runs or afterwards.

What is committed comes from markers and snapshots; who works on it now, how fast, and what is done
beyond that comes from the file that each driver writes every half minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import add_folder_argument
from textspot_ray.commands.tables import table_ledger, table_plan
from textspot_ray.errors import ExitCode

if TYPE_CHECKING:
    from textspot_ray.tables.driver_status import Live, SeenStatus
    from textspot_ray.tables.status import TableStatus

_SHOWN = 8  # drivers, the newest first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")


def main(args: argparse.Namespace) -> int:
    """Print the status."""
    from textspot_ray.commands.summary import counts_lines, duration, number
    from textspot_ray.tables.driver_status import fold_statuses, read_statuses
    from textspot_ray.tables.status import table_status

    ledger = table_ledger(args)
    seen = read_statuses(ledger.store)
    status = table_status(ledger, table_plan(ledger))
    live = fold_statuses(seen)
    if args.json:
        drivers = [_driver_facts(one) for one in seen]
        facts = {**dataclasses.asdict(status), "done": status.done, "drivers": drivers}
        print(json.dumps({**facts, "live": dataclasses.asdict(live)}, default=dict))
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
    if live.drivers:
        print(_live_line(live))
    if not status.done and (left_s := _left_s(status, live)) is not None:
        print(f"left     about {duration(left_s)} at that rate")
    for one in seen[:_SHOWN]:
        print(f"driver   {driver_line(one)}")
    if len(seen) > _SHOWN:
        print(f"         and {len(seen) - _SHOWN} more (--json lists them)")
    return ExitCode.OK


def driver_line(one: SeenStatus) -> str:
    """One driver's account in a line."""
    from textspot_ray.commands.summary import duration, number

    status = one.status
    who = f"{status.run_id} on {status.host} (process {status.pid})"
    ago = f"{duration(one.age_s)} ago"
    if one.stale:
        return (
            f"{who}: no word for {duration(one.age_s)}: killed, or cut off from storage; "
            "what it committed stays, run the same command again to go on"
        )
    if one.hangs:
        quiet_s = status.written_at - status.turned_at
        return f"{who}: its process lives but has done nothing for {duration(quiet_s)}; {ago}"
    if status.state.ended:
        why = f" ({status.note})" if status.note else ""
        return f"{who}: {status.state} {ago}, {number(status.images)} images{why}"
    return (
        f"{who}: {status.state}, {number(status.images)} images, {number(status.failed)} failed; "
        f"{status.n_slots} slot(s) on {status.n_nodes} node(s); {ago}"
    )


def _live_line(live: Live) -> str:
    from textspot_ray.commands.summary import number

    more = "; sources are still being listed" if live.planning else ""
    return (
        f"now      {live.images_per_s:.1f} images/s by {live.drivers} driver(s), {live.slots} "
        f"slot(s) on {live.nodes} node(s); {number(live.open_items)} items done and not "
        f"committed yet{more}"
    )


def _left_s(status: TableStatus, live: Live) -> float | None:
    """Seconds to the end: at the drivers' rate of now if there are any, else at the last one."""
    if not live.drivers or live.planning or live.images_per_s <= 0:
        return None if live.planning else status.eta_s
    left = status.items_planned - status.counts.items - status.forgotten - live.open_items
    images_an_item = status.counts.images / status.counts.items if status.counts.items else 1.0
    return max(0, left) * images_an_item / live.images_per_s


def _driver_facts(one: SeenStatus) -> dict[str, object]:
    facts = dataclasses.asdict(one.status)
    return {**facts, "age_s": one.age_s, "live": one.live, "stale": one.stale, "hangs": one.hangs}
