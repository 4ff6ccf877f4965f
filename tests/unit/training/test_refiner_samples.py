"""What the refiner learns from: rectangles that are off, those that are found, and second looks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.data.datasets import FloatArray, PhotoWord, rect_corners
from jobs.training.refiner.found import FoundRectangles, matched
from jobs.training.refiner.network import place
from jobs.training.refiner.train import sample, within
from textspot_ray.errors import UsageError
from textspot_ray.spotting.catalogue import load_bundle


def _box(x0: float, x1: float, y0: float = 10, y1: float = 30) -> FloatArray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def test_corners_of_a_sample_lead_back_to_the_word_from_a_quad_that_is_no_rectangle() -> None:
    image = np.zeros((80, 200, 3), np.uint8)
    word = _box(20, 150, 30, 55)
    seen = np.array([[40, 28], [120, 34], [124, 60], [38, 50]], np.float32)
    made = sample(image, word, seen)
    back = place(torch.from_numpy(seen)[None], torch.from_numpy(made.wanted)[None])[0]
    assert np.abs(back.numpy() - word).max() < 0.01
    assert made.aspect == pytest.approx(83 / 24, rel=0.05)
    inside = within(word, word.mean(0, keepdims=True))
    assert inside == pytest.approx(np.array([[0.5, 0.5]]))


def test_a_found_part_means_its_word_and_one_that_joins_two_means_none() -> None:
    words = [PhotoWord(_box(10, 110), "whole"), PhotoWord(_box(120, 200), "other")]
    part, joined, upside_down = _box(10, 60), _box(10, 200), _box(10, 110)[[2, 3, 0, 1]]
    pairs = matched([part, joined, upside_down, _box(300, 340)], words)
    assert len(pairs) == 1
    assert pairs[0][0] is part
    assert pairs[0][1] is words[0].quad


def test_the_bundles_detector_gives_the_rectangles_that_its_refiner_sees() -> None:
    bundle = load_bundle("embedded")
    files = bundle.model_files("int8")
    paths = {name: bundle.path(files[name].graph) for name in ("detector", "decoder")}
    found = FoundRectangles(paths["detector"], 448)
    image = np.full((448, 448, 3), 230, np.uint8)
    cv2.putText(image, "STATION", (40, 170), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (20, 20, 20), 4)
    assert found.rects(image) and max(
        float(np.ptp(rect[:, 0])) for rect in found.rects(image)
    ) == pytest.approx(215, rel=0.2)
    assert found.rects(np.full((448, 448, 3), 230, np.uint8)) == []
    with pytest.raises(UsageError, match="no detector"):
        FoundRectangles(paths["decoder"], 448)


def test_a_rectangle_turned_with_its_word_is_matched() -> None:
    word = PhotoWord(rect_corners((100.0, 100.0), (90.0, 20.0), 70.0), "steep")
    assert matched([rect_corners((103.0, 98.0), (80.0, 22.0), 66.0)], [word])
    assert not matched([rect_corners((103.0, 98.0), (22.0, 80.0), -24.0)], [word])
