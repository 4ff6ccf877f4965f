#!/bin/sh
# Guess: each line that the detector finds is read by itself, so a word's text does not depend on what
# else stands on the page; lines are put into batches for speed alone, and what pads them is masked.
#
# What happens: RapidOCR pads every line of a batch (six, by default) to the widest, and the PP-OCR
# recogniser's convolutions and attention see the padding. A long line added below five short words
# changes how some of them are read, though found at the same place; with Rec.rec_batch_num=1 nothing changes.
#
# Seen with rapidocr 3.10.0, onnxruntime 1.32.0, Pillow 13.0.0 on Python 3.11, Linux x86-64, on
# 28 November 2026.
# Ends with 0 as long as it is so, with 1 when the short words are read alike in batches too.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rapidocr==3.10.0 onnxruntime==1.32.0 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr import RapidOCR

logging.disable(logging.INFO)
WORDS = ("so", "sin", "x1", "oils", "vex")
LONG = "The quick brown fox jumps over the lazy dog and runs away from it all, again and again"
STEP = 60  # pixels from line to line


def page(size, with_long):
    """A white page with five words, one under another, and perhaps a long line below them."""
    lines = [*WORDS, LONG] if with_long else WORDS
    picture = Image.new("RGB", (1100, STEP * (len(WORDS) + 2)), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(picture).text(
            (40, 40 + STEP * row), line, font=ImageFont.load_default(size), fill="black"
        )
    return np.array(picture)[:, :, ::-1]


def read(engine, picture):
    """Box and text of each of the short words."""
    found = engine(picture)
    rows = zip(found.boxes.tolist(), found.txts)
    return sorted((box, text) for box, text in rows if box[0][1] < STEP * len(WORDS) + 30)


changed = {}
for batch in (6, 1):
    engine = RapidOCR(params={"Global.use_cls": False, "Rec.rec_batch_num": batch})
    changed[batch] = 0
    for size in (18, 22):
        alone, beside = (read(engine, page(size, with_long)) for with_long in (False, True))
        for (box, text), (other_box, other) in zip(alone, beside, strict=True):
            same_place = np.abs(np.subtract(box, other_box)).max() <= 2
            if same_place and text != other:
                changed[batch] += 1
                print(f"batches of {batch}, {size} px: {text!r} alone, {other!r} above a long line")
    print(f"batches of {batch}: {changed[batch]} of {2 * len(WORDS)} words changed")
sys.exit(0 if changed[6] and not changed[1] else 1)
PYTHON
