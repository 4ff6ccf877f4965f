#!/usr/bin/env bash
# OpenVINO reads a big-endian array as if it were little-endian.
#
# Guess: ov.Tensor(array) copies the values of any numpy array, as it does for arrays that are turned,
# strided or in Fortran order, or it refuses the type; numpy calls the type ">u2", not "uint16".
# What happens: with and without shared memory the bytes are taken as they lie: 1 becomes 256, floats
# become denormals near 0, without a word; ops.constant does the same. Calling the compiled model with
# the very same array is right, since that converts it.
# Consequence: big-endian arrays are what memory-mapped "MM" TIFFs, 16-bit PGM read by np.frombuffer,
# FITS and IDX files give. Moving from model(array) to an infer request with ov.Tensor(array), for speed,
# changes the picture. Call array.astype(array.dtype.newbyteorder("=")) first.
# Versions: openvino 2026.4.1, tifffile 2026.3.3, numpy 2.4.6, Python 3.11, little-endian. November 2026.
#
# Ends with 0 while this is so, with 1 when the values are kept or the type is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  openvino==2026.4.1 tifffile==2026.3.3 numpy==2.4.6
export HOME="$folder" https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9  # no telemetry
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
import openvino as ov
import tifffile
from openvino import opset15 as ops

print("openvino", ov.__version__, "tifffile", tifffile.__version__)
VALUES = [[1, 2, 256, 65535]]
path = f"{sys.argv[1]}/page.tif"
tifffile.imwrite(path, np.array(VALUES, np.uint16), byteorder=">")
page = tifffile.memmap(path, mode="r")
assert page.tolist() == VALUES and page.dtype.byteorder == ">"

given = ops.parameter([1, 4], np.uint16)
compiled = ov.Core().compile_model(ov.Model([ops.convert(given, "f32")], [given], "page"), "CPU")
request = compiled.create_infer_request()
request.set_input_tensor(ov.Tensor(page))
request.infer()
turned = np.array(VALUES, np.uint16)[:, ::-1]
seen = {
    "Tensor of a reversed array": ov.Tensor(turned).data[:, ::-1].tolist(),
    "model(array)": compiled(page)[0].tolist(),
    "Tensor(array)": ov.Tensor(page).data.tolist(),
    "Tensor(array), shared": ov.Tensor(np.array(page), shared_memory=True).data.tolist(),
    "ops.constant(array)": ops.constant(page).data.tolist(),
    "request with Tensor(array)": request.get_output_tensor().data.tolist(),
}
for how, values in seen.items():
    print(f"  {how}: {values[0]}")
swapped = [[256, 512, 1, 65535]]
sys.exit(0 if list(seen.values()) == [VALUES] * 2 + [swapped] * 4 else 1)
PYTHON
