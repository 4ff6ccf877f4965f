"""Show the progress of a table, from its folder alone, while the job runs or afterwards.

    textspot status tables --watch

What is committed is read from records and snapshots; who works on it now, how fast, and what is
done but not committed is read from the file that each driver writes every ten seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import add_folder_argument, table_ledger, table_plan
from textspot_ray.errors import ExitCode, NoTableError

if TYPE_CHECKING:
    from textspot_ray.tables.driver_status import Live, SeenStatus
    from textspot_ray.tables.status import TableStatus

_SHOWN = 8  # drivers, the newest first
_COMES_S = 60.0  # to wait for a table that a run has not created yet
_WAITING_S = 10.0  # without a slot, before it is mentioned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument(
        "--watch",
        nargs="?",
        const=5.0,
        type=_interval,
        metavar="S",
        help="look again every S seconds (5) until the table is done",
    )


def main(args: argparse.Namespace) -> int:
    """Print the status, once or until the table is done."""
    if args.watch is None:
        print(_as_text(args, _look(args)))
        return ExitCode.OK
    _await_table(args)
    if args.json or not sys.stdout.isatty():
        _watch_lines(args)
    else:
        _watch_terminal(args)
    return ExitCode.OK


def _await_table(args: argparse.Namespace) -> None:
    """Wait for the table: a run needs seconds until it is there, a submitted one a minute."""
    for waited_s in range(int(_COMES_S) + 1):
        try:
            table_ledger(args)
            return
        except NoTableError as exc:
            if waited_s == _COMES_S:
                raise
            if not waited_s:
                print(f"{exc}; waiting {_COMES_S:.0f} s for one", file=sys.stderr, flush=True)
        time.sleep(1.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A table's state at one moment."""

    status: TableStatus
    drivers: Sequence[SeenStatus]
    live: Live

    @property
    def done(self) -> bool:
        """Whether everything in the sources is committed, as far as is known."""
        from textspot_ray.tables.driver_status import is_finished

        return self.status.done and is_finished(self.drivers, planned=self.status.shards_total > 0)


def _look(args: argparse.Namespace) -> _Seen:
    from textspot_ray.tables.driver_status import fold_statuses, read_statuses
    from textspot_ray.tables.status import table_status

    ledger = table_ledger(args)
    drivers = read_statuses(ledger.store)
    return _Seen(table_status(ledger, table_plan(ledger)), drivers, fold_statuses(drivers))


def _watch_lines(args: argparse.Namespace) -> None:
    """For logs and programs: one report after the other."""
    while True:
        seen = _look(args)
        print(_as_text(args, seen), flush=True)
        if seen.done:
            return
        if not args.json:
            print(flush=True)
        time.sleep(args.watch)


def _watch_terminal(args: argparse.Namespace) -> None:
    """For people: a bar and the report below it, which replaces the last one."""
    from rich.console import Group
    from rich.live import Live as Shown
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    with Shown(auto_refresh=False, vertical_overflow="crop") as shown:
        while True:
            seen = _look(args)
            counts = seen.status.counts
            bar = ProgressBar(
                total=max(1, seen.status.items_planned - seen.status.forgotten),
                completed=counts.items + seen.live.open_items,
            )
            shown.update(Group(bar, Text(_as_text(args, seen))), refresh=True)
            if seen.done:
                return
            time.sleep(args.watch)


def _as_text(args: argparse.Namespace, seen: _Seen) -> str:
    if not args.json:
        return "\n".join(status_lines(seen.status, seen.drivers, seen.live, done=seen.done))
    drivers = [_driver_facts(one) for one in seen.drivers]
    facts = {**dataclasses.asdict(seen.status), "done": seen.done, "drivers": drivers}
    return json.dumps({**facts, "live": dataclasses.asdict(seen.live)}, default=dict)


