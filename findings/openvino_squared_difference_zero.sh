#!/usr/bin/env bash
# OpenVINO's CPU plug-in finds no difference between any two 8-bit images.
#
# Guess: SquaredDifference of two u8 tensors gives (a - b)^2, and above 255 something that saturates or
# wraps; small differences come out right: 1 for 10 and 11, 9 for 10 and 7.
# What happens: every element is 0, for u8 and for i8, whatever the operands, without a warning and in
# f32 mode. The same graph over constants, which is folded before it is compiled, gives 1 and 9; so do
# i32 operands, and 8-bit operands that are converted inside the graph first.
# Consequence: a graph that takes images as u8 and compares them (near-duplicates, frames of a video,
# "has this page changed") says that all of them are equal. Convert to f32 or i32 before the operation.
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, x86-64 with AVX2 or AVX-512 (limited to SSE4.1
# the small differences are right). November 2026.
#
# Ends with 0 while this is so, with 1 when the small differences come out, with 2 on another processor.
set -euo pipefail
grep -qw avx2 /proc/cpuinfo || { echo "needs x86-64 with AVX2"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
export HOME="$folder" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9  # no telemetry
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import openvino as ov
from openvino import opset15 as ops

A = [10, 10, 100, 7, 0, 50]
B = [11, 7, 96, 7, 15, 40]
TRUE = [(a - b) ** 2 for a, b in zip(A, B)]  # all of them fit 8 bits


def squared_difference(dtype, how="run"):
    """What the CPU plug-in gives for A and B, as inputs, as constants, or as inputs converted first."""
    operands = [np.array(values, dtype) for values in (A, B)]
    inputs = [] if how == "folded" else [ops.parameter([len(A)], dtype) for _ in operands]
    nodes = [ops.constant(values) for values in operands] if how == "folded" else inputs
    if how == "converted":
        nodes = [ops.convert(node, "i32") for node in nodes]
    model = ov.Model([ops.squared_difference(*nodes)], inputs, "difference")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(operands if inputs else [])[0].tolist()


print("openvino", ov.__version__)
seen = {
    "u8": squared_difference(np.uint8),
    "i8": squared_difference(np.int8),
    "i32": squared_difference(np.int32),
    "u8, folded": squared_difference(np.uint8, "folded"),
    "u8, converted to i32 first": squared_difference(np.uint8, "converted"),
}
print(f"  true: {TRUE}")
for name, values in seen.items():
    print(f"  {name}: {values}")
zeros = [0] * len(A)
sys.exit(0 if list(seen.values()) == [zeros, zeros, TRUE, TRUE, TRUE] else 1)
PYTHON
