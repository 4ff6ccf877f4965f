"""Distortions keep the quad on its word."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.data.word_crop import Crop, quad_height
from jobs.training.reader.distortions import jitter_quad, rescale


def test_jittered_quads_stay_near() -> None:
    rng = np.random.default_rng(0)
    quad = np.array([[10, 10], [110, 10], [110, 30], [10, 30]], np.float32)
    moved = np.stack([jitter_quad(rng, quad) for _ in range(300)])
    shift = np.abs(moved - quad)
    assert 0.5 < shift.mean() < 3.0
    assert shift[..., 0].max() < 0.8 * 20
    assert shift[..., 1].max() < 0.8 * 20


def test_rescale_keeps_the_quad_on_the_word() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[20:40, 30:60] = 255
    quad = np.array([[30, 20], [60, 20], [60, 40], [30, 40]], np.float32)
    for factor in (0.5, 1.5):
        small = rescale(Crop(image, quad, "x"), factor)
        inside = np.zeros(small.image.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, (small.quad - 0.5).round().astype(np.int32), 1)
        assert small.image[inside > 0].mean() > 200
        assert quad_height(small.quad) == pytest.approx(20 * factor)
