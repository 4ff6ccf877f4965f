"""A model fetched on the driver's machine alone runs on every node of the cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from tests.support.tables_equal import all_rows
from textspot_ray.config import config_from_dict
from textspot_ray.engine.run import run

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

NAME = "text-spotting-0003"


@pytest.fixture
def cluster(monkeypatch):
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


def test_each_node_gets_the_bundle_once(tmp_path, cluster, monkeypatch):
    nodes = [tmp_path / "node1", tmp_path / "node2"]
    for cache in nodes:
        env = {"TEXTSPOT_CACHE": str(cache)}
        cluster.add_node(num_cpus=1, object_store_memory=10**8, env_vars=env)
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "driver"))
    write_stub_bundle(tmp_path / "driver" / "models" / NAME)
    photos = tmp_path / "in"
    photos.mkdir()
    for n in range(64):
        cv2.imwrite(str(photos / f"{n:02d}.png"), draw({n: f"word{n}"}))
    config = config_from_dict(
        {
            "source": {"uris": [str(photos)]},
            "model": {"name": NAME},
            "engine": {"kind": "ray", "address": cluster.address, "min_deadline_s": 60.0},
            "output": {
                "uri": str(tmp_path / "out"),
                "min_shard_items": 4,
                "max_shard_items": 4,
            },
        }
    )
    report = run(config)
    assert report.counts.images == 64 and report.counts.failed == 0
    words = [row["text"] for row in all_rows(tmp_path / "out")["words"]]
    assert words == [f"word{n}" for n in range(64)]
    for cache in nodes:
        (folder,) = (p for p in (cache / "shipped").iterdir() if p.is_dir())
        assert (folder / "detector.bin").is_file()
        assert not (cache / "models").exists()
