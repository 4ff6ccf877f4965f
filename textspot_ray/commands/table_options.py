"""Options that the commands over finished tables share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from textspot_ray.errors import UsageError

if TYPE_CHECKING:
    from textspot_ray.query.views import TableViews


MANY = 2**40  # of rows; SQL cannot count to just any number


def add_folder_argument(parser: argparse.ArgumentParser, name: str = "table") -> None:
    """Add DIR and how to reach it, for commands that do not query it."""
    parser.add_argument(name, metavar="DIR", help="output folder of a run; any fsspec URI")
    _add_store_options(parser)


def add_table_argument(parser: argparse.ArgumentParser, name: str = "table") -> None:
    """Add DIR and how to reach and query it."""
    parser.add_argument(name, metavar="DIR", help="output folder of a run; any fsspec URI")
    add_storage_options(parser)


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-options",
        metavar="JSON",
        help='fsspec options by protocol, for example \'{"s3": {"endpoint_url": "..."}}\'',
    )


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of object stores and of DuckDB."""
    _add_store_options(parser)
    parser.add_argument("--db-threads", type=int, metavar="N", help="DuckDB's; default: all cores")


def storage_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """The parsed ``--storage-options``.

    Raises:
        UsageError: It is no JSON object of objects.
    """
    if args.storage_options is None:
        return None
    try:
        options = json.loads(args.storage_options)
    except ValueError as exc:
        raise UsageError(f"--storage-options is not JSON: {exc}") from exc
    if not isinstance(options, dict) or not all(isinstance(v, dict) for v in options.values()):
        raise UsageError('--storage-options takes {"protocol": {"option": value}}')
    return options


def open_views(args: argparse.Namespace, uri: str | None = None) -> TableViews:
    """Open the command's table, or another one with the same options."""
    from textspot_ray.query.views import open_views

    if args.db_threads is not None and args.db_threads < 1:
        raise UsageError(f"--db-threads must be at least 1, not {args.db_threads}")
    where = args.table if uri is None else uri
    return open_views(where, storage_options(args), threads=args.db_threads)


def add_min_confidence(parser: argparse._ActionsContainer) -> None:
    """Add ``--min-confidence``."""
    parser.add_argument(
        "--min-confidence",
        type=share,
        metavar="C",
        help="leave out words read with less (default: the model bundle's text threshold)",
    )


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def count(text: str) -> int:
    """A whole number from 1, for argparse; more than any table has is `MANY`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return min(value, MANY)


def size(text: str) -> tuple[int, int]:
    """``WxH``, for argparse."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(width), int(height)
