"""Graph rewrites that make a DB detector faster: slow patterns are replaced by equivalent ones.

Converters keep a graph as it was trained. A quarter of a DB detector's time on a CPU is spent in
operators with almost no arithmetic: the last layers work at the full size of the picture on 24
channels and on one (blocked layouts use 16 for it), gates read a feature map twice, and
convolutions run over maps that were enlarged by repeating pixels. Every rewrite here is an identity
except for rounding; a graph without the pattern stays as it is. Measured on PP-OCRv6 small,
736 x 1088, one thread, bf16: 165 to 124 ms, then by the last of them, another day, 132 to 125.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

_UP = 2  # each of the head's transposed convolutions enlarges by so much
_POINT = ([1, 1], [0, 0], [0, 0], [1, 1])  # strides, pads and dilations of a 1 x 1 convolution


def lighter_detector(model: Any) -> Any:
    """Rewrite a detector's graph; the model given is changed or taken apart.

    Args:
        model: A detector that follows the contract, in floating point.

    Returns:
        A model with the same inputs and outputs.
    """
    _join_gates(model)
    _split_concats(model)
    return _head_at_low_resolution(model)


def through(node: Any) -> Any:
    """The node behind operators that do not change values."""
    while node.get_type_name() in ("Identity", "Convert", "Result"):
        node = node.input_value(0).get_node()
    return node


def constant_of(value: Any) -> NDArray[np.float32] | None:
    """A constant's numbers; None for what is computed."""
    node = through(value.get_node())
    return np.asarray(node.data, np.float32) if node.get_type_name() == "Constant" else None


def _join_gates(model: Any) -> None:
    """x + x * gate becomes x * (1 + gate), where the gate is one number a channel."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add":
            continue
        for x, product in _both_ways(node):
            gate = _gate(x, through(product.get_node()))
            if gate is not None:
                one = ops.constant(np.float32(1))
                _replace(node, ops.multiply(x, _plus_one(gate, one)))
                break


def _gate(x: Any, product: Any) -> Any:
    if product.get_type_name() != "Multiply":
        return None
    own = through(x.get_node()).get_friendly_name()
    for same, gate in _both_ways(product):
        shape = gate.get_partial_shape()
        flat = len(shape) == 4 and shape[2] == 1 and shape[3] == 1
        if flat and through(same.get_node()).get_friendly_name() == own:
            return gate
    return None


def _plus_one(gate: Any, one: Any) -> Any:
    """1 + gate, folded into a hard sigmoid, since operators on tiny tensors cost time too."""
    node = through(gate.get_node())
    if node.get_type_name() != "HardSigmoid":
        return ops.add(gate, one)
    slope, offset = constant_of(node.input_value(1)), constant_of(node.input_value(2))
    if slope is None or offset is None:
        return ops.add(gate, one)
    scaled = ops.multiply(node.input_value(0), ops.constant(slope))
    return ops.clamp(ops.add(scaled, ops.constant(offset + np.float32(1))), 1.0, 2.0)


def _split_concats(model: Any) -> None:
    """A convolution of a concatenation becomes a sum of convolutions: nothing is copied."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        joined, weights = through(node.input_value(0).get_node()), constant_of(node.input_value(1))
        if joined.get_type_name() != "Concat" or weights is None:
            continue
        parts = joined.input_values()
        widths = [value.get_partial_shape()[1] for value in parts]
        if joined.get_attributes()["axis"] != 1 or not all(w.is_static for w in widths):
            continue
        edges = np.cumsum([w.get_length() for w in widths])[:-1]
        how = node.get_attributes()
        total = None
        for value, share in zip(parts, np.split(weights, edges, axis=1), strict=True):
            part = _of_enlarged(value, share, how) or ops.convolution(
                value,
                ops.constant(np.ascontiguousarray(share)),
                how["strides"],
                how["pads_begin"],
                how["pads_end"],
                how["dilations"],
                how["auto_pad"],
            )
            total = part if total is None else ops.add(total, part)
        _replace(node, total)


def _of_enlarged(value: Any, weights: NDArray[np.float32], how: dict[str, Any]) -> Any:
    """A convolution of an enlarged map as a transposed one of the small map, or None.

    Enlarged by repeating pixels, f times a side, most taps of a pixel fall on the same number: a
    transposed convolution with their sums has (f + k - 1)^2 / f^2 taps a pixel, instead of k^2.
    """
    enlarged = through(value.get_node())
    times = _times_repeated(enlarged)
    side, pad = weights.shape[2], how["pads_begin"][0]
    keeps_size = (
        how["auto_pad"] == "explicit"
        and {*how["strides"], *how["dilations"]} == {1}
        and {*how["pads_begin"], *how["pads_end"]} == {pad}
        and weights.shape[3] == side == 2 * pad + 1
    )
    if times is None or not keeps_size:
        return None
    outputs, inputs = weights.shape[:2]
    sums = np.zeros((inputs, outputs, times + side - 1, times + side - 1), np.float32)
    for down, across in np.ndindex(side, side):
        below, beside = side - 1 - down, side - 1 - across
        tap = weights[:, :, down, across].T[:, :, np.newaxis, np.newaxis]
        sums[:, :, below : below + times, beside : beside + times] += tap
    edges = [side - 1 - pad] * 2
    return ops.convolution_backprop_data(
        enlarged.input_value(0),
        ops.constant(sums),
        [times, times],
        pads_begin=edges,
        pads_end=edges,
    )


