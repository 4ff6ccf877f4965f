"""Write one self-contained HTML file: pictures with their words, errors and figures.

    textspot view tables --out words.html
    textspot view tables --search exit --fuzzy 1 --open

Without --search, a sample of --sample images is shown, always the same ones.
"""

from __future__ import annotations

import argparse

from textspot_ray.commands.search import add_search_options, search_query
from textspot_ray.commands.table_options import (
    add_source_root,
    add_table_argument,
    count,
    opened_table,
    source_roots,
    storage_options,
)
from textspot_ray.errors import ExitCode
from textspot_ray.wording import byte_size, counted, number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("--out", "-o", metavar="FILE", default="textspot.html")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--sample", type=count, default=60, metavar="N", help="images; default: 60")
    what.add_argument("--search", nargs="+", metavar="TERM", help="the images with these hits")
    what.add_argument("--errors", action="store_true", help="open on the errors")
    parser.add_argument("--limit", type=count, default=200, metavar="N", help="of hits (200)")
    parser.add_argument(
        "--thumb",
        type=_pixels,
        default=960,
        metavar="PX",
        help="longer side of pictures (960); 0: all their pixels, for zooming in on the page",
    )
    add_source_root(parser)
    add_search_options(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.query.search import search, words_by_image
    from textspot_ray.web.view import ViewSettings, render, sample_ids, write_page

    with opened_table(args) as tables:
        marked: dict[str, list[int]] = {}
        if args.search:
            marked = words_by_image(search(tables, search_query(args, args.search, args.limit)))
            if not marked:
                return ExitCode.NO_MATCH
        ids = list(marked) if args.search else sample_ids(tables, args.sample)
        settings = ViewSettings(
            title=f"textspot-ray: {' '.join(args.search or [args.table])}",
            min_confidence=args.min_confidence,
            thumb_px=args.thumb or None,
            errors_first=args.errors,
            source_options=storage_options(args),
            source_roots=source_roots(args),
        )
        whole = len(ids) if args.search else tables.rows("SELECT count(*) FROM images")[0][0]
        path = write_page(render(tables, ids, settings, marked), args.out, args.open)
        shown = counted(len(ids), "image") + (
            f" of {number(whole)}; --sample N for more" if len(ids) < whole else ""
        )
    print(f"wrote {path} ({byte_size(path.stat().st_size)}, {shown})")
    return ExitCode.OK


def _pixels(text: str) -> int:
    """A length from 0, for argparse."""
    return 0 if text.strip() == "0" else count(text)
