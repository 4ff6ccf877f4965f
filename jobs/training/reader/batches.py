"""Batches for the reader: rendered and real words, each distorted anew."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.data.word_crop import Crop, Floats, Image, Renderer, Word
from jobs.training.loop.feed import feed
from jobs.training.reader.crops import MAX_TARGET
from jobs.training.reader.cutting import cut
from jobs.training.reader.distortions import real_example, rendered_example
from jobs.training.refiner.rectification import PATCH_HEIGHT, PATCH_WIDTH
from jobs.training.render.words import target_of


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples ready for the network.

    Attributes:
        pixels: [K, 56, 224, 3] uint8, BGR.
        codes: [K, 2] float32 shape codes of :func:`rectification.sampling_grid`.
        texts: targets.
        rendered: [K] bool; False for real crops.
    """

    pixels: Image
    codes: Floats
    texts: list[str]
    rendered: NDArray[np.bool_]


class WordSource:
    """Endless batches of rendered and real examples.

    Rendering costs more than distorting, so rendered words live in a pool, of which a share is
    replaced with every batch; each word is seen a few times, each time distorted anew.
    """

    def __init__(
        self,
        renderer: Renderer,
        crops: Sequence[Crop],
        seed: int,
        batch: int,
        reuse: float = 3.0,
        pool: int = 6000,
        empties: Sequence[Crop] = (),
        shares: Sequence[float] = (),
    ) -> None:
        """Prepare; nothing is rendered yet.

        Args:
            renderer: gives a word for a generator and a difficulty 0..1.
            crops: real words; may be empty.
            seed: of the generator.
            batch: examples in a batch.
            reuse: how often a rendered word is seen on average.
            pool: rendered words kept.
            empties: places without text, to be read as "".
            shares: how often each real word is drawn, to a common scale; all alike when empty.
        """
        self.renderer = renderer
        self.crops = crops
        self._edges = np.cumsum(shares) if len(shares) else np.arange(1.0, len(crops) + 1)
        self.empties = empties
        self.rng = np.random.default_rng(seed)
        self.batch = batch
        self.reuse = reuse
        self.pool_size = pool
        self.pool: list[Word] = []
        self._debt = 0.0

    def _render(self, difficulty: float) -> Word:
        while True:
            # Denser towards the present difficulty, with easier words never gone.
            word = self.renderer(self.rng, difficulty * float(self.rng.random()) ** 0.3)
            if len(target_of(word.text)) <= MAX_TARGET:
                return word

    def next(self, difficulty: float, real_share: float, empty_share: float = 0.0) -> Batch:
        """Make a batch.

        Args:
            difficulty: 0..1 of newly rendered words.
            real_share: share of real crops.
            empty_share: share of places without text.
        """
        n_empty = self._whole(self.batch * empty_share) if self.empties else 0
        n_real = n_empty + (self._whole(self.batch * real_share) if self.crops else 0)
        n_rendered = self.batch - n_real
        self._debt += n_rendered / self.reuse
        while self._debt >= 1 or (n_rendered and len(self.pool) < self.batch):
            self._debt -= 1
            word = self._render(difficulty)
            if len(self.pool) < self.pool_size:
                self.pool.append(word)
            else:
                self.pool[int(self.rng.integers(len(self.pool)))] = word
        pixels = np.empty((self.batch, PATCH_HEIGHT, PATCH_WIDTH, 3), np.uint8)
        codes = np.empty((self.batch, 2), np.float32)
        texts: list[str] = []
        strength = min(1.0, 0.4 + difficulty)
        for i in range(self.batch):
            if i < n_real:
                crop = self._empty() if i < n_empty else self._real()
                pixels[i], codes[i] = real_example(self.rng, crop, strength)
                texts.append(target_of(crop.text))
            else:
                word = self.pool[int(self.rng.integers(len(self.pool)))]
                pixels[i], codes[i] = rendered_example(self.rng, word, strength)
                texts.append(target_of(word.text))
        return Batch(pixels, codes, texts, np.arange(self.batch) >= n_real)

    def _empty(self) -> Crop:
        return self.empties[int(self.rng.integers(len(self.empties)))]

    def _real(self) -> Crop:
        at = np.searchsorted(self._edges, self.rng.random() * self._edges[-1], side="right")
        return self.crops[min(int(at), len(self.crops) - 1)]

    def _whole(self, share: float) -> int:
        """A whole number that is right on average."""
        return int(share + self.rng.random())

    def state(self) -> dict[str, Any]:
        """The generator's state (the pool is rendered anew after a resume)."""
        return dict(self.rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Set the generator's state."""
        self.rng.bit_generator.state = state


def exact_batch(words: Sequence[Word]) -> Batch:
    """Words cut along their true quads, undistorted: for measuring."""
    views = [cut(w.image, w.quad) for w in words]
    return Batch(
        np.stack([p for p, _ in views]),
        np.stack([c for _, c in views]),
        [target_of(w.text) for w in words],
        np.ones(len(views), np.bool_),
    )


class BatchFeed:
    """Batches made in ``workers`` processes ahead of the network, or in line when 0.

    Args:
        sources: One a process, or one.
        workers: Processes.
    """

    def __init__(self, sources: Sequence[WordSource], workers: int) -> None:
        self.sources = sources
        self._level = multiprocessing.Array("d", 3)
        self._batches = feed(self._made, workers)

    def _made(self, worker: int) -> Iterator[Batch]:
        while True:
            difficulty, real, empty = self._level[:]
            yield self.sources[worker].next(difficulty, real, empty)

    def next(self, difficulty: float, real_share: float, empty_share: float) -> Batch:
        """The next batch; the arguments hold for batches begun from now on."""
        self._level[:] = [difficulty, real_share, empty_share]
        return next(self._batches)
