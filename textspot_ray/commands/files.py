"""List the committed files of a table, for engines that read Parquet themselves.

While a job runs, or after one was killed, the table is this list and not a glob.
"""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument, storage_options
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument(
        "--only", choices=("words", "images", "errors"), help="only this table's files"
    )


def main(args: argparse.Namespace) -> int:
    """Print one path or URI a line."""
    from textspot_ray.tables.open import open_tables

    tables = open_tables(args.table, storage_options(args))
    for table in [args.only] if args.only else ["words", "images", "errors"]:
        for path in tables.files(table):
            print(path)
    return ExitCode.OK
