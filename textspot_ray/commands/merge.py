"""Join two tables made with the same settings into a new one."""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument, table_ledger, table_store
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser, "first")
    parser.add_argument("second", metavar="DIR2", help="another table; its rows come second")
    parser.add_argument("--out", "-o", required=True, metavar="DIR3", help="the new table")


def main(args: argparse.Namespace) -> int:
    """Merge and print what the new table holds."""
    from textspot_ray.tables.maintenance.merge import merge
    from textspot_ray.wording import counted

    first, second = table_ledger(args, args.first), table_ledger(args, args.second)
    store = table_store(args, args.out)
    store.mkdir()
    report = merge(first, second, store)
    print(
        f"{args.out} holds {counted(report.counts.images, 'image')} "
        f"with {counted(report.counts.words, 'word')}"
    )
    if report.overlap:
        print(
            f"{counted(report.overlap, 'item')} were in both: taken once, "
            "or not at all if one was told to forget them"
        )
    if report.shards_left:
        left = counted(report.shards_left, "shard")
        print(f"still to be run: {left}: textspot run SOURCE... --out {args.out}")
    return ExitCode.OK
