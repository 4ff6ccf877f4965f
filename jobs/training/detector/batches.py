"""Batches of crops for the detector, drawn from photographs and rendered scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.training.data.datasets import ByteArray, FloatArray, Photo, PhotoWord
from jobs.training.detector.crops import CropRules, base_scale, random_crop, recolour, target_maps
from jobs.training.render.fonts import find_fonts
from jobs.training.render.scenes import Scene
from jobs.training.render.surfaces import load_backgrounds
from jobs.training.render.words import load_vocabulary
from jobs.training.render.worlds import Props, render_picture

# Decoded photos that a source of a worker keeps; of thirteen sources they would be 13 GB in all.
_KEPT_BYTES = 150_000_000


@dataclass(slots=True)
class Source:
    """A set of photos that crops are drawn from; some decoded photos are kept in memory.

    Attributes:
        photos: What to draw from.
        share: Relative frequency of its crops.
        rules: How to crop.
    """

    photos: list[Photo]
    share: float
    rules: CropRules
    cache: dict[int, ByteArray] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator) -> tuple[ByteArray, list[PhotoWord]]:
        """Draw one augmented crop."""
        index = int(rng.integers(len(self.photos)))
        photo = self.photos[index]
        image = self.cache.get(index)
        if image is None:
            image = photo.pixels()
            if sum(kept.nbytes for kept in self.cache.values()) + image.nbytes <= _KEPT_BYTES:
                self.cache[index] = image
        return random_crop(
            rng, image, photo.words, self.rules, base_scale(image.shape[1], image.shape[0])
        )


@dataclass(slots=True)
class SceneSource:
    """Rendered pictures: a pool renewed as it is used, since rendering costs more than cropping.

    Attributes:
        share: Relative frequency of its crops.
        rules: How to crop.
        backgrounds: Folder of photos to render on, or None for made-up surfaces only.
        pool_size: Scenes kept.
        uses: Crops taken from a scene on average before it is replaced.
    """

    share: float
    rules: CropRules
    backgrounds: Path | None
    pool_size: int = 400
    uses: int = 6
    pool: list[tuple[ByteArray, list[PhotoWord]]] = field(default_factory=list)
    render: Callable[[np.random.Generator], Scene] | None = None

    def draw(self, rng: np.random.Generator) -> tuple[ByteArray, list[PhotoWord]]:
        """Draw one augmented crop."""
        if not self.pool or rng.random() < 1 / self.uses:
            scene = self._rendered(rng)
            words = [PhotoWord(grown(w.quad), w.text, w.legible) for w in scene.words]
            if len(self.pool) < self.pool_size:
                self.pool.append((scene.image, words))
            else:
                self.pool[int(rng.integers(self.pool_size))] = (scene.image, words)
        image, words = self.pool[int(rng.integers(len(self.pool)))]
        stretch = base_scale(image.shape[1], image.shape[0])
        return random_crop(rng, image, words, self.rules, stretch)

    def _rendered(self, rng: np.random.Generator) -> Scene:
        if self.render is None:
            library = load_backgrounds(self.backgrounds) if self.backgrounds else None
            props = Props(find_fonts(), load_vocabulary(), library)
            self.render = lambda r: render_picture(r, props)
        return self.render(rng)


def grown(quad: FloatArray, share: float = 0.06) -> FloatArray:
    """Move all sides of a quad outwards by a share of its height: people draw boxes loosely."""
    along = (quad[1] - quad[0] + quad[2] - quad[3]) / 2
    down = (quad[3] - quad[0] + quad[2] - quad[1]) / 2
    margin = share * float(np.hypot(*down))
    u = along / max(float(np.hypot(*along)), 1e-6) * margin
    v = down / max(float(np.hypot(*down)), 1e-6) * margin
    return np.asarray(quad + np.stack([-u - v, u - v, u + v, v - u]), np.float32)


class Batches:
    """Endless batches from several sources, in the proportions of their shares."""

    def __init__(self, sources: Sequence[Source | SceneSource], batch: int, seed: int) -> None:
        self.sources = list(sources)
        self.batch = batch
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shares = np.array([s.share for s in self.sources], np.float64)
        shares /= shares.sum()
        while True:
            images, targets = [], []
            for choice in self.rng.choice(len(self.sources), self.batch, p=shares):
                image, words = self.sources[int(choice)].draw(self.rng)
                images.append(recolour(self.rng, image))
                targets.append(target_maps(words, image.shape[0]))
            stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            yield stacked.float(), torch.from_numpy(np.stack(targets))
