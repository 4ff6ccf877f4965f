"""``python -m textspot_ray`` is the same program as ``textspot``."""

from __future__ import annotations

import sys

from textspot_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
