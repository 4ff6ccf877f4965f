"""Train the embedded bundle and export it.

    python -m jobs.training PART ...       # PART: a key of PARTS

Each part's own options: ``python -m jobs.training PART --help``. The same command resumes a
training.
"""

from __future__ import annotations

import importlib
import sys

from textspot_ray.errors import MissingExtraError, TextspotError

PARTS = {
    "reader": "jobs.training.reader.train",
    "detector": "jobs.training.detector.train",
    "thin": "jobs.training.detector.thin",
    "refiner": "jobs.training.refiner.train",
    "render": "jobs.training.render.worlds",
    "teacher": "jobs.training.teacher.label",
    "labels": "jobs.training.data.pseudo_labels",
    "leaks": "jobs.training.data.leaks",
    "failures": "jobs.training.oracle_boxes",
    "blend": "jobs.training.loop.blend",
    "pack": "jobs.training.pack",
    "unpack": "jobs.training.pack:main_unpack",
    "score": "jobs.training.bags",
    "dictionary": "jobs.training.dictionary",
    "export": "jobs.training.export",
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        try:
            module, _, function = PARTS[sys.argv[1]].partition(":")
            part = getattr(importlib.import_module(module), function or "main")
        except ModuleNotFoundError as exc:
            raise MissingExtraError(f"training ({exc.name} is missing)", "train") from exc
        return int(part(sys.argv[2:]) or 0)
    except TextspotError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return int(exc.exit_code)


if __name__ == "__main__":
    sys.exit(main())
