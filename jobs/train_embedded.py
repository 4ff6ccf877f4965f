"""Train the embedded bundle and export it.

    train_embedded.py reader|detector|refiner|labels|leaks|export|failures ...

Each part's own options: ``train_embedded.py PART --help``. The same command resumes a training.
"""

from __future__ import annotations

import importlib
import sys

from textspot_ray.errors import MissingExtraError, TextspotError

PARTS = {
    "reader": "textspot_ray.training.train_reader",
    "detector": "textspot_ray.training.train_detector",
    "refiner": "textspot_ray.training.train_refiner",
    "labels": "textspot_ray.training.pseudo_labels",
    "leaks": "textspot_ray.training.leaks",
    "failures": "textspot_ray.training.true_quads",
    "export": "textspot_ray.training.export",
}


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        try:
            part = importlib.import_module(PARTS[sys.argv[1]])
        except ModuleNotFoundError as exc:
            raise MissingExtraError(f"training ({exc.name} is missing)", "train") from exc
        return int(part.main(sys.argv[2:]) or 0)
    except TextspotError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return int(exc.exit_code)


if __name__ == "__main__":
    sys.exit(main())
