"""Delete what killed runs left behind; committed files are never deleted."""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument, table_ledger
from textspot_ray.errors import ExitCode

GRACE_MIN = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument(
        "--older-than",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="leftovers of unfinished shards must be this old (default 24); "
        "use less only when no job runs",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_MIN,
        metavar="MINUTES",
        help=f"keep files that compact or forget replaced for so long (default {GRACE_MIN:g})",
    )


def main(args: argparse.Namespace) -> int:
    """Vacuum and print how much was deleted."""
    from textspot_ray.errors import UsageError
    from textspot_ray.tables.maintenance.vacuum import clean
    from textspot_ray.wording import byte_size, counted

    if args.older_than < 0:
        raise UsageError(f"--older-than takes hours from 0, not {args.older_than:g}")
    if args.grace < 0:
        raise UsageError(f"--grace takes minutes from 0, not {args.grace:g}")
    report = clean(table_ledger(args), older_than_s=3600 * args.older_than, grace_s=60 * args.grace)
    print(f"deleted {counted(report.files, 'file')}, {byte_size(report.bytes)}")
    if report.waiting:
        print(
            f"{counted(report.waiting, 'replaced file')} kept for readers until {args.grace:g} "
            "minutes after they were replaced: --grace 0 deletes them now"
        )
    return ExitCode.OK
