"""The full-size stand-in has the published sums, shapes and names, and finds what it is told to."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.bench.full_size import detector as full
from tests.support.graphs import compiled, named


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, 3, full.INPUT_HEIGHT, full.INPUT_WIDTH)).astype(np.float32)


def test_detector_has_the_published_parameters_and_flops() -> None:
    built = full.build_detector()
    assert built.parameters == {
        "backbone": 23_481_472,
        "fpn": 393_728,
        "rpn": 37_903,
        "box_head": 1_871_878,
        "mask_head": 164_225,
    }
    assert sum(built.parameters.values()) == 25_949_206
    assert built.gflop == pytest.approx(183.686, abs=0.001)


@pytest.mark.parametrize(
    ("signature", "dynamic", "boxes"),
    [("image", False, 10), ("image", True, 0), ("im_data", True, 10), ("im_data", False, 3)],
)
def test_detector_yields_the_asked_rows(signature: str, dynamic: bool, boxes: int) -> None:
    built = full.build_detector(boxes=boxes, signature=signature, dynamic_rows=dynamic)
    inputs = {signature: photo(boxes)}
    if signature == "im_data":
        inputs["im_info"] = np.array([[full.INPUT_HEIGHT, full.INPUT_WIDTH, 1]], np.float32)
    out = named(compiled(built.model)(inputs))
    rows = boxes if dynamic else 100
    features = "text_features" if signature == "image" else "text_features.0"
    assert out["boxes"].shape == (rows, 5)
    assert out["labels"].shape == (rows,)
    assert out["masks"].shape == (rows, 28, 28)
    assert out[features].shape == (rows, 64, 28, 28)
    kept = out["boxes"][out["boxes"][:, 4] > 0.5]
    assert len(kept) == boxes
    assert np.all(kept[:, 2] - kept[:, 0] > 10)
    assert np.all(kept[:, 3] - kept[:, 1] > 10)
    assert np.isfinite(out[features]).all()
    assert np.all((out["masks"] >= 0) & (out["masks"] <= 1))
