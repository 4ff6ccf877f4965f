"""List failed images: image_id, stage, kind, attempts and message, one a line, tab-separated.

With --damaged, list the images that were read although their file is damaged: image_id and what is
wrong with the file.
"""

from __future__ import annotations

import argparse
import json

from textspot_ray.commands.table_options import add_folder_argument, add_kind_option, table_ledger
from textspot_ray.errors import ExitCode, UsageError, printable

_COLUMNS = ("image_id", "stage", "kind", "attempts", "message")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    add_kind_option(parser)
    parser.add_argument(
        "--damaged", action="store_true", help="images read although damaged, not failures"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def main(args: argparse.Namespace) -> int:
    """Print the failed or the damaged images, if there are any.

    Raises:
        UsageError: --damaged with --kind.
    """
    from textspot_ray.tables.status import damaged_rows, error_rows

    if args.damaged and args.kind:
        raise UsageError("--kind is a kind of failure: leave it out with --damaged")
    ledger = table_ledger(args)
    columns = ("image_id", "damage") if args.damaged else _COLUMNS
    for row in damaged_rows(ledger) if args.damaged else error_rows(ledger):
        if args.kind and row["kind"] not in args.kind:
            continue
        if args.json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            print("\t".join(printable(str(row[column])) for column in columns))
    return ExitCode.OK
