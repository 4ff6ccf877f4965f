"""Options that the commands over tables share, and the tables that they name, opened."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textspot_ray.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from textspot_ray.query.source_roots import SourceRoots
    from textspot_ray.query.views import TableViews
    from textspot_ray.records import ErrorKind
    from textspot_ray.storage.stores import Store
    from textspot_ray.tables.commit.ledger import Ledger
    from textspot_ray.tables.plan.plan import Plan


OPTIONS_VARIABLE = "TEXTSPOT_STORAGE_OPTIONS"
MANY = 2**40  # rows: a limit that SQL can still take


def add_folder_argument(parser: argparse.ArgumentParser, name: str = "table") -> None:
    """Add DIR and how to reach it, for commands that do not query it."""
    parser.add_argument(name, metavar="DIR", help="output folder of a run; any fsspec URI")
    add_store_options(parser)


def add_kind_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--kind``."""
    parser.add_argument(
        "--kind",
        action="append",
        type=_error_kind,
        metavar="KIND",
        help="only this kind of failure, as textspot status names them",
    )


def _error_kind(text: str) -> ErrorKind:
    from textspot_ray.records import ErrorKind

    kinds = [str(kind) for kind in ErrorKind]
    if text not in kinds:
        hint = did_you_mean(text, kinds) or f"; there are {', '.join(kinds)}"
        raise argparse.ArgumentTypeError(f"no kind of failure {text!r}{hint}")
    return ErrorKind(text)


def add_table_argument(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add DIR, which may be left out if it is optional, and how to reach and query it."""
    parser.add_argument(
        "table",
        metavar="DIR",
        nargs="?" if optional else None,
        help="output folder of a run; any fsspec URI",
    )
    add_query_options(parser)


def add_store_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--storage-options``."""
    parser.add_argument(
        "--storage-options",
        metavar="@FILE|JSON",
        help="fsspec options by protocol, in a file of YAML or JSON; credentials given in "
        f"the command line show in ps (default: what {OPTIONS_VARIABLE} holds)",
    )


def add_query_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--storage-options`` and ``--db-threads``."""
    add_store_options(parser)
    parser.add_argument("--db-threads", type=int, metavar="N", help="DuckDB's; default: all cores")


def storage_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """The options of object stores: ``--storage-options``, or else those of the environment.

    Raises:
        UsageError: They are not a mapping of mappings, or the file cannot be read.
    """
    if args.storage_options is not None:
        return parse_storage_options(args.storage_options, "--storage-options")
    given = os.environ.get(OPTIONS_VARIABLE)
    return parse_storage_options(given, OPTIONS_VARIABLE) if given else None


def parse_storage_options(text: str, where: str) -> dict[str, Any]:
    """Options by protocol.

    Args:
        text: JSON or YAML, or ``@`` and the name of a file of it.
        where: What gave it, for messages; none of them repeats the text, which holds secrets.

    Raises:
        UsageError: It is not a mapping of mappings, or the file cannot be read.
    """
    import yaml

    if text.startswith("@"):
        where = f"{where} {text}"
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise UsageError(f"{where}: {reason}") from exc
    try:
        options = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise UsageError(f"{where} is neither JSON nor YAML") from exc
    if not isinstance(options, dict) or not all(isinstance(v, dict) for v in options.values()):
        raise UsageError(f'{where} takes {{"protocol": {{"option": value}}}}')
    return options


def table_store(args: argparse.Namespace, uri: str | None = None) -> Store:
    """Open the command's folder, or another one with the same options."""
    from textspot_ray.storage.stores import open_store

    return open_store(uri or args.table, storage_options(args))


def table_ledger(args: argparse.Namespace, uri: str | None = None) -> Ledger:
    """Open a table's ledger, whatever settings made it.

    Raises:
        TableError: The folder is not a table.
    """
    from textspot_ray.tables.commit.ledger import open_ledger

    return open_ledger(table_store(args, uri), create=False)


def table_plan(ledger: Ledger) -> Plan:
    """The plan beside a ledger."""
    from textspot_ray.tables.plan.plan import Plan

    return Plan(ledger.store)


def opened_table(args: argparse.Namespace, uri: str | None = None) -> TableViews:
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


def add_source_root(parser: argparse._ActionsContainer) -> None:
    """Add ``--source-root``, for commands that read pictures again."""
    parser.add_argument(
        "--source-root",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="pictures under OLD lie under NEW now (paths or URIs; also archives)",
    )


def source_roots(args: argparse.Namespace) -> SourceRoots:
    """The parsed ``--source-root``.

    Raises:
        UsageError: One is not OLD=NEW.
    """
    from textspot_ray.query.source_roots import parse_roots

    return parse_roots(args.source_root)


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


def port(text: str) -> int:
    """A TCP port, for argparse; 0 for any free one."""
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value


def size(text: str) -> tuple[int, int]:
    """``WxH``, for argparse."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(width), int(height)
