"""Write the tables in a format of other tools.

    textspot export tables -f tsv --out words.tsv
    textspot export tables -f pdf --out searchable.pdf --source "*.jpg"
    textspot export tables -f alto --out alto.zip

--out names a folder or .zip (one file per image, called and laid out as the images are) or a file
(all images; not for alto, page, icdar and iiif); any fsspec URI. pdf takes a folder or one .pdf,
crops a folder or a .tar (WebDataset). Failed images are left out, but for jsonl.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import (
    add_min_confidence,
    add_source_root,
    add_table_argument,
    count,
    opened_table,
    share,
    source_roots,
    storage_options,
)
from textspot_ray.errors import ExitCode
from textspot_ray.wording import counted

if TYPE_CHECKING:
    from textspot_ray.export.formats import ExportReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from textspot_ray.export.formats import FORMATS

    add_table_argument(parser)
    parser.add_argument("--format", "-f", choices=tuple(FORMATS), required=True)
    parser.add_argument("--out", "-o", metavar="PATH", help="folder, .zip or file; default: stdout")
    parser.add_argument("--source", metavar="GLOB", help="on the URI, the image id or file name")
    parser.add_argument("--limit", type=count, metavar="N", help="at most so many images")
    add_min_confidence(parser)
    parser.add_argument(
        "--max-confidence",
        type=share,
        metavar="C",
        help="only words below this confidence, for checking them",
    )
    names = parser.add_argument_group("how pictures are called")
    names.add_argument(
        "--relative-to",
        metavar="URI",
        help="names are relative to this folder or archive (default: that of all images)",
    )
    names.add_argument(
        "--image-prefix", default="", metavar="P", help="put before names: a folder or URL"
    )
    parser.add_argument(
        "--confidences", action="store_true", help="icdar: the confidence before the text"
    )
    add_source_root(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.export.export import ExportSettings, export_table

    settings = ExportSettings(
        source=args.source,
        min_confidence=args.min_confidence,
        max_confidence=args.max_confidence,
        limit=args.limit,
        relative_to=args.relative_to,
        image_prefix=args.image_prefix,
        confidences=args.confidences,
        storage_options=storage_options(args),
        source_roots=source_roots(args),
    )
    with opened_table(args) as tables:
        min_confidence = tables.min_confidence(args.min_confidence)
        report = export_table(tables, args.format, args.out, settings)
    sys.stdout.flush()
    for line in _report_lines(report, min_confidence, args.out):
        print(line, file=sys.stderr)
    return ExitCode.OK if report.images else ExitCode.NO_MATCH


def _report_lines(report: ExportReport, min_confidence: float, out: str | None) -> list[str]:
    """What was written and what was left out."""
    if not report.images and not (report.failed or report.unread):
        return ["no image has words to export (see --source, --min-confidence, --limit)"]
    lines = [
        f"exported {counted(report.words, 'word')} of {counted(report.images, 'image')} "
        f"into {counted(report.files, 'file')}",
    ]
    if report.below:
        lines.append(
            f"left out {counted(report.below, 'word')} read with less than {min_confidence:g} "
            "(--min-confidence)"
        )
    if report.failed:
        lines.append(
            f"left out {counted(report.failed, 'failed image')} (textspot errors lists them)"
        )
    if report.unread:
        lines.append(
            f"left out {counted(report.unread, 'image')} whose picture cannot be read now "
            "(moved? --source-root OLD=NEW)"
        )
    if report.stale:
        lines.append(f"{counted(report.stale, 'file')} of an earlier export still in {out}")
    return lines
