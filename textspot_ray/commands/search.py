"""Find words: image, word, box and confidence of each hit, best first.

    textspot search tables exit
    textspot search tables emergency exit --fuzzy 1
    textspot search tables total --source "*receipts*" --images

Terms are compared without case, accents and punctuation: Cafe, total: and 12.00 find what was read
as cafe, total and 1200. Several terms are a phrase on one line unless --all or --any is given.
Without a term, every word that the other conditions leave is listed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import (
    MANY,
    add_min_confidence,
    add_table_argument,
    opened_table,
    storage_options,
)
from textspot_ray.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from textspot_ray.query.search import Hit, Region, SearchQuery
    from textspot_ray.query.views import TableViews


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("terms", nargs="*", metavar="TERM", help="words to find")
    add_search_options(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--limit", type=int, default=100, metavar="N", help="0: all; default: 100")
    out.add_argument("--images", action="store_true", help="the images with hits, and how many")
    out.add_argument("--json", action="store_true", help="one JSON object per line")
    out.add_argument("--open", action="store_true", help="show the hits as a page in the browser")
    out.add_argument("--html", metavar="FILE", help="write that page")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Declare what `search_query` reads; the view command has the same."""
    how = parser.add_argument_group("how terms are compared (default: exactly)")
    modes = how.add_mutually_exclusive_group()
    modes.add_argument("--prefix", action="store_true", help="words that start so")
    modes.add_argument("--contains", action="store_true", help="words with that part")
    modes.add_argument("--fuzzy", type=int, metavar="N", help="up to N edits away")
    modes.add_argument("--regex", action="store_true", help="words in which the pattern is found")
    how.add_argument(
        "--exact-case", action="store_true", help="compare letter for letter with what was read"
    )
    how.add_argument(
        "--ocr", action="store_true", help="with --fuzzy: 0/o, 1/l/i, 5/s, 8/b, ... cost half"
    )
    several = parser.add_argument_group("several terms (default: a phrase on one line)")
    combine = several.add_mutually_exclusive_group()
    combine.add_argument("--all", action="store_true", help="all terms in one image")
    combine.add_argument("--any", action="store_true", help="any of the terms")
    several.add_argument(
        "--gap", type=float, default=1.5, metavar="H", help="widest gap, in text heights (1.5)"
    )
    several.add_argument(
        "--slope", type=float, default=15.0, metavar="DEG", help="largest slope of the line (15)"
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--box",
        metavar="X0,Y0,X1,Y1",
        help="the word's centre is in there: pixels, or shares of the image if none is above 1",
    )
    where.add_argument("--source", metavar="GLOB", help="on the URI, the image id or file name")
    add_min_confidence(where)


def search_query(args: argparse.Namespace, terms: list[str], limit: int | None) -> SearchQuery:
    """The query that the options describe.

    Args:
        args: The parsed command line.
        terms: What is looked for.
        limit: Most hits; None: all.
    """
    from textspot_ray.query.search import Combine, Mode, SearchQuery
    from textspot_ray.reading_order import Line

    mode = Mode.EXACT
    for option, chosen in (
        (args.fuzzy is not None or args.ocr, Mode.FUZZY),
        (args.prefix, Mode.PREFIX),
        (args.contains, Mode.CONTAINS),
        (args.regex, Mode.REGEX),
    ):
        if option:
            mode = chosen
    if args.ocr and (args.prefix or args.contains or args.regex):
        raise UsageError("--ocr goes with --fuzzy, not with --prefix, --contains or --regex")
    if not args.regex:  # a phrase in quotes means its words: no word of a table holds a space
        terms = [part for term in terms for part in term.split() or [term]]
    return SearchQuery(
        terms=tuple(terms),
        mode=mode,
        distance=1 if args.fuzzy is None else args.fuzzy,
        ocr=args.ocr,
        combine=Combine.ALL if args.all else Combine.ANY if args.any else Combine.PHRASE,
        line=Line(max_gap=args.gap, max_slope_deg=args.slope),
        region=None if args.box is None else parse_box(args.box),
        min_confidence=args.min_confidence,
        source=args.source,
        limit=limit,
        exact_case=args.exact_case,
    )


