"""``python -m textspot_ray`` is the same program as ``textspot``."""

from __future__ import annotations

import sys

from textspot_ray.import_path import forget_working_folder

forget_working_folder()  # before anything else is imported

from textspot_ray.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
