"""Run the compatibility matrix and print its table."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from jobs.compat.registry import GROUPS, Cell, Verdict

# Modules that register groups: one a kind of input.
_MODULES = ("jobs.compat.containers", "jobs.compat.images")


def main() -> int:
    """Exit code 0 if no cell is wrong."""
    parser = argparse.ArgumentParser(prog="python -m jobs.compat", description=__doc__)
    for module in _MODULES:
        importlib.import_module(module)
    parser.add_argument("--group", action="append", choices=sorted(GROUPS), help="only this group")
    parser.add_argument("--all", action="store_true", help="list every cell, not only the faults")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the files that were made here")
    args = parser.parse_args()
    wrong = 0
    for name in args.group or sorted(GROUPS):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(args.keep) / name if args.keep else Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            cells = list(GROUPS[name](folder))
        wrong += _show(name, cells, every=args.all)
    return 1 if wrong else 0


def _show(name: str, cells: list[Cell], *, every: bool) -> int:
    kinds: dict[str, Counter[Verdict]] = defaultdict(Counter)
    makers: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        kinds[cell.kind][cell.verdict] += 1
        makers[cell.kind].add(cell.maker)
    total = Counter(cell.verdict for cell in cells if cell.verdict is not Verdict.UNMADE)
    print(f"\n## {name}: {sum(total.values())} files")
    print("| kind | right | refused | wrong | made by |\n|---|---:|---:|---:|---|")
    for kind, counts in sorted(kinds.items()):
        numbers = " | ".join(
            str(counts[v]) for v in (Verdict.RIGHT, Verdict.REFUSED, Verdict.WRONG)
        )
        print(f"| {kind} | {numbers} | {', '.join(sorted(makers[kind]))} |")
    print(f"| all | {total[Verdict.RIGHT]} | {total[Verdict.REFUSED]} | {total[Verdict.WRONG]} | |")
    for cell in cells:
        if every or cell.verdict is Verdict.WRONG:
            print(f"{cell.verdict}\t{cell.name}\t{cell.maker}\t{cell.detail}")
    reasons = Counter(cell.detail for cell in cells if cell.verdict is Verdict.REFUSED)
    for reason, count in reasons.most_common():
        print(f"refused {count} x: {reason}")
    return total[Verdict.WRONG]


if __name__ == "__main__":
    raise SystemExit(main())
