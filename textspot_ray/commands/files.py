"""List the committed files of a table, for engines that read Parquet themselves.

While a job runs, or after one was killed, this list and not a glob is the table.
"""

from __future__ import annotations

import argparse

from textspot_ray.commands.tables import add_table_argument, storage_options
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_table_argument(parser)
    parser.add_argument(
        "--table", choices=("words", "images", "errors"), help="only this table's files"
    )


def main(args: argparse.Namespace) -> int:
    """Print one path or URI a line."""
    from textspot_ray.tables.open import open_tables

    tables = open_tables(args.dir, storage_options(args))
    for table in [args.table] if args.table else ["words", "images", "errors"]:
        for path in tables.files(table):
            print(path)
    return ExitCode.OK
