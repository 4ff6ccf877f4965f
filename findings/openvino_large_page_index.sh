#!/usr/bin/env bash
# Integer arithmetic in an OpenVINO graph loses whole pixels on a large page.
#
# Guess: rows and columns from flat positions by Divide and Mod on i32 or i64 are exact, as they are
# while constants are folded and in numpy; f32 is used only where the graph says so.
# What happens: the CPU plug-in computes Divide, Mod, FloorMod and Equal of integers in f32, which holds
# whole numbers to 16,777,216. An A4 page at 600 dpi (4960 x 7016) has 34.8 million pixels: for more
# than a quarter of them the column is wrong, mostly by one, but at the right edge the position jumps
# to the left edge of the next row; and a label of 30,000,001 equals its neighbours.
# Consequence: peaks or components found by TopK, NonZero or ArgMax over a whole page, and turned to
# coordinates inside the graph, are right on photos and wrong on large scans. Tile first, or divide
# outside; f32 as precision hint and i64 as type change nothing.
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, x86-64. November 2026.
#
# Ends with 0 while this is so, with 1 when all positions come out.
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

WIDTH, HEIGHT = 4960, 7016
LABEL = 30_000_001
print("openvino", ov.__version__)


def positions(flat, folded=False):
    """Rows, columns, and which of the positions equal LABEL, by a graph on the CPU."""
    given = ops.constant(flat) if folded else ops.parameter(list(flat.shape), flat.dtype)
    width, label = (ops.constant(np.array(value, flat.dtype)) for value in (WIDTH, LABEL))
    outputs = [ops.divide(given, width), ops.mod(given, width), ops.equal(given, label)]
    model = ov.Model(outputs, [] if folded else [given], "positions")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([] if folded else [flat])
    return [np.array(found[index]) for index in range(3)]


surprising = True
for dtype in (np.int32, np.int64):
    flat = np.arange(WIDTH * HEIGHT, dtype=dtype).reshape(HEIGHT, WIDTH)[::16].ravel()  # every 16th row
    rows, cols, _ = positions(flat)
    wrong = (rows != flat // WIDTH) | (cols != flat % WIDTH)
    jumped = np.flatnonzero(rows != flat // WIDTH)
    at = int(jumped[0]) if jumped.size else 0
    first = int(flat[at])
    few = np.array([first, LABEL - 2, LABEL - 1, LABEL], dtype)
    equal = positions(few)[2]
    print(f"  {np.dtype(dtype)}: {wrong.mean():.1%} of the pixels at a wrong place, from {flat[wrong][:1]}")
    print(f"    {jumped.size} in another row: {divmod(first, WIDTH)} becomes {(int(rows[at]), int(cols[at]))}")
    print(f"    of {few.tolist()}, equal to {LABEL}: {equal.tolist()}")
    exact = positions(few, folded=True)
    expected = [few // WIDTH, few % WIDTH, few == LABEL]
    assert all(np.array_equal(*pair) for pair in zip(exact, expected)), "folded: exact"
    surprising &= bool(wrong.mean() > 0.2 and jumped.size and equal.sum() > 1)
sys.exit(0 if surprising else 1)
PYTHON
