#!/usr/bin/env bash
# OpenCV decodes a TIFF whose compression it lacks to a black image instead of failing.
#
# Guess: cv2.imdecode returns None for what it cannot read (that is how it answers an LERC TIFF), and
# people test for None.
# What happens: for 8-bit colour TIFFs by JPEG XL (50002), JPEG 2000 (34712), JPEG XR (34934) and PNG
# (34933), as tifffile writes them, an array of the right size comes back in which every value is 0.
# The reason goes to the log only: "requested compression method is not configured". A page of text
# becomes a black page, and an OCR pipeline finds it empty.
# Versions: opencv-python-headless 5.0.0.93, tifffile 2026.3.3, imagecodecs 2026.3.6, numpy 2.4.6,
# Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when one of the four is read or refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import cv2
import numpy as np
import tifffile

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
white = np.full((64, 96, 3), 255, np.uint8)
print("OpenCV", cv2.__version__, "tifffile", tifffile.__version__)
seen = {}
for codec in ("lerc", "jpegxl", "jpeg2000", "jpegxr", "png"):
    file = io.BytesIO()
    tifffile.imwrite(file, white, photometric="rgb", compression=codec)
    back = tifffile.imread(io.BytesIO(file.getvalue()))
    assert int(back.min()) > 250, "the file itself is right"
    image = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    seen[codec] = None if image is None else int(image.max())
    told = "None" if image is None else f"{image.shape}, largest value {seen[codec]}"
    print(f"  white by {codec}: {told}")
surprising = seen == {"lerc": None, "jpegxl": 0, "jpeg2000": 0, "jpegxr": 0, "png": 0}
sys.exit(0 if surprising else 1)
PYTHON