def _times_repeated(node: Any) -> int | None:
    """How often an enlargement repeats each pixel per side; None for other operators."""
    if node.get_type_name() != "Interpolate":
        return None
    how, values = node.get_attributes(), node.input_values()
    if (
        how["mode"] != "nearest"
        or how["shape_calculation_mode"] != "scales"
        or (how["coordinate_transformation_mode"], how["nearest_mode"]) != ("asymmetric", "floor")
        or any((*how["pads_begin"], *how["pads_end"]))
        or len(values) != 2  # the form of opset 11: scales of all four sides
    ):
        return None
    scales = constant_of(values[1])
    if scales is None or scales.shape != (4,) or scales[2] != scales[3]:
        return None
    times = int(scales[2])
    return times if scales.tolist() == [1, 1, times, times] and times > 1 else None


def _head_at_low_resolution(model: Any) -> Any:
    """Two transposed convolutions, 2 x 2 each, as 1 x 1 convolutions before one shuffle.

    Neither overlaps itself, so each of the 4 x 4 output pixels of a pixel is a separate sum over
    that pixel's channels.
    """
    sigmoid = through(model.outputs[0].get_node())
    last = _transposed(sigmoid.input_value(0)) if sigmoid.get_type_name() == "Sigmoid" else None
    if last is None or last[1].shape[1] != 1:
        return model
    enlarged, second, second_bias = last
    relu = through(enlarged.get_node())
    first = _transposed(relu.input_value(0)) if relu.get_type_name() == "Relu" else None
    if first is None:
        return model
    features, weights, bias = first
    inputs, middle = weights.shape[:2]
    spread = weights.transpose(2, 3, 1, 0).reshape(-1, inputs, 1, 1)  # (down, across, channel)
    gather = np.zeros((_UP**4, _UP**2 * middle, 1, 1), np.float32)
    for down, across, below, beside in np.ndindex(_UP, _UP, _UP, _UP):
        row = (down * _UP + below) * _UP**2 + across * _UP + beside
        block = (down * _UP + across) * middle
        gather[row, block : block + middle, 0, 0] = second[:, 0, below, beside]
    wide = ops.relu(_point(features, spread, np.tile(bias, _UP**2)))
    scores = _point(wide, gather, np.full(_UP**4, second_bias[0], np.float32))
    whole = ops.depth_to_space(ops.sigmoid(scores), "blocks_first", _UP**2)
    whole.output(0).set_names(model.outputs[0].get_names())
    return ov.Model([whole.output(0)], model.get_parameters(), model.get_friendly_name())


def _transposed(value: Any) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]] | None:
    """Input, weights and bias of a transposed convolution that doubles both sides."""
    add = through(value.get_node())
    if add.get_type_name() != "Add":
        return None
    for bias_value, product in _both_ways(add):
        bias, node = constant_of(bias_value), through(product.get_node())
        if bias is None or node.get_type_name() != "ConvolutionBackpropData":
            continue
        weights, how = constant_of(node.input_value(1)), node.get_attributes()
        plain = (
            list(how["strides"]) == [_UP, _UP]
            and not any((*how["pads_begin"], *how["pads_end"], *how["output_padding"]))
            and set(how["dilations"]) == {1}
            and len(node.input_values()) == 2
        )
        if weights is None or not plain or weights.shape[2:] != (_UP, _UP):
            return None
        flat = bias.reshape(-1)
        return node.input_value(0), weights, np.broadcast_to(flat, weights.shape[1:2])
    return None


def _point(value: Any, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> Any:
    made = ops.convolution(value, ops.constant(np.ascontiguousarray(weights)), *_POINT)
    return ops.add(made, ops.constant(bias.astype(np.float32).reshape(1, -1, 1, 1)))


def _both_ways(node: Any) -> Iterator[tuple[Any, Any]]:
    """The two inputs, in either order."""
    a, b = node.input_value(0), node.input_value(1)
    yield a, b
    yield b, a


def _replace(old: Any, new: Any) -> None:
    new.set_friendly_name(old.get_friendly_name())
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))
