"""A command run by a scheduler that knows only success and failure: KubeRay, Kubernetes, cron.

Status 3 (done, but some images failed) becomes 0: the tables are complete, every failed image has
its row, and a scheduler that started over would find nothing left to do. All else stays as it is,
so that an aborted or drained run is started again and resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from textspot_ray.import_path import forget_working_folder

forget_working_folder()

from textspot_ray.cli import main  # noqa: E402
from textspot_ray.errors import ExitCode  # noqa: E402


def run(argv: Sequence[str]) -> int:
    """Run a ``textspot`` command line; its status, with 3 made 0."""
    status = main(argv)
    if status == ExitCode.FAILED_IMAGES:
        print("textspot: done with failed images: textspot errors lists them", file=sys.stderr)
        return ExitCode.OK
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
