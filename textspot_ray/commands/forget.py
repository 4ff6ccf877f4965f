"""Remove images and their words from a table for good (erasure requests).

Stop the job first. The images are not read again when the job runs again.
"""

from __future__ import annotations

import argparse
import sys

from textspot_ray.commands.table_options import (
    add_table_argument,
    opened_table,
    table_ledger,
    table_plan,
)
from textspot_ray.errors import ExitCode, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_table_argument(parser)
    parser.add_argument("--image", action="append", metavar="ID", help="an image_id")
    parser.add_argument("--where", metavar="SQL", help="a condition on the images table")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def main(args: argparse.Namespace) -> int:
    """Find the images, ask, and remove them."""
    from textspot_ray.tables.maintenance.forget import forget
    from textspot_ray.wording import counted

    if not args.image and not args.where:
        raise UsageError("name what to forget: --image ID or --where SQL")
    ids = [*(args.image or ()), *_chosen(args)]
    if not ids:
        print("no image is chosen")
        return ExitCode.NO_MATCH
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{counted(len(ids), 'image')} would go for good: say --yes")
        if input(f"take {counted(len(ids), 'image')} out for good? [y/N] ").strip().lower() != "y":
            return ExitCode.OK
    ledger = table_ledger(args)
    report = forget(ledger, table_plan(ledger), ids)
    print(f"took out {counted(report.images, 'image')} and {counted(report.words, 'word')}")
    for image_id in report.unknown:
        print(f"not in the table: {image_id}", file=sys.stderr)
    return ExitCode.OK if report.items else ExitCode.NO_MATCH


def _chosen(args: argparse.Namespace) -> list[str]:
    if not args.where:
        return []
    from textspot_ray.query.sql import run_query

    with opened_table(args) as tables:
        reader = run_query(tables, f"SELECT image_id FROM images WHERE ({args.where})")
        return [str(image_id) for image_id in reader.read_all()["image_id"].to_pylist()]
