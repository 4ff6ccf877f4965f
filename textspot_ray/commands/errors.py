"""List failed images: image_id, stage, kind, attempts and message, one a line, tab-separated.

With --damaged, list the images that were read although their file is damaged: image_id and what is
wrong with the file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from textspot_ray.commands.table_options import add_folder_argument, add_kind_option, table_ledger
from textspot_ray.errors import ExitCode, UsageError, printable


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

    if args.damaged:
        if args.kind:
            raise UsageError("--kind is a kind of failure: leave it out with --damaged")
        for damaged in damaged_rows(table_ledger(args)):
            if args.json:
                print(json.dumps(damaged, ensure_ascii=False))
            else:
                print(damaged["image_id"], damaged["damage"], sep="\t")
        return ExitCode.OK
    for row in error_rows(table_ledger(args)):
        if args.kind and row.kind not in args.kind:
            continue
        if args.json:
            print(json.dumps(dataclasses.asdict(row), ensure_ascii=False))
        else:
            cells = (row.image_id, row.stage, row.kind, str(row.attempts), row.message)
            print("\t".join(printable(str(cell)) for cell in cells))
    return ExitCode.OK
