"""The attention's tanh, cut into what is known before the steps and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest
from numpy.typing import NDArray

from textspot_ray.spotting.composite.decoder_graph import exponential, take_exponential

Body = Callable[[Any, Any], Any]


def graph(body: Body, element: str = "f32") -> tuple[ov.Model, Any]:
    """Two inputs, k [1, 6, 4] and q [1, 1, 4], and what the body makes of them."""
    k = ops.parameter([1, 6, 4], getattr(ov.Type, element), name="k")
    q = ops.parameter([1, 1, 4], getattr(ov.Type, element), name="q")
    return ov.Model([ops.result(body(k, q))], [k, q], "body"), k


def run(model: ov.Model, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(list(inputs))[0])


def exponentials(k: NDArray[np.float32]) -> NDArray[np.float32]:
    given = ops.parameter(list(k.shape), ov.Type.f32)
    return run(ov.Model([ops.result(exponential(given))], [given], "exponential"), k)


@pytest.mark.parametrize("scale", [1e-4, 0.3, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_tanh_is_the_same(scale: float, swapped: bool) -> None:
    def body(k: Any, q: Any) -> Any:
        return ops.tanh(ops.add(q, k) if swapped else ops.add(k, q))

    rng = np.random.default_rng(int(scale * 10) + swapped)
    k = (scale * rng.standard_normal((1, 6, 4))).astype(np.float32)
    q = rng.uniform(-5, 5, (1, 1, 4)).astype(np.float32)
    model, parameter = graph(body)
    expected = run(model, k, q)
    assert take_exponential(parameter)
    assert "Tanh" not in {node.get_type_name() for node in model.get_ordered_ops()}
    assert np.abs(run(model, exponentials(k), q) - expected).max() < 2e-6


def test_values_past_every_limit_give_the_limit_not_nan() -> None:
    k = np.array([[-np.inf, -1e30, -89, 89, 1e30, np.inf]], np.float32).reshape(1, 6, 1)
    k = np.broadcast_to(k, (1, 6, 4)).copy()
    q = np.array([-30, -1, 1, 30], np.float32).reshape(1, 1, 4)
    model, parameter = graph(lambda k, q: ops.tanh(ops.add(k, q)))
    assert take_exponential(parameter)
    assert np.array_equal(run(model, exponentials(k), q), np.sign(k))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda k, q: ops.tanh(ops.multiply(k, q)), id="a product"),
        pytest.param(lambda k, q: ops.sigmoid(ops.add(k, q)), id="another function"),
        pytest.param(lambda k, q: ops.tanh(ops.add(k, k)), id="twice itself"),
        pytest.param(lambda k, q: ops.add(k, ops.tanh(ops.add(k, q))), id="used elsewhere as well"),
        pytest.param(
            lambda k, q: (lambda s: ops.multiply(s, ops.tanh(s)))(ops.add(k, q)), id="sum used too"
        ),
    ],
)
def test_other_uses_are_left_alone(body: Body) -> None:
    model, parameter = graph(body)
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    assert not take_exponential(parameter)
    assert [node.get_type_name() for node in model.get_ordered_ops()] == before


def test_other_types_are_left_alone() -> None:
    _, parameter = graph(lambda k, q: ops.tanh(ops.add(k, q)), "f16")
    assert not take_exponential(parameter)
