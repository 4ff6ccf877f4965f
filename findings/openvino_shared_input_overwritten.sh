#!/usr/bin/env bash
# OpenVINO writes a later input into the array of an earlier call.
#
# Guess: share_inputs=True lets one call read the caller's array in place. A later call of the same
# request that copies its input (the default of InferRequest.infer) copies it into the request's own
# memory, and leaves the first array alone.
# What happens: the request keeps the first array as its input, and the copy of the next input goes
# there: the caller's first array now holds the second picture. Only a read-only array is safe, as it
# is copied even where sharing was asked for. With a dynamic batch a smaller input overwrites the
# first rows, and a larger one is refused with "Could set new shape". CompiledModel's own call does
# the same where it is asked to copy.
# Consequence: a program that shares some inputs and copies others loses pictures that it still means
# to use (a cache, a crop that is read twice), without an error. Share always or never with a request.
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when the first array is left alone.
set -euo pipefail
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

print("openvino", ov.__version__)


def compiled(rows):
    picture = ops.parameter(ov.PartialShape([rows, 4]), np.float32)
    double = ops.multiply(picture, ops.constant(np.float32(2)))
    return ov.Core().compile_model(ov.Model([double], [picture], "double"), "CPU")


first, second = np.full((8, 4), 1, np.float32), np.full((8, 4), 7, np.float32)
request = compiled(8).create_infer_request()
request.infer({0: first}, share_inputs=True)
request.infer({0: second})
print(f"  the first array was all 1, and after a call with the second one is all {first[0, 0]:g}")

frozen = np.full((8, 4), 1, np.float32)
frozen.flags.writeable = False
request.infer({0: frozen}, share_inputs=True)
request.infer({0: second})
print(f"  a read-only one: {frozen[0, 0]:g}")

called = np.full((8, 4), 1, np.float32)
model = compiled(8)
model(called, share_inputs=True)
model(second, share_inputs=False)
print(f"  by the compiled model's own call: {called[0, 0]:g}")

some = np.full((8, 4), 1, np.float32)
request = compiled(ov.Dimension(1, 8)).create_infer_request()
request.infer({0: some}, share_inputs=True)
request.infer({0: second[:3]})
print(f"  dynamic batch, 3 rows after 8: {some[:, 0].tolist()}")
request.infer({0: some[:1]}, share_inputs=True)
try:
    request.infer({0: second[:3]})
    larger = "taken"
except RuntimeError as error:
    larger = "refused: " + next(line for line in str(error).splitlines() if "new shape" in line)
print(f"  3 rows after 1 that was shared: {larger}")

changed = [first[0, 0], frozen[0, 0], called[0, 0], some[0, 0], some[3, 0]]
sys.exit(0 if changed == [7, 1, 7, 7, 1] and larger.startswith("refused") else 1)
PYTHON
