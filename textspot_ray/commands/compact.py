"""Merge a table's many part files into few, and add a copy sorted by text for look-ups.

Safe beside a running job; the content of the table does not change. The replaced files are deleted
at once, so that words/*.parquet holds every word once, unless --grace keeps them for programs that
are reading them. query, search and stats find the new files by themselves.
"""

from __future__ import annotations

import argparse

from textspot_ray.commands.table_options import add_folder_argument, count, table_ledger
from textspot_ray.errors import ExitCode, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_folder_argument(parser)
    parser.add_argument("--rows-per-file", type=count, metavar="N", help="default: 8 million")
    parser.add_argument("--memory", type=count, metavar="MIB", help="limit of the sort")
    parser.add_argument(
        "--grace",
        type=float,
        default=0.0,
        metavar="MINUTES",
        help="keep replaced files for readers that have them open (default 0); "
        "until they go, words/*.parquet counts words twice",
    )


def main(args: argparse.Namespace) -> int:
    """Compact and print what happened to the files."""
    import pyarrow as pa

    from textspot_ray.tables.maintenance.compact import compact
    from textspot_ray.tables.maintenance.vacuum import finish
    from textspot_ray.wording import counted, duration, number

    # Thousands of row groups are allocated and freed; malloc keeps their pages, while Arrow's own
    # allocator returns them and faults them in again: a tenth of all CPU time here.
    pa.set_memory_pool(pa.system_memory_pool())
    if args.grace < 0:
        raise UsageError(f"--grace takes minutes from 0, not {args.grace:g}")
    limits = {"rows_per_file": args.rows_per_file, "memory_bytes": (args.memory or 0) * 2**20}
    ledger = table_ledger(args)
    report = compact(ledger, **{key: n for key, n in limits.items() if n})
    finish(ledger, grace_s=60 * args.grace)
    if not report.replaced:
        files = counted(report.files_after, "file")
        print(f"nothing to compact: {counted(report.words, 'word')} in {files}")
        return ExitCode.OK
    print(
        f"{counted(report.files_before, 'file')} became {number(report.files_after)} "
        f"({counted(report.words, 'word')}) in {duration(report.elapsed_s)}"
    )
    if args.grace:
        print(
            f"the {counted(report.replaced, 'file')} replaced stay for {args.grace:g} minutes, for "
            "readers that have them open.\nUntil then words/*.parquet counts words twice: read "
            "with textspot query, textspot files or open_tables,\n"
            f"and delete them later: textspot clean {args.table}"
        )
    return ExitCode.OK
