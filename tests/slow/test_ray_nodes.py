"""Several Ray nodes on one machine: one dies in mid-run, one joins, and nothing is lost."""

from __future__ import annotations

import threading

import psutil
import pytest
from helpers.scripted import scripted_config, scripted_parts, write_images
from helpers.tables_equal import all_rows

from textspot_ray.cluster.engine import run

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def cluster(monkeypatch):
    import os
    import sys
    from pathlib import Path

    from ray.cluster_utils import Cluster

    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", path)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8},
    )
    yield cluster
    cluster.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=10**8)


def test_a_node_that_dies_and_one_that_joins(tmp_path, cluster):
    count = 400
    folder = write_images(tmp_path / "in", [f"words=w{n};sleep=0.1" for n in range(count)])
    first, _ = add_node(cluster), add_node(cluster)
    events: list[str] = []
    done = threading.Event()

    def change(progress):
        if progress.images >= 60 and not events:
            events.append("killed")
            cluster.remove_node(first, allow_graceful=False)
        elif progress.images >= 120 and len(events) == 1:
            events.append("added")
            add_node(cluster)
        if progress.final:
            done.set()

    config = scripted_config(tmp_path / "out", kind="ray", address=cluster.address)
    report = run(config, parts=scripted_parts(folder), on_progress=change)
    assert events == ["killed", "added"] and done.is_set()
    assert report.counts.images == count and report.counts.failed == 0
    tables = all_rows(tmp_path / "out")
    assert [row["text"] for row in tables["words"]] == [f"w{n}" for n in range(count)]
    assert len(tables["images"]) == count
    assert psutil.pid_exists(psutil.Process().pid)
