"""Rewritten graphs compute what they did before, and those of another kind stay as they are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest
from numpy.typing import NDArray

from tests.support.lines_bundle import stub_detector
from textspot_ray.spotting.lines.detector import detection_model, model_input
from textspot_ray.spotting.lines.recognizer import NOTHING, LineReader, reading_model
from textspot_ray.spotting.lines.rewrites import lighter_detector
from textspot_ray.spotting.runtime import shared_core

_RNG = np.random.default_rng(7)


def _numbers(*shape: int) -> ov.Node:
    return ops.constant(_RNG.normal(0, 0.5, shape).astype(np.float32))


def _conv(value: Any, outputs: int, inputs: int, side: int = 1, stride: int = 1) -> ov.Node:
    pad = [side // 2] * 2
    made = ops.convolution(
        value, _numbers(outputs, inputs, side, side), [stride] * 2, pad, pad, [1, 1]
    )
    return ops.add(made, _numbers(1, outputs, 1, 1))


def _doubled(value: Any, inputs: int, outputs: int, side: int = 2) -> ov.Node:
    weights = _numbers(inputs, outputs, side, side)
    edge = [(side - 2) // 2] * 2
    made = ops.convolution_backprop_data(value, weights, [2, 2], None, edge, edge)
    return ops.add(made, _numbers(1, outputs, 1, 1))


def _gated(value: Any, channels: int, *, hard: bool) -> ov.Node:
    mean = ops.reduce_mean(value, ops.constant(np.array([2, 3])), True)
    inner = _conv(mean, channels, channels)
    gate = ops.sigmoid(inner)
    if hard:
        gate = ops.hard_sigmoid(inner, np.float32(0.2), np.float32(0.5))
    return ops.add(value, ops.multiply(gate, value))


def _detector(*, hard: bool = True, side: int = 2) -> ov.Model:
    """Like PP-OCR's: stem of two branches, gate, and a head that enlarges twice."""
    picture = ops.parameter([-1, 3, -1, -1], np.float32, name="x")
    stem = ops.relu(_conv(picture, 8, 3, 3, 2))
    joined = ops.concat([stem, _conv(stem, 4, 8)], 1)
    features = _gated(_conv(joined, 6, 12, 3, 2), 6, hard=hard)
    wide = ops.relu(_doubled(ops.relu(features), 6, 5, side))
    scores = ops.sigmoid(_doubled(wide, 5, 1, side))
    scores.output(0).set_names({"map"})
    return ov.Model([ops.result(scores)], [picture], "detector")


def _run(model: ov.Model, given: NDArray[np.float32]) -> list[NDArray[Any]]:
    compiled = shared_core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    return [np.array(found) for found in compiled(given).values()]


def _kinds(model: ov.Model) -> Counter[str]:
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


@pytest.mark.parametrize("hard", [True, False])
def test_a_lighter_detector_gives_the_same_map(hard: bool) -> None:
    model = _detector(hard=hard)
    picture = _RNG.normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    (before,) = _run(model.clone(), picture)
    lighter = lighter_detector(model)
    (after,) = _run(lighter, picture)
    assert before.shape == after.shape == (1, 1, 64, 96)
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(after, before, atol=2e-5)
    kinds = _kinds(lighter)
    assert not kinds["ConvolutionBackpropData"] and not kinds["Concat"]
    assert kinds["Multiply"] == 1 + hard  # the gate, and the hard sigmoid's slope
    assert "map" in lighter.outputs[0].get_names()


def _neck(model_side: int, times: list[int], **changes: Any) -> ov.Model:
    """Maps of several sizes, enlarged, joined and convolved, as a feature pyramid's last layer."""
    picture = ops.parameter([-1, 3, -1, -1], np.float32, name="x")
    stem = ops.relu(_conv(picture, 4, 3, 3, 2))
    parts = []
    for i, f in enumerate(times):
        small = ops.avg_pool(stem, [f, f], [0, 0], [0, 0], [f, f], False)
        own = ops.relu(_conv(small, 3 + i, 4))
        how = {"mode": "nearest", "shape_calculation_mode": "scales", "nearest_mode": "floor"}
        how |= {"coordinate_transformation_mode": "asymmetric", **changes}
        scales = ops.constant(np.array([1, 1, f, f], np.float32))
        parts.append(ops.interpolate(own, scales, **how) if f > 1 else own)
    channels = sum(3 + i for i in range(len(times)))
    last = ops.sigmoid(_conv(ops.concat(parts, 1), 2, channels, model_side))
    return ov.Model([ops.result(last)], [picture], "neck")


