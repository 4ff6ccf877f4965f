"""No code is imported from the folder that the program is started in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from textspot_ray.import_path import package_root, safe_path

ROOT = Path(package_root())
# Names that the driver, the local child and Ray's workers all import sooner or later.
TRAPS = ("cv2", "openvino", "PIL", "pyarrow", "psutil", "yaml", "fsspec", "textspot_plugin")
PROGRAMS = {
    "module": [sys.executable, "-m", "textspot_ray"],
    # what pip makes of the entry point: a script in the interpreter's own folder
    "console script": [sys.executable, "{script}"],
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of one photograph, and of modules that leave a mark when they are imported."""
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((64, 64, 3), 255, np.uint8))
    for name in TRAPS:
        mark = folder / f"{name}.imported"
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    return folder


def marks(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.imported"))


def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")}
    kept["TEXTSPOT_CACHE"] = str(tmp_path / "cache")
    # an empty entry is the working folder to Python; it comes last, after this package's
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}"}


def run_in(folder: Path, tmp_path: Path, program: str, engine: str) -> None:
    script = tmp_path / "bin" / "textspot"
    script.parent.mkdir()
    script.write_text("import sys\nfrom textspot_ray.cli import main\nsys.exit(main())\n")
    command = [part.format(script=script) for part in PROGRAMS[program]]
    command += ["run", ".", "--out", str(tmp_path / "out"), "--engine", engine, "--quiet"]
    done = subprocess.run(
        command, cwd=folder, env=environment(tmp_path), capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "images").glob("*.parquet"))) == 1


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_local_engine(photos: Path, tmp_path: Path, program: str) -> None:
    run_in(photos, tmp_path, program, "local")
    assert marks(photos) == []


@pytest.mark.ray
def test_ray_engine(photos: Path, tmp_path: Path) -> None:
    run_in(photos, tmp_path, "console script", "ray")
    assert marks(photos) == []


def test_the_traps_are_imported_where_nothing_guards(photos: Path, tmp_path: Path) -> None:
    for name in TRAPS:
        subprocess.run(
            [sys.executable, "-c", f"import {name}"], cwd=photos, env=environment(tmp_path)
        )
    assert marks(photos) == sorted(TRAPS)


def test_a_folder_that_pythonpath_names_stays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ["", str(tmp_path), "/usr/lib/python3"]
    assert safe_path(path, {}) == ["/usr/lib/python3"]
    assert safe_path(path, {"PYTHONPATH": os.pathsep}) == ["/usr/lib/python3"]
    assert safe_path(path, {"PYTHONPATH": str(tmp_path)}) == path[1:]


def test_a_checkout_stays(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert safe_path(["", str(ROOT)], {}) == [str(ROOT)]
