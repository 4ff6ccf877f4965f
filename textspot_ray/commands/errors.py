"""List failed images: image_id, stage, kind, attempts and message, one a line, tab-separated."""

from __future__ import annotations

import argparse
import dataclasses
import json

from textspot_ray.commands.table_options import add_folder_argument
from textspot_ray.commands.tables import table_ledger
from textspot_ray.errors import ExitCode, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--kind", action="append", metavar="KIND", help="only this kind of failure")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def main(args: argparse.Namespace) -> int:
    """Print the failures; none is a fine answer."""
    from textspot_ray.tables.status import error_rows

    for row in error_rows(table_ledger(args)):
        if args.kind and row.kind not in args.kind:
            continue
        if args.json:
            print(json.dumps(dataclasses.asdict(row), ensure_ascii=False))
        else:
            cells = (row.image_id, row.stage, row.kind, str(row.attempts), row.message)
            print("\t".join(printable(str(cell)) for cell in cells))
    return ExitCode.OK
