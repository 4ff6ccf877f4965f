"""Measure speed: ``python jobs/bench.py --quick``; see ``--help``."""

import sys

from textspot_ray.training.bench.program import main

if __name__ == "__main__":
    sys.exit(main())
