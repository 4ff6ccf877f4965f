"""Graph surgery: a tanh whose argument is partly known before the steps needs no tanh in a step.

The attention computes tanh(k + q) at every step for 784 x 256 sums, of which k is the same at all
steps. From tanh(x) = 1 - 2 / (1 + exp(2x)) follows tanh(k + q) = 1 - 2 / (1 + exp(2k) exp(2q)):
exp(2k) is computed once a word, exp(2q) for 256 values a step, and a product, a sum and a quotient
are left of each tanh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

# exp(2 x 40) and its inverse are finite in f32 and bf16, so 0 x infinity cannot happen; their
# products may overflow or vanish, which gives the tanh's own limits. Only sums of two values that
# are beyond 40 and cancel to within 9 would come out wrong: |q| is bounded by the sum of a row's
# weights (the state is within -1 and 1) and far below.
_LARGEST = 40.0


def take_exponential(invariant: Any) -> bool:
    """Rewrite the step so that its input k becomes exp(2k), if k serves one tanh(k + q) alone.

    Args:
        invariant: The parameter that stands for k; its type is f32.

    Returns:
        Whether the step was rewritten; `exponential` of k must then be fed to it.
    """
    total = _only_consumer(invariant, "Add")
    tanh = None if total is None else _only_consumer(total, "Tanh")
    if total is None or tanh is None or invariant.get_element_type() != ov.Type.f32:
        return False
    known = invariant.get_friendly_name()
    queries = [v for v in total.input_values() if v.get_node().get_friendly_name() != known]
    if len(queries) != 1:  # k + k
        return False
    product = ops.multiply(invariant.output(0), exponential(queries[0]))
    rest = ops.divide(_constant(2.0), ops.add(product, _constant(1.0)))
    result = ops.subtract(_constant(1.0), rest).output(0)
    for target in tanh.output(0).get_target_inputs():
        target.replace_source_output(result)
    return True


def exponential(value: Any) -> Any:
    """The output exp(2 value), with the value held within what f32 and bf16 can hold of it."""
    held = ops.clamp(value, -_LARGEST, _LARGEST)
    return ops.exp(ops.multiply(held, _constant(2.0))).output(0)


def _only_consumer(node: Any, kind: str) -> Any | None:
    """What reads the node's only output, if that is one node of that kind, by one input."""
    targets = list(node.output(0).get_target_inputs())
    if len(targets) != 1:
        return None
    consumer = targets[0].get_node()
    return consumer if consumer.get_type_name() == kind else None


def _constant(value: float) -> Any:
    return ops.constant(np.array(value, np.float32))
