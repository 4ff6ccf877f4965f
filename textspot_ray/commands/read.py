"""Read images and print their words; no tables are written.

    textspot read photo.jpg
    textspot read https://example.org/sign.png --json
    textspot read scan.tif --model ppocrv6-small --format hocr
    textspot read photo.jpg --draw words.png

All pages of a file are read. For many images use `textspot run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from textspot_ray.commands.options import add_model_options
from textspot_ray.commands.table_options import add_store_options, storage_options
from textspot_ray.errors import ExitCode, UsageError, printable

if TYPE_CHECKING:
    from textspot_ray.api import SpotResult

_DRAWN_PX = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="file or URL; - = standard input")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object per image")
    shape.add_argument("--format", metavar="NAME", help="hocr, alto, tsv ...: see textspot export")
    add_store_options(parser)
    add_model_options(parser)
    parser.set_defaults(model="embedded")
    parser.add_argument("--threads", type=int, metavar="N", help="inference threads")
    parser.add_argument(
        "--min-confidence", type=float, metavar="C", help="leave out words read with less"
    )
    parser.add_argument(
        "--draw", metavar="FILE", help="write the picture with its words (one IMAGE)"
    )


def main(args: argparse.Namespace) -> int:
    """Print each image's text; 3 if one failed."""
    from textspot_ray.api import export_results, spot

    if args.draw and len(args.image) > 1:
        raise UsageError("--draw takes one IMAGE")
    images = (sys.stdin.buffer.read() if name == "-" else name for name in args.image)
    outcome = _Outcome(args.draw)
    results = outcome.noting(
        spot(
            images,
            model=args.model,
            precision=args.precision,
            detection_threshold=args.detection_threshold,
            min_confidence=args.min_confidence,
            tiles=args.tiles,
            alphabet=args.alphabet,
            dictionary=args.dictionary,
            words=args.words,
            threads=args.threads,
            storage_options=storage_options(args),
        )
    )
    if args.format:
        several = len(args.image) > 1
        for piece in export_results(_readable(results, several), args.format, several=several):
            sys.stdout.write(piece)
    else:
        for result in results:
            _print(result, as_json=args.json, titled=len(args.image) > 1)
    return ExitCode.FAILED_IMAGES if outcome.failed else ExitCode.OK


class _Outcome:
    """Prints on standard error which images failed, and draws one that did not."""

    def __init__(self, draw: str | None) -> None:
        self.failed = False
        self._draw = draw

    def noting(self, results: Iterable[SpotResult]) -> Iterator[SpotResult]:
        for result in results:
            if result.error is not None:
                self.failed = True
                where = result.source or "standard input"
                said = result.error if where in result.error else f"{where}: {result.error}"
                print(f"textspot: {printable(said)}", file=sys.stderr)
            elif self._draw and result.page == 0:
                try:
                    result.draw(longest_px=_DRAWN_PX).save(self._draw)
                except (OSError, ValueError) as exc:
                    from textspot_ray.storage.faults import reason_of

                    raise UsageError(f"cannot write {self._draw}: {reason_of(exc)}") from exc
                if result.pages > 1:
                    shown = f"textspot: {self._draw} shows page 1 of {result.pages}"
                    print(printable(shown), file=sys.stderr)
            yield result


def _readable(results: Iterable[SpotResult], several: bool) -> Iterator[SpotResult]:
    """The results that a format can hold; only the first if it holds one image."""
    for result in results:
        if result.error is None:
            yield result
            if not several and result.pages > 1:
                print(
                    f"textspot: page 1 of {result.pages}; for all use textspot run and export",
                    file=sys.stderr,
                )
                return


def _print(result: SpotResult, *, as_json: bool, titled: bool) -> None:
    if as_json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
        return
    if result.error is not None:
        return
    if titled or result.pages > 1:
        page = f", page {result.page + 1}" if result.pages > 1 else ""
        print(f"==> {printable(result.source or 'standard input')}{page} <==")
    if result.text:
        print(result.text)
