"""Compare two tables of the same images: words gained, lost and changed, and confidence.

    textspot diff tables-int8 tables-f32 --html differences.html

Images are joined by their id, words by place.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys

from textspot_ray.commands.table_options import (
    add_min_confidence,
    add_query_options,
    count,
    opened_table,
    storage_options,
)
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("table", metavar="A", help="output folder of a run; any fsspec URI")
    parser.add_argument("other", metavar="B", help="another one, of the same images")
    add_query_options(parser)
    add_min_confidence(parser)
    parser.add_argument("--words", metavar="CSV", help="write every word that differs")
    parser.add_argument("--html", metavar="FILE", help="write a page with the images that differ")
    parser.add_argument(
        "--worst", type=count, default=50, metavar="N", help="images on that page (50)"
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.evaluation.diff import DiffSummary, compare_tables
    from textspot_ray.evaluation.diff_report import (
        diff_json,
        diff_text,
        most_different,
        page,
        write_rows,
    )
    from textspot_ray.query.destination import open_text
    from textspot_ray.web.view import write_page

    summary = DiffSummary()
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(opened_table(args))
        b = stack.enter_context(opened_table(args, args.other))
        pairs = compare_tables(a, b, args.min_confidence, summary)
        if args.words:
            file = stack.enter_context(open_text(args.words, storage_options(args)))
            pairs = write_rows(pairs, file)
        worst = most_different(pairs, args.worst)  # walks over all of them
        if args.html:
            write_page(page(a, b, summary, worst, storage_options(args)), args.html)
        if args.json:
            print(json.dumps(diff_json(a, b, summary)))
        else:
            sys.stdout.write(diff_text(a, b, summary))
    return ExitCode.OK
