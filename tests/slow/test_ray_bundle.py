"""Real bundles and files on clusters of several nodes."""

from __future__ import annotations

from collections import Counter

import cv2
import pytest
from PIL import Image

from tests.support.ray_nodes import add_node
from tests.support.stub_bundle import draw, write_stub_bundle
from tests.support.tables_equal import all_rows
from textspot_ray.config import config_from_dict
from textspot_ray.engine.progress import Tally
from textspot_ray.engine.run import run
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import PAGES

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

NAME = "text-spotting-0003"


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


def test_slots_share_the_pages_of_a_tiff_and_the_table_is_that_of_one_slot(
    tmp_path, cluster, monkeypatch
):
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "cache"))
    write_stub_bundle(tmp_path / "cache" / "models" / NAME)
    n_pages = 300
    pages = [Image.fromarray(draw({n % 96: f"p{n}"}, 320, 192)[:, :, ::-1]) for n in range(n_pages)]
    rest = {"save_all": True, "append_images": pages[1:]}
    pages[0].save(tmp_path / "a.tif", compression="tiff_adobe_deflate", **rest)
    add_node(cluster), add_node(cluster)
    pages_of = Counter[int]()
    add = Tally.add

    def count(tally, slot, report):
        pages_of[slot] += sum(min(b.stop, n_pages) - b.start for b in report.helped)
        add(tally, slot, report)

    monkeypatch.setattr(Tally, "add", count)

    def run_on(kind, **engine):
        uri = str(tmp_path / kind)
        engine = {"kind": kind, "min_deadline_s": 60.0, **engine}
        source, model = {"uris": [str(tmp_path / "a.tif")]}, {"name": NAME}
        config = {"source": source, "model": model, "engine": engine, "output": {"uri": uri}}
        report = run(config_from_dict(config))
        assert report.counts.images == report.run_counts.images == n_pages
        return all_rows(tmp_path / kind)

    one = run_on("local")
    assert [row["text"] for row in one["words"]].count("p299") == 1 and not pages_of.total()
    assert run_on("ray", address=cluster.address) == one
    print(f"pages done for the slot that had the file: {dict(pages_of)}")
    assert len(pages_of) == 2 and sum(pages > 0 for pages in pages_of.values()) == 1
    assert not list(open_store(str(tmp_path / "ray")).list(PAGES))
