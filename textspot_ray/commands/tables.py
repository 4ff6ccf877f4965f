"""What commands on an existing table share: its DIR argument, and opening it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textspot_ray.archive.storage import Store
    from textspot_ray.tables.ledger import Ledger
    from textspot_ray.tables.plan import Plan


def add_table_argument(parser: argparse.ArgumentParser) -> None:
    """Add DIR and --storage-option."""
    parser.add_argument("dir", metavar="DIR", help="folder of the tables; any fsspec URI")
    parser.add_argument(
        "--storage-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an fsspec option of DIR's store (VALUE may be JSON)",
    )


def table_store(args: argparse.Namespace) -> Store:
    """Open DIR."""
    from textspot_ray.archive.storage import open_store

    return open_store(args.dir, storage_options(args))


def storage_options(args: argparse.Namespace) -> dict[str, Any]:
    """The --storage-option values as a dict.

    Raises:
        UsageError: One has no ``=``.
    """
    from textspot_ray.errors import UsageError

    options: dict[str, Any] = {}
    for text in args.storage_option:
        key, sep, value = text.partition("=")
        if not sep or not key:
            raise UsageError(f"--storage-option takes KEY=VALUE, not {text!r}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def table_ledger(args: argparse.Namespace) -> Ledger:
    """Open DIR's ledger, whatever settings made it.

    Raises:
        TableError: DIR is not a table.
    """
    from textspot_ray.tables.ledger import open_ledger

    return open_ledger(table_store(args), create=False)


def table_plan(ledger: Ledger) -> Plan:
    """The plan beside a ledger."""
    from textspot_ray.tables.plan import Plan

    return Plan(ledger.store)
