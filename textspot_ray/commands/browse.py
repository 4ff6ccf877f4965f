"""Serve the live page of a table on this machine: search, images, errors, figures, SQL.

    textspot browse tables

Only the printed address opens the page: it ends in a token that is new at every start.
"""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import (
    add_source_root,
    add_table_argument,
    opened_table,
    port,
    source_roots,
    storage_options,
)
from textspot_ray.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_table_argument(parser)
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="0: any free one")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument(
        "--sql-timeout", type=float, default=60.0, metavar="S", help="stop statements after (60)"
    )
    add_source_root(parser)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    from textspot_ray.web.browse import serve
    from textspot_ray.web.browse_data import BrowseData

    def ready(address: str) -> None:
        print(f"{args.table} at {address} (Ctrl+C ends)", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(address)

    with opened_table(args) as tables:
        data = BrowseData(tables, storage_options(args), args.sql_timeout, source_roots(args))
        try:
            serve(data, f"textspot-ray: {args.table}", port=args.port, on_ready=ready)
        finally:
            data.close()
    return ExitCode.OK
