"""Measure speed: ``python -m jobs.bench --quick``; see ``--help``."""

import sys

from jobs.bench.program import main

if __name__ == "__main__":
    sys.exit(main())
