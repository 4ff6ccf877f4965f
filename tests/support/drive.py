"""A driver as a program: ``python drive.py IN OUT ENGINE [KEY=VALUE...]`` runs scripted images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def start_driver(
    folder: Path,
    out: Path,
    kind: str = "local",
    env: dict[str, str] | None = None,
    **engine: object,
) -> subprocess.Popen[str]:
    """Start a driver in a process of its own; its report or error is on stdout."""
    path = [str(ROOT / "tests"), str(ROOT), *filter(None, sys.path)]
    options = [f"{key}={json.dumps(value)}" for key, value in engine.items()]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(folder), str(out), kind, *options],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
            **(env or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_images(driver: subprocess.Popen[str], at_least: int) -> list[psutil.Process]:
    """Wait until a driver has done so many images; the processes it has started by then."""
    lines = []
    for line in driver.stdout:
        lines.append(line)
        if line.startswith("images") and int(line.split()[1]) >= at_least:
            return psutil.Process(driver.pid).children(recursive=True)
    raise AssertionError(f"the driver ended: {lines[-3:]} {driver.stderr.read()}")


def main(arguments: list[str]) -> int:
    """Run and print the number of images done."""
    from tests.support.scripted import scripted_config, scripted_parts
    from textspot_ray.engine.run import exit_code, run
    from textspot_ray.errors import TextspotError

    folder, out, kind = arguments[:3]
    engine = {k: json.loads(v) for k, _, v in (a.partition("=") for a in arguments[3:])}

    def show(progress: object) -> None:
        print(f"images {progress.images}", flush=True)

    try:
        report = run(
            scripted_config(Path(out), kind=kind, **engine),
            parts=scripted_parts(Path(folder)),
            on_progress=show,
        )
    except TextspotError as exc:
        print(f"error {exc}", flush=True)
        return exc.exit_code
    print(f"report {report.run_counts.images} {report.counts.images}", flush=True)
    return exit_code(report)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
