"""The published reader, layer for layer, with seeded random weights: encoder and decoder step.

As :mod:`jobs.bench.full_size.detector`, it is for tests and benchmarks, and reads nothing.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from jobs.bench.full_size.layers import CHANNELS, FullModel, Layers, Node, named_result

HIDDEN = 256
SYMBOLS = 38
POSITIONS = 28 * 28


def build_encoder(*, seed: int = 0) -> FullModel:
    """Build the recogniser's encoder: 1x64x28x28 -> 1x256x28x28, three 3x3 convolutions."""
    layers = Layers(seed + 1, "encoder")
    x = features = ops.parameter([1, CHANNELS, 28, 28], np.float32, name="input")
    features.output(0).set_names({"input"})
    for channels in (CHANNELS, HIDDEN, HIDDEN):
        x = layers.convolution(x, (HIDDEN, channels, 3, 3))
    model = ov.Model([named_result(x, "output")], [features], "encoder")
    return FullModel(model, layers.parameters, layers.macs)


def build_decoder(*, seed: int = 0, ends: bool = False) -> FullModel:
    """Build one step of the decoder, with the projection of the encoder's output inside it.

    Args:
        seed: Of the weights.
        ends: Whether a word may end by itself; otherwise the step limit ends it, so that a
            benchmark can choose the words' length.
    """
    layers = Layers(seed + 2, "decoder")
    encoded = ops.parameter([1, POSITIONS, HIDDEN], np.float32, name="encoder_outputs")
    symbol = ops.parameter([1], np.float32, name="prev_symbol")
    hidden = ops.parameter([1, 1, HIDDEN], np.float32, name="prev_hidden")
    inputs = {"encoder_outputs": encoded, "prev_symbol": symbol, "prev_hidden": hidden}
    for name, node in inputs.items():
        node.output(0).set_names({name})
    table = ops.constant(layers.weight((SYMBOLS, HIDDEN), HIDDEN))
    embedded = ops.gather(table, ops.convert(symbol, "i32"), ops.constant(np.int64(0)))
    keys = layers.dense(encoded, HIDDEN, HIDDEN, rows=POSITIONS)
    query = layers.dense(hidden, HIDDEN, HIDDEN)
    energy = layers.dense(ops.tanh(ops.add(keys, query)), 1, HIDDEN, use_bias=False, rows=POSITIONS)
    weights = ops.softmax(energy, 1)  # 1 x 784 x 1
    layers.macs["decoder"] += POSITIONS * HIDDEN
    context = ops.matmul(weights, encoded, True, False)  # 1 x 1 x 256
    context = ops.reshape(context, ops.constant(np.array([1, HIDDEN], np.int64)), False)
    x = layers.dense(ops.concat([embedded, context], 1), HIDDEN, 2 * HIDDEN, relu=True)
    state = _gru(layers, x, hidden)
    bias = np.zeros(SYMBOLS, np.float32)
    if not ends:
        bias[:2] = -1e4
    logits = layers.dense(state, SYMBOLS, HIDDEN, bias=bias)
    carried = ops.reshape(state, ops.constant(np.array([1, 1, HIDDEN], np.int64)), False)
    model = ov.Model(
        [named_result(logits, "output"), named_result(carried, "hidden")],
        list(inputs.values()),
        "decoder",
    )
    return FullModel(model, layers.parameters, layers.macs)


def _gru(layers: Layers, x: Node, hidden: Node) -> Node:
    """One GRU step in PyTorch's convention (reset after the recurrent product); [1,256]."""
    macs = 3 * HIDDEN * HIDDEN
    w = layers.weight((3 * HIDDEN, HIDDEN), HIDDEN, macs=macs)
    r = layers.weight((3 * HIDDEN, HIDDEN), HIDDEN, macs=macs)
    b = layers.weight((4 * HIDDEN,), HIDDEN) * 0
    state = ops.reshape(hidden, ops.constant(np.array([1, HIDDEN], np.int64)), False)
    return ops.gru_cell(
        x,
        state,
        ops.constant(w),
        ops.constant(r),
        ops.constant(b),
        HIDDEN,
        linear_before_reset=True,
    )
