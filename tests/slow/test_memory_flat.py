"""Unique memory (USS), threads and open files of every process stay flat over a long run.

5,000 images by default; for the figure of a longer run::

    TEXTSPOT_SOAK_IMAGES=20000 python -m pytest -m slow -s --timeout=7200 \
        tests/slow/test_memory_flat.py -k "bundle"
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.support.lines_bundle import dark, draw_line, write_lines_bundle
from tests.support.scripted import scripted_config, scripted_parts, write_images
from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.config import config_from_dict
from textspot_ray.engine.run import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

IMAGES = int(os.environ.get("TEXTSPOT_SOAK_IMAGES", "5000"))
WORDS = ",".join(f"word{n}" for n in range(8))  # 1.6 MB of features an image
MIB = 2**20
WARM_UP = 0.2  # of the run: pools and caches fill
WINDOWS = 8  # that the rest is cut into
MAX_GROWTH = 0.10
# What may come and go besides: allocators' pools, and on a busy machine more writers at a time. A
# leak of one file a shard would be dozens, one of 5 kB an image 16 MiB in 3,500 images.
MORE = {"uss": 16 * MIB, "threads": 3, "files": 5}
SAMPLE_S = 1.0  # reading a process's USS costs milliseconds
NAMES = ("textspot_ray.engine.local_child", "RunnerActor", "DetectorActor", "RecognizerActor",
         "raylet --", "gcs_server")  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What a process held when that many images were done."""

    images: int
    uss: int
    threads: int
    files: int


class Watch:
    """Samples this process, the local engine's child, and Ray's actors and daemons."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self._next_s = 0.0

    def __call__(self, progress) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + SAMPLE_S
        me = psutil.Process()
        self._sample("driver", me, progress.images)
        for process in me.children(recursive=True):
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            for name in NAMES:
                if name in command:
                    self._sample(f"{name} {process.pid}", process, progress.images)

    def _sample(self, name: str, process: psutil.Process, images: int) -> None:
        try:
            with process.oneshot():
                uss, threads = process.memory_full_info().uss, process.num_threads()
                sample = Sample(images, uss, threads, process.num_fds())
        except psutil.Error:
            return
        self.samples.setdefault(name, []).append(sample)

    def check(self, images: int, processes: int) -> None:
        """Fail if a process that was there all along has grown.

        The last window is held against the lowest one before it. Only growth counts: Ray's raylet
        and drivers give memory of their start back in mid-run (45 % of a raylet's was seen), which
        leaks nothing; and against the lowest window, what was given back cannot hide a leak.
        """
        grown = []
        watched = 0
        for name, samples in self.samples.items():
            edges = [images * (WARM_UP + (1 - WARM_UP) * n / WINDOWS) for n in range(WINDOWS + 1)]
            windows = [[s for s in samples if a <= s.images <= b] for a, b in pairwise(edges)]
            if not all(windows):
                continue  # started anew on the way
            watched += 1
            for what in ("uss", "threads", "files"):
                medians = [statistics.median(getattr(s, what) for s in w) for w in windows]
                lowest, last = min(medians[:-1]), medians[-1]
                unit = MIB if what == "uss" else 1
                shown = " ".join(f"{m / unit:.1f}" for m in medians)
                print(f"{name} {what}: {shown}")
                if last > lowest * (1 + MAX_GROWTH) and last > lowest + MORE[what]:
                    grown.append(f"{name} {what}: {lowest / unit:.1f} -> {last / unit:.1f}")
        assert watched >= processes, sorted(self.samples)
        assert not grown, grown


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_memory_is_flat(tmp_path, request, kind):
    if kind == "ray":
        request.getfixturevalue("ray_cluster")
    folder = write_images(tmp_path / "in", [f"words={WORDS}"] * IMAGES)
    watch = Watch()
    config = scripted_config(Path(tmp_path / "out"), kind=kind, min_deadline_s=60.0)
    report = run(config, parts=scripted_parts(folder), on_progress=watch)
    assert report.counts.images == IMAGES
    watch.check(IMAGES, 2 if kind == "local" else 4)


def test_memory_is_flat_with_a_bundle_on_ray(tmp_path, ray_cluster):
    """OpenVINO's requests, the decoder and the tables' writer are in it as well."""
    import cv2

    bundle = write_stub_bundle(tmp_path / "stub")
    photos = tmp_path / "in"
    photos.mkdir()
    for n in range(IMAGES):
        if n < 50:
            words = {n: "leak", n + 40: "proof"} if n % 5 else {}
            cv2.imwrite(str(photos / f"{n:06d}.png"), draw(words, 640, 384))
        else:
            os.link(photos / f"{n % 50:06d}.png", photos / f"{n:06d}.png")
    config = config_from_dict(
        {
            "source": {"uris": [str(photos)]},
            "model": {"name": str(bundle)},
            # A busy machine must not have actors replaced for being slow.
            "engine": {"kind": "ray", "min_deadline_s": 600.0, "start_timeout_s": 600.0},
            "output": {"uri": str(tmp_path / "out"), "max_shard_items": 64},
        }
    )
    watch = Watch()
    began_s = time.monotonic()
    report = run(config, on_progress=watch)
    print(f"{IMAGES} images, {report.counts.words} words in {time.monotonic() - began_s:.0f} s")
    assert report.counts.images == IMAGES and report.counts.failed == 0
    watch.check(IMAGES, 5)


@pytest.mark.parametrize("model", ["tiny", "ppocrv6-small"])
def test_memory_is_flat_with_lines_of_many_shapes(tmp_path, model):
    """Pictures and lines of some sixty widths each: shapes that OpenVINO has code to keep for."""
    import cv2

    from textspot_ray.spotting.ppocr import installed_bundle

    if model != "tiny" and installed_bundle(model) is None:
        pytest.skip("rapidocr is not installed (extra ppocr)")
    name = str(write_lines_bundle(tmp_path / "tiny")) if model == "tiny" else model
    images = IMAGES if model == "tiny" else IMAGES // 5  # a fifth of a second each
    photos = tmp_path / "in"
    photos.mkdir()
    for n in range(images):
        if n < 60:
            picture = dark(400 + 16 * n, 300 + 8 * n, seed=n)
            draw_line(picture, "leak" * (1 + n % 5), 20, 40, 20 + n % 7)
            cv2.imwrite(str(photos / f"{n:06d}.png"), picture)
        else:
            os.link(photos / f"{n % 60:06d}.png", photos / f"{n:06d}.png")
    config = config_from_dict(
        {
            "source": {"uris": [str(photos)]},
            "model": {"name": name},
            "engine": {"kind": "local", "min_deadline_s": 600.0, "start_timeout_s": 600.0},
            "output": {"uri": str(tmp_path / "out")},
        }
    )
    watch = Watch()
    report = run(config, on_progress=watch)
    assert report.counts.images == images and report.counts.failed == 0
    watch.check(images, 2)
