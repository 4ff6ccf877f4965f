"""Which operators may become int8: layers and what lies between them, never coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from textspot_ray.spotting.int8 import outside_trunk


def named(node: Any, name: str) -> Any:
    node.set_friendly_name(name)
    return node


def convolution(x: Any, channels: int, out: int, name: str) -> Any:
    weights = ops.constant(np.ones((out, channels, 3, 3), np.float32))
    return named(ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]), name)


def f32(*values: float) -> Any:
    return ops.constant(np.array(values, np.float32))


def detector() -> ov.Model:
    """Scaled input, two layers with an addition between, a head, boxes from it, a second stage."""
    image = ops.parameter([1, 3, 32, 32], np.float32, name="image")
    scaled = named(ops.divide(image, f32(255.0)), "scaling")
    first = convolution(scaled, 3, 64, "first")
    second = convolution(named(ops.relu(first), "relu"), 64, 64, "second")
    joined = named(ops.add(first, second), "residual")
    third = convolution(joined, 64, 64, "third")
    offsets = ops.reshape(convolution(third, 64, 4, "head"), ops.constant([-1, 4]), False)
    boxes = named(ops.add(offsets, f32(1, 2, 3, 4)), "coordinates")
    batch = ops.constant(np.zeros(1024, np.int64))
    regions = ops.roi_align(third, boxes, batch, 7, 7, 2, 1.0, "avg")
    refined = convolution(named(regions, "sampled"), 64, 64, "refine")
    mask = named(ops.sigmoid(convolution(refined, 64, 1, "mask head")), "sigmoid")
    return ov.Model([ops.result(boxes), ops.result(mask)], [image], "detector")


def test_layers_and_what_joins_them_are_the_trunk() -> None:
    outside = set(outside_trunk(detector()))
    assert {"first", "second", "third", "refine", "relu", "residual", "sampled"}.isdisjoint(outside)


def test_scaling_coordinates_and_small_heads_keep_their_precision() -> None:
    outside = set(outside_trunk(detector()))
    assert {"scaling", "coordinates", "head", "mask head", "sigmoid"} <= outside


def test_a_large_last_layer_is_of_the_trunk() -> None:
    x = ops.parameter([1, 64, 8, 8], np.float32)
    y = convolution(convolution(x, 64, 64, "first"), 64, 64, "last")
    assert outside_trunk(ov.Model([ops.result(y)], [x], "encoder")) == []


def test_a_graph_without_layers_is_left_alone() -> None:
    x = ops.parameter([1, 4], np.float32)
    y = named(ops.add(x, f32(1.0)), "sum")
    assert outside_trunk(ov.Model([ops.result(y)], [x], "none")) == ["sum"]


def test_a_small_product_of_the_inputs_own_numbers_keeps_its_precision() -> None:
    """Numbers told beside a picture, say its shape, are no features."""
    image = ops.parameter([1, 64, 8, 8], np.float32)
    told = ops.parameter([1, 2], np.float32)
    shift = named(ops.matmul(told, ops.constant(np.ones((64, 2), np.float32)), False, True), "told")
    first = convolution(image, 64, 64, "first")
    shape = ops.constant([1, 64, 1, 1])
    joined = named(ops.add(first, ops.reshape(shift, shape, False)), "joined")
    last = convolution(joined, 64, 64, "last")
    outside = set(outside_trunk(ov.Model([ops.result(last)], [image, told], "encoder")))
    assert "told" in outside
    assert {"first", "joined", "last"}.isdisjoint(outside)
