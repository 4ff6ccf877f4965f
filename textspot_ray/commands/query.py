"""Run SQL over the views words, images, errors, shards and runs; without SQL, a prompt.

    textspot query tables "SELECT text, count(*) AS n FROM words GROUP BY text ORDER BY n DESC"
    textspot query tables "FROM images WHERE status = 'failed'" --out failed.csv

--cookbook prints statements for common questions; with DIR also the table's answers to them.
"""

from __future__ import annotations

import argparse
import sys

from textspot_ray.commands.table_options import (
    add_table_argument,
    count,
    opened_table,
    storage_options,
)
from textspot_ray.errors import ExitCode, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser, optional=True)
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", help="one statement; - reads it from stdin"
    )
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json", "parquet"),
        help="of the rows; default: by the suffix of --out (.csv, .jsonl, .parquet), else table",
    )
    parser.add_argument(
        "--out", "-o", metavar="FILE", help="write there (any fsspec URI) instead of to stdout"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="stop after so many rows")
    parser.add_argument("--cookbook", action="store_true", help="statements for usual questions")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.query.output import OutputFormat, format_of, write_result
    from textspot_ray.query.sql import run_query

    if args.cookbook:
        return _cookbook(args)
    if args.table is None:
        raise UsageError("no DIR given: name the output folder of a run")
    format = OutputFormat(args.format) if args.format else format_of(args.out)
    sql = args.sql
    if sql == "-" or (sql is None and not sys.stdin.isatty()):
        sql = sys.stdin.read()
    with opened_table(args) as tables:
        if sql is None:
            from textspot_ray.query.prompt import prompt

            prompt(tables)
            return ExitCode.OK
        write_result(run_query(tables, sql, args.limit), format, args.out, storage_options(args))
    return ExitCode.OK


def _cookbook(args: argparse.Namespace) -> int:
    from textspot_ray.query.cookbook import answered_cookbook, plain_cookbook
    from textspot_ray.query.destination import open_text

    with open_text(args.out, storage_options(args)) as file:
        if args.table is None:
            file.write(plain_cookbook())
        else:
            with opened_table(args) as tables:
                file.writelines(answered_cookbook(tables))
    return ExitCode.OK
