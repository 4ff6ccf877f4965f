"""Delete what killed runs left behind; committed files are never touched."""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument
from textspot_ray.commands.tables import table_ledger
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument(
        "--older-than",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="litter of unfinished shards must be this old (default 24); "
        "shorter only when no job runs",
    )


def main(args: argparse.Namespace) -> int:
    """Sweep and say how much went."""
    from textspot_ray.commands.summary import byte_size, number
    from textspot_ray.errors import UsageError
    from textspot_ray.tables.maintenance.vacuum import clean

    if args.older_than < 0:
        raise UsageError(f"--older-than takes hours from 0, not {args.older_than:g}")
    report = clean(table_ledger(args), older_than_s=3600 * args.older_than)
    print(f"deleted {number(report.files)} file(s), {byte_size(report.bytes)}")
    return ExitCode.OK
