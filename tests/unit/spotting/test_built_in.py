"""The bundles that ship in the package."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from textspot_ray.cli import main
from textspot_ray.spotting.bundle import BUILT_IN, built_in_folder
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.spotter import TextSpotter


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_bundle_is_whole_and_reads(name: str) -> None:
    bundle = load_bundle(name)
    assert bundle.spec.name == name
    assert {"f32", "int8"} <= bundle.spec.precisions.keys()
    assert (built_in_folder(name) / "MODEL_CARD.md").is_file()
    picture = np.full((720, 1280, 3), 200, np.uint8)
    for i, word in enumerate(("LIBRARY", "Station", "1997")):
        at = (80, 160 + 200 * i)
        cv2.putText(picture, word, at, cv2.FONT_HERSHEY_DUPLEX, 2, (40, 30, 60), 4, cv2.LINE_AA)
    for precision in ("f32", "int8"):
        words = TextSpotter.load(name, precision=precision)(picture, min_confidence=0.5)
        assert {"library", "station", "1997"} == {word.text for word in words}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_run_says_what_the_weights_are_for(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "empty.png"), np.full((64, 64, 3), 150, np.uint8))
    command = ["run", str(tmp_path / "empty.png"), "--out", str(tmp_path / "t")]
    assert main([*command, "--engine", "local", "--model", name]) == 0
    told = capsys.readouterr()
    free = not load_bundle(name).spec.research_only
    assert free == (name == "embedded-open")
    assert ("for research and evaluation only" in told.err + told.out) != free
    assert f"model: {name} " in told.err + told.out
