"""Figures of a table: by source, confidence, length, throughput, failures, slowest images."""

from __future__ import annotations

import argparse
import json
import sys

from textspot_ray.commands.table_options import add_table_argument, count, open_views
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("--top", type=count, default=10, metavar="N", help="sources, slow images")
    parser.add_argument("--plot", metavar="PNG", help="write the plots")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.query.stats import as_json, compute_stats, plot, report

    with open_views(args) as tables:
        stats = compute_stats(tables, args.top)
    if args.plot:
        plot(stats, args.plot)
    if args.json:
        print(json.dumps(as_json(stats)))
    else:
        sys.stdout.write(report(stats))
    return ExitCode.OK
