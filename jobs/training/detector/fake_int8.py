# mypy: disable-error-code="misc"
"""Training with the rounding that INT8 brings, so that the weights learn to live with it.

Convolutions see their input and their weights in the steps that INT8 has for them: 256 over the
input's range, 255 over that of each output channel's weights. The gradient passes as if nothing had
been rounded (Jacob et al. 2018). The batch's own ranges stand for those that calibration will find.
The layer on the pixels is left out: its input is whole numbers already.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def simulate_int8(network: nn.Module, keep: tuple[str, ...] = ("head",)) -> None:
    """Round what the network's 2-d convolutions see, from now on, in this very module.

    Its state is as before, and a copy of its weights in another module computes without rounding.

    Args:
        network: In training.
        keep: Names of convolutions that INT8 leaves in floating point.
    """
    for name, layer in network.named_modules():
        if type(layer) is nn.Conv2d and name not in keep:
            layer.register_forward_pre_hook(_round_input)
            layer.forward = _Rounded(layer)  # type: ignore[method-assign]


class _Rounded:
    """A convolution's forward pass with rounded weights."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self._layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        weight: Tensor = _Passed.apply(rounded_weights, self._layer.weight)
        return self._layer._conv_forward(x, weight, self._layer.bias)


def _round_input(_: nn.Module, given: tuple[Tensor]) -> Tensor:
    rounded: Tensor = _Passed.apply(rounded_input, given[0])
    return rounded


def rounded_input(x: Tensor) -> Tensor:
    """A tensor in 256 steps from its least value, or 0, to its largest."""
    exact = x.float()  # bfloat16 has 256 steps an octave: rounding in it is off by more than one
    low = exact.amin().clamp(max=0)
    step = (exact.amax() - low).clamp(min=1e-8) / 255
    return (((exact - low) / step).round_() * step + low).to(x.dtype)


def rounded_weights(weight: Tensor) -> Tensor:
    """Weights [out, in, h, w] in 255 steps between minus and plus the largest of each output."""
    step = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-8) / 127
    return (weight / step).round_() * step


class _Passed(torch.autograd.Function):
    """A rounding that the gradient does not see."""

    @staticmethod
    def forward(_: Any, rounding: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            rounded: Tensor = rounding(x)
        return rounded

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, gradient
