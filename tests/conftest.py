"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine may take its time over an example: how long is a question for jobs.bench. The suite
# says the same twice; HYPOTHESIS_PROFILE=explore tries other examples every time.
settings.register_profile("textspot", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "textspot"))

# A shell that starts the suite in the background has it ignore Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ray_cluster():
    """Ray on this machine started once; workers see the tests' helpers."""
    ray = pytest.importorskip("ray")
    from textspot_ray.config import EngineConfig
    from textspot_ray.engine.ray.cluster import RayCluster

    tests = Path(__file__).parent
    path = [str(tests), str(tests.parent), *filter(None, sys.path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(dict.fromkeys(path)))
        patch.delenv("RAY_ADDRESS", raising=False)
        with RayCluster(EngineConfig(max_bytes_in_flight=200 * 2**20), "tests"):
            yield ray
