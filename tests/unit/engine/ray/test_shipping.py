"""A node that lacks the driver's bundle gets it once, whole and verified."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.config import RunConfig
from textspot_ray.engine.ray.shipping import ShippedModels, ship_bundle
from textspot_ray.engine.sizing import Threads
from textspot_ray.engine.slot.ports import BundleModels
from textspot_ray.engine.slot.slot import Job, Recipe
from textspot_ray.errors import BundleError
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.settings import SpotterSettings

NAME = "text-spotting-0003"
FILES = ("bundle.yaml", "detector.bin", "detector.xml", "encoder.xml", "decoder.xml")

pytestmark = pytest.mark.ray


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: object) -> ShippedModels:
    """Models shipped by a driver that has the published model, seen from a node without it."""
    driver, node = tmp_path / "driver", tmp_path / "node"
    write_stub_bundle(driver / "models" / NAME)
    monkeypatch.setenv("TEXTSPOT_CACHE", str(driver))
    models = BundleModels(SpotterSettings(NAME), 1)
    recipe = Recipe(models, lambda: None, lambda *args: None)  # type: ignore
    job = ship_bundle(Job(RunConfig(), "run", {}, recipe))
    monkeypatch.setenv("TEXTSPOT_CACHE", str(node))
    assert isinstance(job.recipe.models, ShippedModels)
    return job.recipe.models


def unpacked(models: ShippedModels) -> Path:
    return Path(models.local().settings.model)


def test_a_node_without_the_bundle_unpacks_it_once(shipped: ShippedModels, tmp_path: Path) -> None:
    folder = unpacked(shipped)
    assert folder.is_relative_to(tmp_path / "node")
    load_bundle(str(folder)).verify("f32")
    before = {name: (folder / name).stat().st_mtime_ns for name in FILES}
    assert unpacked(shipped.sized(Threads(2, 1, 2))) == folder  # the next actor
    assert {name: (folder / name).stat().st_mtime_ns for name in FILES} == before
    import cv2

    photo = cv2.imencode(".png", draw({5: "shipped"}))[1].tobytes()
    page, features = shipped.detector().detect(photo)
    assert len(page.detections) == 1
    assert [r.text for r in shipped.recognizer().read(features).readings] == ["shipped"]


def test_a_nodes_own_bundle_is_used_only_if_it_is_the_same(
    shipped: ShippedModels, tmp_path: Path
) -> None:
    own = tmp_path / "node" / "models" / NAME
    shutil.copytree(tmp_path / "driver" / "models" / NAME, own)
    assert shipped.local() is shipped.models
    shutil.rmtree(own)
    write_stub_bundle(own, rows="dynamic")  # the same name, another release
    assert unpacked(shipped) != own
    load_bundle(str(unpacked(shipped))).verify("f32")


def test_damage_is_healed(shipped: ShippedModels) -> None:
    folder = unpacked(shipped)
    (folder / "detector.xml").write_text("<html>")
    (folder / "encoder.xml").unlink()
    assert unpacked(shipped) == folder
    load_bundle(str(folder)).verify("f32")


def test_actors_that_start_together_unpack_once(
    shipped: ShippedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Path] = []
    unpack = ShippedModels._unpack

    def counted(self: ShippedModels, folder: Path) -> None:
        done.append(folder)
        unpack(self, folder)

    monkeypatch.setattr(ShippedModels, "_unpack", counted)
    threads = [threading.Thread(target=shipped.local) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1


def test_what_does_not_arrive_as_sent_is_refused(shipped: ShippedModels) -> None:
    files = dict(shipped.files, **{"detector.xml": shipped.files["encoder.xml"]})
    with pytest.raises(BundleError, match=r"detector\.xml is damaged"):
        replace(shipped, files=files).local()


def test_a_cache_that_cannot_be_written_is_one_line(
    shipped: ShippedModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "file"))
    with pytest.raises(BundleError, match=r"cannot be written on this node.*TEXTSPOT_CACHE"):
        shipped.local()
