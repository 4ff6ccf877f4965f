"""Other CPU types give the same words, boxes and confidences within the stated tolerance.

oneDNN runs as on an older CPU if it is told so (ONEDNN_MAX_CPU_ISA), which stands for one here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textspot_ray.machine import cpu_flags

pytestmark = pytest.mark.slow

PHOTOS = Path(__file__).parents[2] / "jobs" / "demo" / "photos"
PROGRAM = """
import json, sys
from textspot_ray.spotting.spotter import TextSpotter
spotter = TextSpotter.load("embedded", precision=sys.argv[1], threads=int(sys.argv[2]))
pages = [spotter(path) for path in sys.argv[3:]]
print(json.dumps([[(w.text, w.text_confidence, w.detection_confidence, *w.box, *w.polygon)
                   for w in words] for words in pages]))
"""


# What `arithmetic_of` promises
_BOX_PX = 0.5
_CONFIDENCE = 0.001


def spot(precision: str, isa: str, cache: Path, threads: int = 1) -> list[list[list[Any]]]:
    photos = sorted(str(path) for path in PHOTOS.glob("*.jpg"))
    assert photos
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, precision, str(threads), *photos],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "TEXTSPOT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def sorted_words(page: list[list[Any]]) -> list[list[Any]]:
    """By place: rows of equal scores may come in another order."""
    return sorted(page, key=lambda word: (round(word[3] / 4), round(word[4] / 4), word[0]))


@pytest.mark.parametrize(
    ("precision", "isas"),
    [("f32", ("DEFAULT", "AVX2")), ("int8", ("DEFAULT", "AVX512_CORE_VNNI"))],
)
def test_words_agree_within_the_tolerance(
    precision: str, isas: tuple[str, str], tmp_path: Path
) -> None:
    if "avx512_vnni" not in cpu_flags():
        pytest.skip("this CPU cannot stand for two types")
    first, second = (spot(precision, isa, tmp_path / isa) for isa in isas)
    assert sum(map(len, first)) > 50
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other)
        for word, same in zip(sorted_words(one), sorted_words(other), strict=True):
            assert word[0] == same[0]
            assert word[1:3] == pytest.approx(same[1:3], abs=_CONFIDENCE)
            assert word[3:] == pytest.approx(same[3:], abs=_BOX_PX)


def test_int8_without_the_dot_product_does_not_and_is_another_table(tmp_path: Path) -> None:
    """Why `arithmetic_of` tells them apart; if this fails, it need not any more."""
    if "avx512_vnni" not in cpu_flags():
        pytest.skip("this CPU cannot stand for two types")
    first, second = (spot("int8", isa, tmp_path / isa) for isa in ("DEFAULT", "AVX2"))
    assert first != second