def status_lines(
    status: TableStatus, seen: Sequence[SeenStatus], live: Live, *, done: bool
) -> list[str]:
    """The status of a table as lines of text.

    Args:
        status: What is committed.
        seen: The drivers' own reports, the newest first.
        live: Those that are running, summed up.
        done: Whether nothing is left to do.
    """
    from textspot_ray.commands.summary import counts_lines
    from textspot_ray.redaction import redact_text
    from textspot_ray.wording import counted, duration, number

    state = "done" if done else "not done"
    if status.done and not done and not live.drivers:  # all that is planned is committed
        state = "not done: the last run ended before it had listed all; run the same command again"
    lines = [
        f"{status.uri}: {state}",
        f"shards   {number(status.shards_done)} of {number(status.shards_total)} committed, "
        f"{counted(status.items_planned, 'item')} planned",
        *counts_lines(status.counts, redact_text(status.uri)),
    ]
    if status.redo_shards:
        lines.append(f"changed  {counted(status.redo_shards, 'shard')} to be read again")
    if status.forgotten:
        lines.append(f"erased   {counted(status.forgotten, 'image')} taken out for good")
    if status.images_per_s:
        lines.append(f"rate     {status.images_per_s:.1f} images/s over the last stretch of work")
    if status.last_commit_s is not None:
        lines.append(f"last     commit {duration(status.last_commit_s)} ago")
    if live.drivers:
        lines.append(_live_line(live))
    if not done and (left_s := _left_s(status, live)) is not None:
        lines.append(f"left     about {duration(left_s)} at that rate")
    lines += [f"driver   {driver_line(one, done=done)}" for one in seen[:_SHOWN]]
    if len(seen) > _SHOWN:
        lines.append(f"         and {len(seen) - _SHOWN} more (--json lists them)")
    return lines


def _interval(text: str) -> float:
    """Seconds, for argparse."""
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 86400")
    return value


def driver_line(one: SeenStatus, *, done: bool = False) -> str:
    """One driver's report in a line; if the table is done, it does not advise to resume."""
    from textspot_ray.wording import counted, duration, number

    status = one.status
    who = f"{status.run_id} on {status.host} (process {status.pid})"
    ago = f"{duration(one.age_s)} ago"
    if one.stale:
        quiet = f"no word for {duration(one.age_s)}: killed, or cut off from storage"
        what = f"killed, its last word came {ago}" if one.gone else quiet
        advice = "" if done else ", run the same command again to go on"
        return f"{who}: {what}; what it committed stays{advice}"
    if one.hangs:
        quiet_s = status.written_at - status.turned_at
        return f"{who}: its process lives but has done nothing for {duration(quiet_s)}; {ago}"
    images = counted(status.images, "image")
    if status.state.ended:
        why = f" ({status.note})" if status.note else ""
        return f"{who}: {status.state} {ago}, {images}{why}"
    state = str(status.state)
    if status.waiting_s > _WAITING_S and not status.n_slots:
        state = f"waiting for workers since {duration(status.waiting_s)}"
    return (
        f"{who}: {state}, {images}, {number(status.failed)} failed; "
        f"{counted(status.n_slots, 'slot')} on {counted(status.n_nodes, 'node')}; {ago}"
    )


def _live_line(live: Live) -> str:
    from textspot_ray.wording import counted

    more = "; sources are still being listed" if live.planning else ""
    return (
        f"now      {live.images_per_s:.1f} images/s by {counted(live.drivers, 'driver')}, "
        f"{counted(live.slots, 'slot')} on {counted(live.nodes, 'node')}; "
        f"{counted(live.open_items, 'item')} done and not committed yet{more}"
    )


def _left_s(status: TableStatus, live: Live) -> float | None:
    """Seconds to the end, at the current rate of the drivers or else at the last known rate."""
    if live.drivers and (live.planning or not live.slots):
        return None
    if not live.drivers or live.images_per_s <= 0:
        return status.eta_s
    left = status.items_planned - status.counts.items - status.forgotten - live.open_items
    images_an_item = status.counts.images / status.counts.items if status.counts.items else 1.0
    return max(0, left) * images_an_item / live.images_per_s


def _driver_facts(one: SeenStatus) -> dict[str, object]:
    facts = dataclasses.asdict(one.status)
    return {**facts, "age_s": one.age_s, "live": one.live, "stale": one.stale, "hangs": one.hangs}
