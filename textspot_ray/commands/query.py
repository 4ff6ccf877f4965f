"""Run SQL over the views words, images, errors, shards and runs; without SQL, a prompt."""

from __future__ import annotations

import argparse
import sys

from textspot_ray.commands.table_options import add_table_argument, count, open_views
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument(
        "sql", nargs="?", metavar="SQL", help="one statement; - reads it from stdin"
    )
    parser.add_argument(
        "--format", choices=("table", "csv", "json", "parquet"), default="table", help="of the rows"
    )
    parser.add_argument("--out", "-o", metavar="FILE", help="write there instead of to stdout")
    parser.add_argument("--limit", type=count, metavar="N", help="stop after so many rows")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.query.output import OutputFormat, write_result
    from textspot_ray.query.sql import batches, run_query

    sql = args.sql
    if sql == "-" or (sql is None and not sys.stdin.isatty()):
        sql = sys.stdin.read()
    with open_views(args) as tables:
        if sql is None:
            from textspot_ray.query.prompt import prompt

            prompt(tables)
            return ExitCode.OK
        reader = run_query(tables, sql, args.limit)
        write_result(reader.schema, batches(sql, reader), OutputFormat(args.format), args.out)
    return ExitCode.OK
