"""Seeded layers on OpenVINO's opset, and sums of their weights and multiply-accumulates.

Batch normalisation is folded (a convolution has a weight and a bias), as it is in a converted
model. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

CHANNELS = 64  # of the feature pyramid, and so of the text features
Node = Any  # an openvino Node or Output; the binding ships no usable types


@dataclass(slots=True)
class Layers:
    """Builds layers with weights drawn from one seed, counting what they hold and cost.

    Attributes:
        parameters: Weights and biases made so far, by block.
        macs: Multiply-accumulates of convolutions and matrix products, by block.
    """

    seed: int = 0
    block: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def convolution(
        self,
        x: Node,
        shape: Sequence[int],
        *,
        stride: int = 1,
        relu: bool = True,
        gain: float = 1.0,
        bias: NDArray[np.float32] | None = None,
        rows: int = 1,
    ) -> Node:
        """A "same"-padded convolution with bias.

        Args:
            x: Input, N x C x H x W.
            shape: Of the weights: out, in, kernel height, kernel width.
            stride: In both directions.
            relu: Whether a ReLU follows.
            gain: Factor on He's standard deviation, sqrt(2 / fan-in) (He et al. 2015).
            bias: Of length out; zeros if None.
            rows: Batch size, for the sum of multiply-accumulates.
        """
        out, channels, height, width = shape
        weights = self._normal(shape, channels * height * width, gain)
        pad = height // 2
        y = ops.convolution(
            x, ops.constant(weights), [stride, stride], [pad, pad], [pad, pad], [1, 1]
        )
        offset = np.zeros(out, np.float32) if bias is None else bias
        y = ops.add(y, ops.constant(offset.reshape(1, out, 1, 1).astype(np.float32)))
        spatial = y.get_output_partial_shape(0)
        area = spatial[2].get_length() * spatial[3].get_length()
        self._count(weights.size + out, weights.size * area * rows)
        return ops.relu(y) if relu else y

    def transposed(self, x: Node, channels: int, *, rows: int) -> Node:
        """A 2 x 2 transposed convolution of stride 2, bias and ReLU: doubles height and width."""
        weights = self._normal((channels, channels, 2, 2), channels, 1.0)
        y = ops.convolution_backprop_data(x, ops.constant(weights), strides=[2, 2])
        y = ops.add(y, ops.constant(np.zeros((1, channels, 1, 1), np.float32)))
        spatial = x.get_output_partial_shape(0)
        area = spatial[2].get_length() * spatial[3].get_length()
        self._count(weights.size + channels, weights.size * area * rows)
        return ops.relu(y)

    def dense(
        self,
        x: Node,
        out: int,
        channels: int,
        *,
        relu: bool = False,
        gain: float = 1.0,
        bias: NDArray[np.float32] | None = None,
        use_bias: bool = True,
        rows: int = 1,
    ) -> Node:
        """A matrix product along the last axis, channels -> out, with an optional bias and ReLU."""
        weights = self._normal((out, channels), channels, gain)
        y = ops.matmul(x, ops.constant(weights), False, True)
        if use_bias:
            offset = np.zeros(out, np.float32) if bias is None else bias.astype(np.float32)
            y = ops.add(y, ops.constant(offset))
        self._count(weights.size + (out if use_bias else 0), weights.size * rows)
        return ops.relu(y) if relu else y

    def weight(self, shape: Sequence[int], fan_in: int, *, macs: int = 0) -> NDArray[np.float32]:
        """Bare weights, for operators that take them as constants (embedding, GRU)."""
        weights = self._normal(shape, fan_in, 1.0)
        self._count(weights.size, macs)
        return weights

    def _normal(self, shape: Sequence[int], fan_in: int, gain: float) -> NDArray[np.float32]:
        scale = gain * float(np.sqrt(2.0 / fan_in))
        return (self._rng.standard_normal(tuple(shape), np.float32) * scale).astype(np.float32)

    def _count(self, parameters: int, macs: int) -> None:
        self.parameters[self.block] = self.parameters.get(self.block, 0) + int(parameters)
        self.macs[self.block] = self.macs.get(self.block, 0) + int(macs)


@dataclass(frozen=True, slots=True)
class FullModel:
    """A built graph with its sums of parameters and multiply-accumulates by block."""

    model: ov.Model
    parameters: dict[str, int]
    macs: dict[str, int]

    @property
    def gflop(self) -> float:
        """Billions of floating-point operations, two a multiply-accumulate."""
        return 2e-9 * sum(self.macs.values())


def named_result(x: Node, name: str) -> Node:
    """A graph's output of this name."""
    output = x if isinstance(x, ov.Output) else x.output(0)
    output.set_names({name})
    result = ops.result(output, name=f"{name}/result")
    output.get_node().set_friendly_name(name)
    return result
