"""What drawn words say, and what of it the reader is asked for."""

from __future__ import annotations

import pytest

from jobs.training.render.words import target_of


@pytest.mark.parametrize(
    ("text", "target"),
    [("Café", "cafe"), ("$1.50", "150"), ("WE'RE", "were"), ("I AM", "iam"), ("#!", "")],
)
def test_target(text: str, target: str) -> None:
    assert target_of(text) == target
