"""Real clusters that cannot do the work: one line that says what to do, before work starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ray_nodes import start_patiently

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

PHOTO = Path(__file__).parents[2] / "jobs" / "demo" / "photos" / "scene_9.jpg"
# A node's Python imports this first; what it hides is not installed there.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def textspot(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "textspot_ray", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def run_on(address: str, out: Path) -> subprocess.CompletedProcess[str]:
    return textspot("run", str(PHOTO), "--out", str(out), "--address", address, "-q")


def nothing_was_done(out: Path) -> bool:
    return not [path for path in out.rglob("*.parquet") if path.parent.name != "plan"]


@pytest.mark.parametrize("package", ["textspot_ray", "openvino"])
def test_a_package_that_a_worker_lacks(package, tmp_path, cluster):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDE.format(name=package))
    environment = {"PYTHONPATH": str(hidden)}
    start_patiently(
        lambda: cluster.add_node(
            num_cpus=1, object_store_memory=10**8, env_vars=environment, include_dashboard=False
        )
    )
    done = run_on(cluster.address, tmp_path / "out")
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"a node of the Ray cluster cannot import {package}" in done.stderr
    assert "install the same textspot-ray there as here" in done.stderr
    assert done.returncode == 2
    assert nothing_was_done(tmp_path / "out")

    if package == "textspot_ray":
        told = textspot("doctor", "--address", cluster.address)
        (line,) = [line for line in told.stdout.splitlines() if line.startswith("fail")]
        assert line.startswith("fail  nodes") and "No module named 'textspot_ray'" in line
        assert "install the same textspot-ray there" in line
        assert told.returncode == 5


def test_another_ray_on_the_cluster(tmp_path, make_cluster, monkeypatch):
    import ray

    own = ray.__version__
    with monkeypatch.context() as patch:
        patch.setattr(ray, "__version__", "2.40.0")  # what the head will say of itself
        cluster = make_cluster()
    done = run_on(cluster.address, tmp_path / "out")
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the cluster at {cluster.address} runs Ray 2.40.0 on Python 3." in done.stderr
    assert f"this machine Ray {own} on Python" in done.stderr
    assert done.returncode == 2
    assert nothing_was_done(tmp_path / "out")
