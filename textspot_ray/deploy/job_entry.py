"""A command for schedulers that know only success and failure: KubeRay, Kubernetes, cron.

Status 3 (done, but some images failed) becomes 0: the tables are complete, every failed image has
its row, and a retry would find nothing left to do. Any other status is passed on, so that an
aborted or drained run is started again and resumes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from textspot_ray.import_path import forget_working_folder

forget_working_folder()

from textspot_ray.cli import main  # noqa: E402
from textspot_ray.errors import ExitCode  # noqa: E402


def run(argv: Sequence[str]) -> int:
    """Run a ``textspot`` command line and return its status, 0 instead of 3."""
    status = main(argv)
    if status == ExitCode.FAILED_IMAGES:
        print("textspot: done with failed images: textspot errors lists them", file=sys.stderr)
        return ExitCode.OK
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
