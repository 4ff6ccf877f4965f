#!/usr/bin/env bash
# A word in a PDF that is turned by a few degrees is found by no search of poppler's.
#
# Guess: text drawn by one Tj under a text matrix of 10 degrees is one word to pdftotext, as it is at
# 2 degrees and at 90: the string is written in one piece, in order, without any space.
# What happens: from about 5 degrees on poppler cuts the word to single letters and pieces, and gives
# them by their height on the page: "international" in 36 points, rising by 10 degrees, comes out as
# "i l a n o i t a n r e t n". Near 90 degrees it is whole again. So the invisible text of a
# searchable PDF must lie along an axis, over the upright box of a slanted word, to be found.
# Versions: poppler-utils 22.12.0 (Debian 12), pikepdf 10.18.0, Python 3.11. November 2026.
#
# Ends with 0 while this is so, with 1 when a slanted word comes out whole.
set -euo pipefail
command -v pdftotext >/dev/null || { echo "needs pdftotext (poppler-utils)"; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pikepdf==10.18.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import math
import subprocess
import sys

import pikepdf

WORD = "international"


def pieces(degrees: float, points: float) -> list[str]:
    """What pdftotext makes of the word, drawn once with Helvetica at an angle."""
    path = f"{sys.argv[1]}/word.pdf"
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=(500, 500))
    page = pdf.pages[0].obj
    helvetica = pikepdf.Dictionary(
        Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica
    )
    page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F=pdf.make_indirect(helvetica)))
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    drawn = f"BT /F {points} Tf {c:.5f} {s:.5f} {-s:.5f} {c:.5f} 150 150 Tm ({WORD}) Tj ET"
    page.Contents = pdf.make_stream(drawn.encode())
    pdf.save(path)
    done = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True)
    return done.stdout.split()


for degrees, points in ((0, 36), (2, 36), (90, 36), (88, 12), (2, 12)):
    assert pieces(degrees, points) == [WORD], (degrees, points, pieces(degrees, points))
whole = []
for degrees, points in ((10, 36), (20, 36), (20, 12), (45, 12), (-20, 12)):
    found = pieces(degrees, points)
    print(f"{degrees:4} degrees, {points} points: {' '.join(found)}")
    if WORD in found:
        whole.append(degrees)
if whole:
    sys.exit(f"changed: whole at {whole} degrees")
PYTHON
echo "as described"
