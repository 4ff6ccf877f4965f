"""The full-size stand-in has the published sums, shapes and names, and finds what it is told to."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest

from textspot_ray.training import full_network as full


@pytest.fixture(scope="module")
def core() -> ov.Core:
    return ov.Core()


def compiled(core: ov.Core, model: ov.Model) -> ov.CompiledModel:
    return core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    )


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, 3, full.HEIGHT, full.WIDTH)).astype(np.float32)


def named(results: dict[ov.ConstOutput, np.ndarray]) -> dict[str, np.ndarray]:
    return {next(iter(output.names)): value for output, value in results.items()}


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


def test_reader_has_the_published_parameters_and_flops() -> None:
    encoder, decoder = full.build_encoder(), full.build_decoder()
    assert sum(encoder.parameters.values()) == 1_327_872
    assert encoder.gflop == pytest.approx(2.081, abs=0.001)
    # 677,414 in PyTorch's count; OpenVINO stores 4 x 256 GRU biases instead of 6 x 256
    assert sum(decoder.parameters.values()) == 677_414 - 512
    assert decoder.gflop == pytest.approx(0.1048, abs=0.001)


@pytest.mark.parametrize(
    ("signature", "dynamic", "boxes"),
    [("image", False, 10), ("image", True, 0), ("im_data", True, 10), ("im_data", False, 3)],
)
def test_detector_yields_the_asked_rows(
    core: ov.Core, signature: str, dynamic: bool, boxes: int
) -> None:
    built = full.build_detector(boxes=boxes, signature=signature, dynamic_rows=dynamic)
    inputs = {signature: photo(boxes)}
    if signature == "im_data":
        inputs["im_info"] = np.array([[full.HEIGHT, full.WIDTH, 1]], np.float32)
    out = named(compiled(core, built.model)(inputs))
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


def test_same_seed_same_weights(core: ov.Core) -> None:
    features = np.random.default_rng(1).standard_normal((1, 64, 28, 28)).astype(np.float32)
    first, again, other = (
        named(compiled(core, full.build_encoder(seed=s).model)([features]))["output"]
        for s in (4, 4, 5)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_decoder_attends_and_carries_its_state(core: ov.Core) -> None:
    step = compiled(core, full.build_decoder().model)
    rng = np.random.default_rng(2)
    encoded = np.abs(rng.standard_normal((1, full.POSITIONS, full.HIDDEN))).astype(np.float32)
    state = np.zeros((1, 1, full.HIDDEN), np.float32)
    seen = []
    for symbol in (0, 7):
        out = named(step([encoded, np.array([symbol], np.float32), state]))
        seen.append(out["output"])
        state = out["hidden"]
        assert out["output"].shape == (1, full.SYMBOLS)
        assert state.shape == (1, 1, full.HIDDEN)
    assert not np.allclose(*seen)
    assert seen[0].argmax() > 1, "a word must not end by itself"
