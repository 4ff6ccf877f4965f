"""Words cut out of small images, along straight and bent lines."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.reader.cutting import Wave, cut


def test_wave_keeps_letters_in_order_and_ends_in_place() -> None:
    ramp = np.tile(np.linspace(0, 255, 300, dtype=np.uint8)[None, :, None], (60, 1, 3))
    quad = np.array([[0, 10], [300, 10], [300, 50], [0, 50]], np.float32)
    plain, codes = cut(ramp, quad)
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(30):
        bent, same = cut(ramp, quad, Wave.draw(rng))
        assert np.array_equal(codes, same)
        row = bent[28, :, 0].astype(int)
        assert np.diff(row).min() >= -1
        assert np.abs(row - plain[28, :, 0])[[0, 6, -7, -1]].max() <= 3
        changes.append(np.abs(row - plain[28, :, 0]).max())
    assert max(changes) > 8
