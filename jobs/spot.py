"""Entry point for ``ray job submit -- python jobs/spot.py SOURCE... --out DIR``."""

import sys

from textspot_ray.cli import main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--address" not in arguments:
        arguments += ["--address", "auto"]
    sys.exit(main(["run", *arguments]))