@pytest.mark.parametrize("side", [1, 3, 5])
def test_a_convolution_of_enlarged_maps_runs_on_the_small_ones(side: int) -> None:
    model = _neck(side, [8, 4, 2, 1])
    picture = _RNG.normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    (before,) = _run(model.clone(), picture)
    lighter = lighter_detector(model)
    (after,) = _run(lighter, picture)
    assert before.shape == after.shape == (1, 2, 32, 48)
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(after, before, atol=2e-5)
    kinds = _kinds(lighter)
    assert kinds["ConvolutionBackpropData"] == 3
    assert not kinds["Interpolate"] and not kinds["Concat"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "linear"},
        {"nearest_mode": "round_prefer_floor"},
        {"coordinate_transformation_mode": "align_corners"},
    ],
)
def test_maps_enlarged_in_another_way_stay(changes: dict[str, str]) -> None:
    model = _neck(3, [2, 1], **changes)
    picture = _RNG.normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    (before,) = _run(model.clone(), picture)
    lighter = lighter_detector(model)
    assert _kinds(lighter)["Interpolate"] == 1
    (after,) = _run(lighter, picture)
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_a_head_that_overlaps_itself_stays() -> None:
    model = _detector(side=4)
    picture = _RNG.normal(0, 1, (1, 3, 64, 96)).astype(np.float32)
    (before,) = _run(model.clone(), picture)
    lighter = lighter_detector(model)
    assert _kinds(lighter)["ConvolutionBackpropData"] == 2
    (after,) = _run(lighter, picture)
    np.testing.assert_allclose(after, before, atol=2e-5)


def test_a_detector_without_these_patterns_stays() -> None:
    model = stub_detector()
    kinds = _kinds(model)
    assert _kinds(lighter_detector(model)) == kinds


def _recognizer(classes: int, weights: NDArray[np.float32], *, transposed: bool) -> ov.Model:
    """Columns' means, eight pixels a step, times weights."""
    strip = ops.parameter([-1, 3, 48, -1], np.float32, name="x")
    zeros = [0, 0]
    pooled = ops.avg_pool(strip, [48, 8], zeros, zeros, [48, 8], False)
    steps = ops.transpose(
        ops.squeeze(pooled, ops.constant(np.array([2]))), ops.constant(np.array([0, 2, 1]))
    )
    given = weights.T.copy() if transposed else weights
    product = ops.matmul(steps, ops.constant(given), False, transposed)
    last = ops.softmax(ops.add(product, ops.constant(np.zeros(classes, np.float32))), 2)
    return ov.Model([ops.result(last)], [strip], "recognizer")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kept", [None, [0, *range(5, 2900, 2)]])
def test_the_best_of_thousands_of_classes(kept: list[int] | None, transposed: bool) -> None:
    classes = 3001
    weights = _RNG.normal(0, 4, (3, classes)).astype(np.float32)
    strips = _RNG.integers(0, 256, (1, 48, 320, 3), dtype=np.uint8)
    for i in range(40):  # steps unlike each other
        strips[:, :, i * 8 : i * 8 + 8] = _RNG.integers(0, 256, 3)
    model = _recognizer(classes, weights, transposed=transposed)
    sure, best, gap = _run(reading_model(model, kept, 7, "here"), strips)
    means = strips.reshape(48, 40, 8, 3).mean(axis=(0, 2)).astype(np.float64)
    logits = (means - 127.5) / 127.5 @ weights[:, kept or slice(None)].astype(np.float64)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    assert len(set(best.reshape(-1).tolist())) > 5
    np.testing.assert_array_equal(best.reshape(-1), likely.argmax(axis=1))
    np.testing.assert_allclose(sure.reshape(-1), likely.max(axis=1), rtol=1e-3)
    np.testing.assert_allclose(gap.reshape(-1), likely[:, 7], rtol=1e-3, atol=1e-9)


def test_broken_weights_read_nothing() -> None:
    classes = 3001
    weights = np.full((3, classes), np.nan, np.float32)
    model = reading_model(_recognizer(classes, weights, transposed=False), None, None, "here")
    strip = np.zeros((1, 48, 96, 3), np.uint8)
    _, best, _ = _run(model.clone(), strip)
    assert best.min() >= 0 and best.max() < classes  # none of the padding
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    assert LineReader(compiled, ["x"] * classes, 0.5).read(strip, [96]) == [NOTHING]


@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_bytes_are_normalised_channel_by_channel(channels: str) -> None:
    mean, std = (10.0, 100.0, 200.0), (1.0, 2.0, 4.0)
    image = _RNG.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
    picture = ops.parameter([-1, 3, -1, -1], np.float32, name="x")
    plain = ov.Model([ops.result(ops.relu(picture))], [picture], "plain")
    (given,) = _run(detection_model(plain, mean, std, channels), image)
    blue = (image[0, ..., 0].astype(np.float32) - (10 if channels == "bgr" else 200)) / (
        1 if channels == "bgr" else 4
    )
    np.testing.assert_allclose(given[0, 0 if channels == "bgr" else 2], np.maximum(blue, 0))
    np.testing.assert_allclose(given, np.maximum(model_input(image, mean, std, channels), 0))
