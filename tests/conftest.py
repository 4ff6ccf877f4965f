"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """Ray on this machine with two CPUs, started once; workers see the tests' helpers."""
    ray = pytest.importorskip("ray")
    tests = Path(__file__).parent
    path = [str(tests), str(tests.parent), *filter(None, sys.path)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=200 * 2**20,
    )
    yield ray
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