def parse_box(text: str) -> Region:
    """``x0,y0,x1,y1``; shares of the image where no number is above 1.

    Raises:
        UsageError: Not four numbers in order.
    """
    from textspot_ray.query.search import Region

    try:
        x_min, y_min, x_max, y_max = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise UsageError(f"--box takes x0,y0,x1,y1, not {text!r}") from exc
    if not (0 <= x_min < x_max and 0 <= y_min < y_max):
        raise UsageError(f"--box {text}: x0 must be below x1 and y0 below y1, none negative")
    return Region(x_min, y_min, x_max, y_max, relative=x_max <= 1 and y_max <= 1)


def main(args: argparse.Namespace) -> int:
    """Run the command; no hits are exit status 1, as with grep."""
    from textspot_ray.query.search import search, words_by_image

    if args.limit < 0:
        raise UsageError(f"--limit must be at least 0, not {args.limit}")
    if args.images and (args.open or args.html):
        raise UsageError("--images lists images: leave it out for a page of hits")
    query = search_query(args, args.terms, min(args.limit, MANY) or None)
    with opened_table(args) as tables:
        if args.images:
            return _images(args, tables, query)
        hits = search(tables, query)
        if args.open or args.html:
            from textspot_ray.web.view import ViewSettings, render, write_page

            marked = words_by_image(hits)
            terms = " ".join(args.terms)
            settings = ViewSettings(
                title=f"textspot-ray: {terms}" if terms else "textspot-ray",
                source_options=storage_options(args),
            )
            write_page(render(tables, list(marked), settings, marked), args.html, args.open)
        elif args.json:
            for hit in hits:
                print(json.dumps(_as_json(hit), ensure_ascii=False))
        else:
            _print_table(hits)
        sys.stdout.flush()
        _print_left_out(tables, query, len(hits), "hits")
    return ExitCode.OK if hits else ExitCode.NO_MATCH


def _images(args: argparse.Namespace, tables: TableViews, query: SearchQuery) -> int:
    from textspot_ray.query.output import text_table
    from textspot_ray.query.search import search_images

    images = search_images(tables, query)
    if args.json:
        for image in images:
            print(json.dumps(dataclasses.asdict(image), ensure_ascii=False))
    elif images:
        rows = [(image.image_id, image.hits, round(image.confidence, 3)) for image in images]
        print(text_table(("image", "hits", "confidence"), rows), end="")
    sys.stdout.flush()
    _print_left_out(tables, query, len(images), "images")
    return ExitCode.OK if images else ExitCode.NO_MATCH


def _print_left_out(tables: TableViews, query: SearchQuery, shown: int, what: str) -> None:
    """Print on standard error what the list leaves out: more hits, or why there are none."""
    from textspot_ray.query.search import count_hits, impossible_terms
    from textspot_ray.wording import counted

    for term, missing in impossible_terms(tables, query).items():
        print(
            f"{term!r} cannot occur: this table's model does not read {missing!r}, only "
            f"{tables.files.alphabet}",
            file=sys.stderr,
        )
    if not shown:
        below = dataclasses.replace(query, min_confidence=0.0)
        hidden = count_hits(tables, below)[0] if query.terms else 0
        more = f"; {hidden} below the least confidence (--min-confidence 0)" if hidden else ""
        print(f"no {what}{more}", file=sys.stderr)
    elif shown == query.limit:
        hits, images = count_hits(tables, query)
        if what == "images" and images > shown:
            print(f"{shown} of {images} images (--limit 0 for all)", file=sys.stderr)
        elif what == "hits" and hits > shown:
            where = f"{counted(hits, 'hit')} in {counted(images, 'image')}"
            print(f"{shown} of {where} (--limit 0 for all)", file=sys.stderr)


def _print_table(hits: list[Hit]) -> None:
    from textspot_ray.query.output import text_table

    if not hits:
        return
    rows = [
        (hit.image_id, hit.text, ",".join(f"{v:.0f}" for v in hit.box), round(hit.confidence, 3))
        for hit in hits
    ]
    print(text_table(("image", "text", "box", "confidence"), rows), end="")


def _as_json(hit: Hit) -> dict[str, object]:
    return {
        "image_id": hit.image_id,
        "text": hit.text,
        "box": hit.box,
        "confidence": hit.confidence,
        "cost": hit.cost,
        "words": [dataclasses.asdict(word) for word in hit.words],
    }
