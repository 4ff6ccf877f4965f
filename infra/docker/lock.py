"""Write the lock files of the image: every version that pip resolves, with its checksum.

Run on CPython 3.11, Linux x86-64, from the repository's root: ``python infra/docker/lock.py``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
EXTRAS = "s3,gcs,azure,http,browse,jobs"
LOCKS = {
    "requirements.lock": (
        [f"{ROOT}[{EXTRAS}]"],
        "What the image installs: versions and wheel checksums for CPython 3.11 on Linux x86-64.\n"
        f"# Made by infra/docker/lock.py from the extras {EXTRAS}.",
    ),
    "requirements-build.lock": (
        ["setuptools>=69", "wheel"],
        "What builds the wheel inside the image; made by infra/docker/lock.py, not in the result.",
    ),
}


def lock(requirements: list[str]) -> list[str]:
    """Lines ``name==version --hash=sha256:...`` of all that the requirements pull in."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*command, *requirements], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = []
    for package in found:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        if name != "textspot-ray":
            digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name}=={package['metadata']['version']} --hash=sha256:{digest}")
    return sorted(lines)


def main() -> None:
    """Write both files."""
    for name, (requirements, title) in LOCKS.items():
        text = "\n".join([f"# {title}", *lock(requirements)]) + "\n"
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
