"""Two slots of a Ray cluster at one long file."""

from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from tests.support.scripted import scripted_config, scripted_parts, write_images
from tests.support.stub_bundle import draw, write_stub_bundle
from tests.support.tables_equal import all_rows
from textspot_ray.config import config_from_dict
from textspot_ray.engine.ray.scheduler import Scheduler
from textspot_ray.engine.run import run
from textspot_ray.engine.slot.slot import Report
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.commit_record import PAGES

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]

TWO = {"slots": 2, "cpus_per_slot": 0.5, "min_deadline_s": 60.0, "start_timeout_s": 600.0}


class Watch:
    """Notes which slots have a long file and which have done pages for others, and kills one."""

    def __init__(self, monkeypatch, kill: str = "") -> None:
        self.owners: set[int] = set()
        self.pages: Counter[int] = Counter()
        self.killed: list[int] = []
        take = Scheduler._take

        def watch(scheduler, slot, answer):
            take(scheduler, slot, answer)
            if not isinstance(answer, Report):
                return
            if answer.long_files:
                self.owners.add(slot.number)
            for block in answer.helped:
                self.pages[slot.number] += block.stop - block.start
            if answer.helped and kill and not self.killed:
                self.killed.append(slot.number if kill == "helper" else min(self.owners))
                (victim,) = [s for s in scheduler._slots if s.number == self.killed[0]]
                ray.kill(victim.runner)

        ray = pytest.importorskip("ray")
        monkeypatch.setattr(Scheduler, "_take", watch)


def test_slots_share_the_pages_of_a_tiff_and_the_table_is_that_of_one_slot(
    tmp_path, ray_cluster, monkeypatch
):
    bundle, file, n_pages = write_stub_bundle(tmp_path / "bundle"), tmp_path / "a.tif", 300
    first, *rest = [
        Image.fromarray(draw({n % 96: f"p{n}"}, 320, 192)[:, :, ::-1]) for n in range(n_pages)
    ]
    first.save(file, compression="tiff_adobe_deflate", save_all=True, append_images=rest)
    watch = Watch(monkeypatch)

    def run_on(kind, **engine):
        config = {
            "source": {"uris": [str(file)]},
            "model": {"name": str(bundle)},
            "engine": {"kind": kind, "min_deadline_s": 60.0, **engine},
            "output": {"uri": str(tmp_path / kind)},
        }
        report = run(config_from_dict(config))
        assert report.counts.images == report.run_counts.images == n_pages
        return all_rows(tmp_path / kind)

    one = run_on("local")
    assert [row["text"] for row in one["words"]].count("p299") == 1
    assert run_on("ray", **TWO) == one
    print(f"slot {watch.owners} had the file, and others have done pages: {dict(watch.pages)}")
    assert len(watch.owners) == len(watch.pages) == 1 and not watch.owners & set(watch.pages)
    assert not list(open_store(str(tmp_path / "ray")).list(PAGES))


@pytest.mark.parametrize("who", ["helper", "owner"])
def test_whoever_is_killed_at_a_long_file_costs_time_alone(tmp_path, ray_cluster, monkeypatch, who):
    folder = write_images(tmp_path / "in", ["words=a;pages=400;sleep=0.05", "words=b"])
    run(scripted_config(tmp_path / "one"), parts=scripted_parts(folder))
    watch = Watch(monkeypatch, who)
    report = run(scripted_config(tmp_path / "out", kind="ray", **TWO), parts=scripted_parts(folder))
    assert watch.killed and report.run_counts.images == 401
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "one")
    assert len(watch.owners) == (1 if who == "helper" else 2)
    assert not list(open_store(str(tmp_path / "out")).list(PAGES))
