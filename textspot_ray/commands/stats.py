"""Figures of a table: by source, confidence, length, throughput, failures, slowest images.

    textspot stats tables --plot figures.html

--json gives all of them to programs.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from textspot_ray.commands.table_options import (
    add_source_root,
    add_table_argument,
    count,
    opened_table,
    source_roots,
    storage_options,
)
from textspot_ray.errors import ExitCode, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("--top", type=count, default=10, metavar="N", help="sources, slow images")
    parser.add_argument(
        "--plot", metavar="FILE", help="write the plots: one drawing (.svg) or a page (.html)"
    )
    parser.add_argument(
        "--similar",
        action="store_true",
        help="also find images that look alike: every picture is read again ([similar])",
    )
    add_source_root(parser)
    parser.add_argument("--json", action="store_true", help="all figures as one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.query.stats import compute_stats, stats_text

    kind = None if args.plot is None else Path(args.plot).suffix.lower()
    if kind not in (None, ".svg", ".html"):
        raise UsageError(f"--plot writes .svg or .html, not {args.plot}")
    with opened_table(args) as tables:
        stats = compute_stats(tables, args.top)
        if args.similar:
            from textspot_ray.query.pictures import Pictures
            from textspot_ray.query.similar import similar_images

            roots, options = source_roots(args), storage_options(args)
            with Pictures(tables.files.store, options, source_roots=roots) as pictures:
                stats = replace(stats, similar=similar_images(tables, pictures))
    if args.plot:
        from textspot_ray.web.html import figures_svg
        from textspot_ray.web.view import figures_page, write_page

        drawn = figures_svg if kind == ".svg" else figures_page
        write_page(drawn(stats, args.table), args.plot)
    if args.json:
        print(json.dumps(asdict(stats)))
    else:
        sys.stdout.write(stats_text(stats))
    return ExitCode.OK
