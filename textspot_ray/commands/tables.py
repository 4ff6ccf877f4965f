"""Opening the table that a command is given."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from textspot_ray.commands.table_options import storage_options

if TYPE_CHECKING:
    from textspot_ray.storage.stores import Store
    from textspot_ray.tables.commit.ledger import Ledger
    from textspot_ray.tables.plan.plan import Plan


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
