"""Batches for the reader: seeded, mixed, reused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.data.word_crop import Crop
from jobs.training.reader.batches import WordSource


def test_source_is_seeded_mixes_and_reuses() -> None:
    calls = []

    def draw(rng: np.random.Generator, difficulty: float) -> Crop:
        calls.append(difficulty)
        image = rng.integers(0, 255, (30, 60, 3)).astype(np.uint8)
        quad = np.array([[5, 5], [55, 5], [55, 25], [5, 25]], np.float32)
        return Crop(image, quad, "Fake")

    real = Crop(np.full((20, 40, 3), 9, np.uint8), np.zeros((4, 2), np.float32), "Real")
    real = Crop(real.image, np.float32([[2, 2], [38, 2], [38, 18], [2, 18]]), "Real")
    one = WordSource(draw, [real], 5, batch=8, reuse=4, pool=10)
    batches = [one.next(0.6, 0.25) for _ in range(12)]
    assert all(b.texts.count("real") == 2 and b.texts.count("fake") == 6 for b in batches)
    assert all((~b.rendered).sum() == 2 for b in batches)
    assert len(one.pool) == 10
    assert 8 <= len(calls) < 12 * 6
    assert min(calls) >= 0
    assert max(calls) <= 0.6
    two = WordSource(draw, [real], 5, batch=8, reuse=4, pool=10)
    assert np.array_equal(two.next(0.6, 0.25).pixels, batches[0].pixels)
    assert WordSource(draw, [], 5, batch=4).next(0.0, 0.5).texts == ["fake"] * 4
    other = Crop(real.image, real.quad, "Rare")
    shared = WordSource(draw, [real, other], 5, batch=400, shares=[0.9, 0.1])
    rare = shared.next(0.6, 1.0).texts.count("rare")
    assert 15 < rare < 80
    empty = Crop(real.image, real.quad, "")
    three = WordSource(draw, [real], 5, batch=8, empties=[empty])
    assert sorted(three.next(0.6, 0.25, 0.125).texts) == ["", *["fake"] * 5, "real", "real"]
    counts = [three.next(0.6, 0.0, 0.03).texts.count("") for _ in range(100)]
    assert 10 < sum(counts) < 40
