"""Confidences: what is right, and the temperature that makes them mean a share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.calibration import (
    Judged,
    best_temperature,
    draw_reliability,
    judged,
    reliability,
    tempered,
)
from jobs.training.data.datasets import PhotoWord, rect_corners
from textspot_ray.records import Reading


def quad(x: float) -> np.ndarray:
    return rect_corners((x, 50), (60, 20), 0)


def test_readings_are_right_by_place_and_text_and_ignored_regions_do_not_count() -> None:
    truth = [PhotoWord(quad(50), "Cash!"), PhotoWord(quad(150), "", False)]
    read = [
        Reading("cash", 0.9, (0.99, 0.99, 0.98, 0.97)),
        Reading("cosh", 0.4, (0.9, 0.5, 0.9, 0.99)),
        Reading("junk", 0.5, (0.8, 0.9, 0.8, 0.9)),
        Reading("noise", 0.5, (0.9,) * 5),
        Reading("", 0.9, ()),
    ]
    places = [quad(52), quad(48), quad(300), quad(150), quad(50)]
    found = judged(places, read, truth)
    assert [j.right for j in found] == [True, False, False]
    # the end's confidence is among the steps
    assert found[0].steps[-1] == pytest.approx(0.9 / np.prod((0.99, 0.99, 0.98, 0.97)))
    assert tempered(found[0].steps, 1.0) == pytest.approx(0.9, abs=1e-4)


def test_overconfident_readings_are_cooled_and_fitting_ones_are_left() -> None:
    rng = np.random.default_rng(0)
    steps = rng.uniform(0.7, 0.999, (3000, 4))
    said = np.array([tempered(s, 1.0) for s in steps])
    fitting = [
        Judged(tuple(s), bool(r), float(np.prod(s)))
        for s, r in zip(steps, rng.random(3000) < said, strict=True)
    ]
    assert best_temperature(fitting) == pytest.approx(1.0, abs=0.1)
    truly = np.array([tempered(s, 2.0) for s in steps])
    boasting = [
        Judged(tuple(s), bool(r), float(np.prod(s)))
        for s, r in zip(steps, rng.random(3000) < truly, strict=True)
    ]
    assert best_temperature(boasting) == pytest.approx(2.0, abs=0.2)
    assert best_temperature([Judged((0.9,), True, 0.9)]) == 1.0
    assert tempered((0.9, 0.8), 2.0) < tempered((0.9, 0.8), 1.0)


def test_reliability_counts_words_at_least_so_sure() -> None:
    rows = reliability([0.9, 0.8, 0.3], [True, False, False], [0.0, 0.5, 0.85, 0.95])
    assert [(c, n) for c, _, n in rows] == [(0.0, 3), (0.5, 2), (0.85, 1), (0.95, 0)]
    assert [s for _, s, _ in rows[:3]] == [pytest.approx(1 / 3), 0.5, 1.0]
    assert np.isnan(rows[3][1])


def test_the_plot_shows_a_curve_and_passes_over_empty_bins(tmp_path: Path) -> None:
    rows = reliability([0.9, 0.8, 0.2], [True, True, False], [0.0, 0.5, 0.95])
    assert np.isnan(rows[-1][1])
    draw_reliability(tmp_path / "none.png", {})
    draw_reliability(tmp_path / "some.png", {"photos": rows})
    none, some = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("none", "some"))
    assert none.shape == some.shape
    assert (none != some).any()
