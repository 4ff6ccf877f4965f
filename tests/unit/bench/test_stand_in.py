"""The stand-in is a bundle like any other: it runs, and finds what it is told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.bench.stand_in import write_stand_in
from tests.support.fast_folder import fast_folder
from textspot_ray.errors import UsageError
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.spotter import TextSpotter


@pytest.mark.parametrize(("signature", "dynamic"), [("image", False), ("im_data", True)])
def test_chosen_boxes_and_letters(
    monkeypatch: pytest.MonkeyPatch, signature: str, dynamic: bool
) -> None:
    with fast_folder() as work:  # 110 MB
        monkeypatch.setenv("TEXTSPOT_CACHE", str(work / "cache"))
        folder = write_stand_in(
            work / "model", boxes=2, symbols=3, signature=signature, dynamic_rows=dynamic
        )
        load_bundle(str(folder)).verify("f32")
        photo = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
        words = TextSpotter.load(str(folder), threads=1)(photo)
    assert [len(word.text) for word in words] == [3, 3]
    for word in words:
        assert word.detection_confidence > 0.9
        assert word.box[2] - word.box[0] > 10


@pytest.mark.parametrize("wrong", [{"boxes": 101}, {"boxes": -1}, {"symbols": 0}])
def test_numbers_out_of_range(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="--boxes must be 0 to 100"):
        write_stand_in(tmp_path, **wrong)  # type: ignore[arg-type]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"):
        write_stand_in(tmp_path / "file" / "model")
