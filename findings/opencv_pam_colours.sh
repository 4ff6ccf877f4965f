#!/usr/bin/env bash
# OpenCV reads a PAM file with red and blue exchanged.
#
# Guess: cv2.imdecode gives BGR whatever the file is, so the same samples behind a PPM header (P6)
# and behind a PAM header (P7, TUPLTYPE RGB) decode to the same array; Netpbm's pam(5) defines RGB as
# red, green, blue in that order, as ppm(5) does.
# What happens: the PPM is right, the PAM comes out as it lies in the file, so that pure red is
# decoded as pure blue, with and without alpha. cv2.imencode writes PAM the same way, which hides it:
# OpenCV reads its own files back right, while every other program shows them in wrong colours.
# Versions: opencv-python-headless 5.0.0.93 (4.12.0.88 does the same), numpy 2.4.6, Python 3.11.
# November 2026.
#
# Ends with 0 while this is so, with 1 when a version decodes the PAM as the PPM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cv2
import numpy as np

RED = np.tile(np.array([255, 0, 0], np.uint8), (8, 8, 1))
HEAD = b"P7\nWIDTH 8\nHEIGHT 8\nDEPTH %d\nMAXVAL 255\nTUPLTYPE %s\nENDHDR\n"
FILES = {
    "PPM": b"P6\n8 8\n255\n" + RED.tobytes(),
    "PAM": HEAD % (3, b"RGB") + RED.tobytes(),
    "PAM with alpha": HEAD % (4, b"RGB_ALPHA") + np.dstack([RED, RED[..., :1]]).tobytes(),
}
seen = {
    name: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[0, 0, :3].tolist()
    for name, data in FILES.items()
}
blue = np.ascontiguousarray(RED)  # BGR: pure blue
rgb = (cv2.IMWRITE_PAM_TUPLETYPE, cv2.IMWRITE_PAM_FORMAT_RGB)
written = cv2.imencode(".pam", blue, rgb)[1].tobytes()[-3:]
print("OpenCV", cv2.__version__)
for name, pixel in seen.items():
    print(f"  red as {name}: decoded to B, G, R = {pixel}")
print(f"  blue written as PAM: R, G, B = {list(written)}")
surprising = (
    seen["PPM"] == [0, 0, 255]
    and seen["PAM"] == seen["PAM with alpha"] == [255, 0, 0]
    and list(written) == [255, 0, 0]
)
sys.exit(0 if surprising else 1)
PYTHON
