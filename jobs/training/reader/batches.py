"""Batches for the reader: rendered and real words, each distorted anew."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.data.word_crop import Crop, Floats, Image, Renderer, Word
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
        """
        self.renderer = renderer
        self.crops = crops
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
                real = self.empties if i < n_empty else self.crops
                crop = real[int(self.rng.integers(len(real)))]
                pixels[i], codes[i] = real_example(self.rng, crop, strength)
                texts.append(target_of(crop.text))
            else:
                word = self.pool[int(self.rng.integers(len(self.pool)))]
                pixels[i], codes[i] = rendered_example(self.rng, word, strength)
                texts.append(target_of(word.text))
        return Batch(pixels, codes, texts, np.arange(self.batch) >= n_real)

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
    """Batches made in ``workers`` threads ahead of the network, or in line when 0.

    OpenCV and numpy release the interpreter's lock for most of the work, so on a machine with
    cores to spare a few threads keep up with a small network; processes would cost copies.
    """

    def __init__(self, sources: Sequence[WordSource], workers: int) -> None:
        self.sources = sources
        self.level = (0.0, 0.0, 0.0)
        self._queue: queue.Queue[Batch] = queue.Queue(maxsize=max(1, 2 * workers))
        for source in sources[:workers]:
            threading.Thread(target=self._fill, args=(source,), daemon=True).start()
        self._inline = workers == 0

    def _fill(self, source: WordSource) -> None:
        while True:
            self._queue.put(source.next(*self.level))

    def next(self, difficulty: float, real_share: float, empty_share: float) -> Batch:
        """The next batch; the arguments hold for batches begun from now on."""
        self.level = (difficulty, real_share, empty_share)
        return self.sources[0].next(*self.level) if self._inline else self._queue.get()
