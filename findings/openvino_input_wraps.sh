#!/usr/bin/env bash
# OpenVINO takes a 16-bit page for an 8-bit input, and keeps the low bytes.
#
# Guess: a compiled model that wants u8 refuses an array of another type, as it refuses an array of
# another shape, and as set_input_tensor refuses a Tensor of another type.
# What happens: calling the model casts the array as C does, without a warning. Of a uint16 scan each
# sample modulo 256 is left, so that paper at 0xF100 becomes black and its noise becomes a pattern; of
# a float image from 0 to 1 nothing is left but 0 (and 1 where it is exactly white); -1 becomes 255.
# Consequence: one decoder that returns 16 bits or floats (a TIFF, a PNG, a raw file) turns its pages
# to rubbish that the model reads as "no words"; check the dtype yourself, or go by set_input_tensor.
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when the call refuses, warns, or scales.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
export HOME="$folder" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9  # no telemetry
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import numpy as np
import openvino as ov
from openvino import opset15 as ops

warnings.simplefilter("error")
image = ops.parameter([1, 4], np.uint8)
model = ov.Model([ops.convert(image, "f32")], [image], "page")  # gives back what it gets
compiled = ov.Core().compile_model(model, "CPU")
print("openvino", ov.__version__)


def refused(call):
    try:
        call()
    except (RuntimeError, TypeError, ValueError):
        return True
    return False


pages = {
    "uint16": np.array([[0x0000, 0x8000, 0xF100, 0xF12C]], np.uint16),
    "float32": np.array([[0.0, 0.5, 0.99, 1.0]], np.float32),
    "int16": np.array([[-1, 0, 255, 256]], np.int16),
}
seen = {}
for name, page in pages.items():
    seen[name] = compiled(page)[0][0].tolist()
    print(f"  {name} {page[0].tolist()} reaches the model as {seen[name]}")
request = compiled.create_infer_request()
by_shape = refused(lambda: compiled(np.zeros((1, 5), np.uint8)))
by_tensor = refused(lambda: request.set_input_tensor(ov.Tensor(pages["uint16"])))
print(f"  an array of another shape is refused: {by_shape}; a Tensor of another type: {by_tensor}")
wrapped = {"uint16": [0, 0, 0, 44], "float32": [0, 0, 0, 1], "int16": [255, 0, 255, 0]}
sys.exit(0 if seen == wrapped and by_shape and by_tensor else 1)
PYTHON
