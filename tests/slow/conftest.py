"""Clusters of several Ray nodes on one machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.ray_nodes import start_patiently


@pytest.fixture
def make_cluster(monkeypatch):
    """Makes clusters with a head that has no CPUs; they end with the test."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = []

    def make():
        args = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
        cluster = start_patiently(lambda: Cluster(initialize_head=True, head_node_args=args))
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.shutdown()


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()
