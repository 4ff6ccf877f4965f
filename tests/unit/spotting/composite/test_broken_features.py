from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.bundles import plant_words
from textspot_ray.images.decode import Decoded
from textspot_ray.records import Reading
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_no_numbers_give_no_text_and_harm_no_neighbour(
    stub: Callable[..., Path], value: float
) -> None:
    settings = SpotterSettings(model=str(stub()))
    image, _ = plant_words(["hello", "w0rld"], seed=2)
    page = Decoded(image, 1280, 768, 1.0, 1.0, "pixels", 1, 1)
    _, features = PageDetector(settings).detect_pixels(page)
    broken = np.full_like(features[:1], value)
    recognizer = Recognizer(settings)
    wanted = recognizer.read(features).readings
    found = recognizer.read(np.concatenate([features[:1], broken, features[1:]])).readings
    assert found[1] == Reading("", 0.0, ())
    assert (found[0], found[2]) == wanted
