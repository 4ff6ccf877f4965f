"""The public names are there, and importing the package loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import textspot_ray


@pytest.mark.parametrize("name", textspot_ray.__all__)
def test_public_names_resolve(name: str) -> None:
    assert getattr(textspot_ray, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        textspot_ray.nonesuch  # noqa: B018


def test_import_is_light() -> None:
    code = (
        "import sys, textspot_ray; "
        "heavy = {'ray', 'openvino', 'cv2', 'pyarrow', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_loading_the_models_runtime_tells_nobody(tmp_path: Path) -> None:
    code = (
        "import os; os.register_at_fork(before=lambda: print('forked'))\n"
        "import textspot_ray.spotting.runtime, openvino.tools.ovc"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment["HOME"] = str(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert not list(tmp_path.glob("intel*")), "an id for OpenVINO's analytics was made"
