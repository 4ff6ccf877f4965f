"""Write the tables as TSV, hOCR, ALTO, JSON lines, text, ICDAR results or COCO.

--out names a folder or .zip (one file an image) or a file (all images; not for alto and icdar).
"""

from __future__ import annotations

import argparse
import sys

from textspot_ray.commands.table_options import (
    add_min_confidence,
    add_table_argument,
    count,
    open_views,
)
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from textspot_ray.export.formats import FORMATS

    add_table_argument(parser)
    parser.add_argument("--format", "-f", choices=FORMATS, required=True)
    parser.add_argument("--out", "-o", metavar="PATH", help="folder, .zip or file; default: stdout")
    parser.add_argument("--source", metavar="GLOB", help="on the source URI or the image id")
    parser.add_argument("--limit", type=count, metavar="N", help="at most so many images")
    add_min_confidence(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.export.export import export
    from textspot_ray.query.pages import read_pages

    with open_views(args) as tables:
        pages = read_pages(
            tables, source=args.source, min_confidence=args.min_confidence, limit=args.limit
        )
        report = export(pages, args.format, args.out)
    print(
        f"exported {report.words} words of {report.images} images into {report.files} files",
        file=sys.stderr,
    )
    return ExitCode.OK if report.images else ExitCode.NO_MATCH
