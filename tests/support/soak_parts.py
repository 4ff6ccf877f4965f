"""What the soak spots: images, the stub bundle, a brake, and images that kill their process."""

from __future__ import annotations

import io
import os
import random
import tarfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.support.bundles import ALPHABET, GRID, draw_word, encode_image
from tests.support.lines_bundle import CHARACTERS, draw_line
from textspot_ray.config import RunConfig
from textspot_ray.engine.components import Components, components_from
from textspot_ray.engine.sizing import Threads
from textspot_ray.engine.slot.ports import Detects, Models, Reads
from textspot_ray.records import DetectedPage

HEIGHT, WIDTH = 384, 640  # of the stub detector's input, and of the images
POISON = b"this image ends its process"  # after the end of a PNG, where decoders do not look


@dataclass(frozen=True)
class BrakedModels:
    """Models that wait before each image, so that a soak of hours costs little of a machine."""

    inner: Models
    sleep_s: float

    def detector(self) -> BrakedDetector:
        return BrakedDetector(self.inner.detector(), self.sleep_s)

    def recognizer(self) -> Reads:
        return self.inner.recognizer()

    def sized(self, threads: Threads) -> BrakedModels:
        return replace(self, inner=self.inner.sized(threads))


class BrakedDetector:
    def __init__(self, inner: Detects, sleep_s: float) -> None:
        self._inner = inner
        self._sleep_s = sleep_s

    def detect(self, data: bytes, page: int = 0) -> tuple[DetectedPage, np.ndarray]:
        if data.endswith(POISON):
            os.abort()
        time.sleep(self._sleep_s)
        return self._inner.detect(data, page)


def soak_parts(config: RunConfig, sleep_s: float) -> Components:
    """The parts of a real run, with the brake."""
    parts = components_from(config)
    recipe = replace(parts.recipe, models=BrakedModels(parts.recipe.models, sleep_s))
    return replace(parts, recipe=recipe)


def picture(rng: random.Random, family: str = "spotting") -> bytes:
    """A PNG with up to three words, some KiB."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if family == "lines":
        for row in rng.sample(range(5), rng.randint(0, 3)):
            text = "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(1, 10)))
            draw_line(image, text, rng.randint(8, 60), 20 + 70 * row, 48)
        return encode_image(image, ".png")
    cell_h, cell_w = HEIGHT // GRID[0], WIDTH // GRID[1]
    for cell in rng.sample(range(GRID[0] * GRID[1]), rng.randint(0, 3)):
        row, column = divmod(cell, GRID[1])
        top, left = row * cell_h, column * cell_w
        text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 6)))
        draw_word(image, text, (left + 4, top + 8, left + cell_w - 3, top + cell_h - 8))
    return encode_image(image, ".png")


def batch(seed: int, images: int, family: str = "spotting") -> dict[str, bytes]:
    """Objects of a bucket that hold so many images: tars, a packed tar, a zip, loose files."""
    rng = random.Random(seed)
    names = [f"photo-{seed:03d}-{n:05d}.png" for n in range(images)]
    pictures = {name: picture(rng, family) for name in names}
    for name in rng.sample(names, max(1, images // 500)):
        pictures[name] = pictures[name][: len(pictures[name]) // 2]  # cut short: an error row
    for name in rng.sample(names, max(1, images // 1000)):
        pictures[name] += POISON
    share = images // 10
    objects = {f"batch-{seed:03d}/loose/{name}": pictures[name] for name in names[:share]}
    objects[f"batch-{seed:03d}/packed.tar.gz"] = _tar(names[share : 2 * share], pictures, "w:gz")
    objects[f"batch-{seed:03d}/some.zip"] = _zip(names[2 * share : 3 * share], pictures)
    rest = names[3 * share :]
    for at in range(0, len(rest), 250):
        objects[f"batch-{seed:03d}/{at:05d}.tar"] = _tar(rest[at : at + 250], pictures, "w")
    return objects


def _tar(names: list[str], pictures: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(pictures[name])
            archive.addfile(info, io.BytesIO(pictures[name]))
    return buffer.getvalue()


def _zip(names: list[str], pictures: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, pictures[name])
    return buffer.getvalue()


def python_path(root: Path) -> str:
    """For processes that must find the package and the tests."""
    return os.pathsep.join([str(root), str(root / "tests"), os.environ.get("PYTHONPATH", "")])
