"""Check a table: files, checksums, counts, sums, and that each planned item has its row."""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument, table_ledger, table_plan
from textspot_ray.errors import ExitCode, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="sizes and rows, no checksums")
    how.add_argument(
        "--deep", action="store_true", help="also read every value and check its range"
    )


def main(args: argparse.Namespace) -> int:
    """Print the findings; exit 5 if the tables are wrong."""
    from textspot_ray.commands.summary import counts_lines
    from textspot_ray.tables.maintenance.verify import verify
    from textspot_ray.wording import byte_size, counted

    ledger = table_ledger(args)
    report = verify(ledger, table_plan(ledger), checksums=not args.quick, deep=args.deep)
    for finding in report.findings:
        said = f"{finding.severity}: {finding.code}: {finding.where}: {finding.message}"
        print(printable(said))  # ids that users gave may hold anything
    print(f"{'sound' if report.sound else 'NOT SOUND'}: {counted(report.files, 'file')}, ", end="")
    print(byte_size(report.bytes))
    for line in counts_lines(report.counts, ledger.store.uri):
        print(line)
    return ExitCode.OK if report.sound else ExitCode.ABORTED
