#!/usr/bin/env bash
# OpenCV reads the same grey map as white or as black, by whether its numbers are text or bytes.
#
# Guess: a PGM says which value is white (maxval), so white paper is 255 whichever maxval a file has,
# or else a reader leaves it alone in every kind of PGM; P2 and P5 hold the same picture.
# What happens: below 256 cv2.imdecode scales the text kinds (P2, P3) by maxval and not the binary ones
# (P5, P6): with maxval 15 white paper is 255 or 15. Above that it scales none: with maxval 1023 (10-bit
# scanners and cameras) IMREAD_COLOR makes white paper 3 of 255. Pillow gives white for all of them.
# Consequence: pages from pnm tools that keep the scanner's depth reach the model nearly black, without
# an error, and are found empty. Read maxval yourself and scale, or read these files by Pillow.
# Versions: opencv-python-headless 5.0.0.93, pillow 13.0.0, numpy 2.4.6, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when binary and text files decode alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys

import cv2
import numpy as np
import PIL
from PIL import Image

SIDE = 8


def white(magic, maxval):
    """A file of SIDE x SIDE white pixels."""
    samples = SIDE * SIDE * (3 if magic in ("P3", "P6") else 1)
    head = f"{magic}\n{SIDE} {SIDE}\n{maxval}\n".encode()
    if magic in ("P2", "P3"):
        return head + b"\n".join([str(maxval).encode()] * samples) + b"\n"
    return head + maxval.to_bytes(1 if maxval < 256 else 2, "big") * samples


def by_pillow(data):
    """The lightest sample, as a share of 255."""
    image = Image.open(io.BytesIO(data))
    values = np.asarray(image)
    return round(int(values.max()) * 255 / (65535 if image.mode.startswith("I") else 255))


print("OpenCV", cv2.__version__, "Pillow", PIL.__version__)
seen = {}
for maxval in (255, 15, 1023):
    for magic in ("P2", "P5", "P3", "P6"):
        data = white(magic, maxval)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        seen[magic, maxval] = int(image.max()), by_pillow(data)
        cv, pillow = seen[magic, maxval]
        print(f"  white in {magic} of maxval {maxval}: OpenCV {cv}, Pillow {pillow}")
surprising = (
    all(cv == 255 for (_, maxval), (cv, _) in seen.items() if maxval == 255)
    and all(pillow == 255 for _, pillow in seen.values())
    and seen["P2", 15][0] == seen["P3", 15][0] == 255
    and seen["P5", 15][0] == seen["P6", 15][0] == 15
    and all(seen[magic, 1023][0] == 3 for magic in ("P2", "P5", "P3", "P6"))
)
sys.exit(0 if surprising else 1)
PYTHON
