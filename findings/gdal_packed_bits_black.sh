#!/usr/bin/env bash
# GDAL writes a GeoTIFF of 12-bit samples as an empty, black file when its codec cannot pack bits.
#
# Guess: 12-bit samples (NBITS=12) with COMPRESS=LERC, WEBP or JPEG are either stored, or refused when
# the file is created, as other impossible combinations are; at the latest write() or close() raises.
# What happens: through rasterio, create, write and close all succeed. The file has a few hundred
# bytes: its directory is there and every strip has length 0, which readers take for a sparse file, so
# that it opens without an error or a warning and every sample is 0. With DEFLATE the same array
# comes back whole.
# Versions: rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when an error is raised or the samples come back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import warnings
from pathlib import Path

import numpy as np
import rasterio

warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
values = np.full((1, 64, 64), 3000, np.uint16)  # fits 12 bits
highest = {}
print("rasterio", rasterio.__version__, "GDAL", rasterio.__gdal_version__)
for codec in ("DEFLATE", "LERC", "WEBP", "JPEG"):
    path = Path(sys.argv[1]) / f"{codec}.tif"
    try:
        with rasterio.open(
            path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16",
            COMPRESS=codec, NBITS=12,
        ) as target:
            target.write(values)
        with rasterio.open(path) as source:
            highest[codec] = int(source.read().max())
        print(f"  {codec}: {path.stat().st_size} bytes, 3000 comes back as {highest[codec]}")
    except rasterio.errors.RasterioError as exc:
        print(f"  {codec}: {exc}")
surprising = highest == {"DEFLATE": 3000, "LERC": 0, "WEBP": 0, "JPEG": 0}
sys.exit(0 if surprising else 1)
PYTHON
