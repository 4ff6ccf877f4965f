"""Unique memory (USS) of every process stays flat from image 1,000 to image 5,000."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import psutil
import pytest
from helpers.scripted import scripted_config, scripted_parts, write_images

from textspot_ray.cluster.engine import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

WORDS = ",".join(f"word{n}" for n in range(8))  # 1.6 MB of features an image
MIB = 2**20


def our_processes() -> dict[str, psutil.Process]:
    """This process, the local engine's child, and Ray's actors and daemons, by name."""
    me = psutil.Process()
    found = {"driver": me}
    for process in me.children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        for name in ("textspot_ray.cluster.child", "RunnerActor", "DetectorActor",
                     "RecognizerActor", "raylet --", "gcs_server"):  # fmt: skip
            if name in command:
                found[f"{name} {process.pid}"] = process
    return found


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_memory_is_flat(tmp_path, request, kind):
    if kind == "ray":
        request.getfixturevalue("ray_cluster")
    images = int(os.environ.get("TEXTSPOT_SOAK_IMAGES", "5000"))
    folder = write_images(tmp_path / "in", [f"words={WORDS}"] * images)
    samples: dict[str, list[tuple[int, int]]] = {}

    def sample(progress):
        for name, process in our_processes().items():
            try:
                uss = process.memory_full_info().uss
            except psutil.Error:
                continue
            samples.setdefault(name, []).append((progress.images, uss))

    config = scripted_config(Path(tmp_path / "out"), kind=kind, min_deadline_s=60.0)
    report = run(config, parts=scripted_parts(folder), on_progress=sample)
    assert report.counts.images == images
    grown = {}
    for name, points in samples.items():
        early = [uss for n, uss in points if images * 0.2 <= n < images * 0.3]
        late = [uss for n, uss in points if n >= images * 0.9]
        if early and late:
            before, after = statistics.median(early), statistics.median(late)
            print(f"{kind} {name}: {before / MIB:.1f} -> {after / MIB:.1f} MiB")
            grown[name] = (after - before) / before
    assert len(grown) >= (2 if kind == "local" else 4)
    assert all(growth <= 0.10 for growth in grown.values()), grown
