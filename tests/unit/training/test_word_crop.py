"""Word crops: which words count."""

from __future__ import annotations

import pytest

from textspot_ray.training.word_crop import is_care_word


@pytest.mark.parametrize(
    ("text", "care"),
    [
        ("Shop", True),
        ("shop's", True),
        ('"OPEN!', True),
        ("it", False),
        ("B12", False),
        ("two words", False),
        ("", False),
    ],
)
def test_care(text: str, care: bool) -> None:
    assert is_care_word(text) is care
