# mypy: disable-error-code="misc,untyped-decorator"
"""Transcriptions for photos that have word masks only.

python jobs/train_embedded.py labels --mlt DIR --reader NPZ --out FILE.tsv [--sheets DIR]

Words that the reader reads alike by attention and by CTC, on the mask's quad and on quads that are
off it, are taken at its word: what training learns from them is not the text but the look, since
it distorts them. The others are laid out on sheets for somebody to transcribe; lines of those
transcriptions (``number<TAB>text``, ``?`` for what cannot be read) are merged with ``--by-eye``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from textspot_ray.errors import SourceError
from textspot_ray.training import datasets
from textspot_ray.training import network as net
from textspot_ray.training import reader_data as data

VIEWS = 3  # the mask's quad, then quads that are off
MIN_HEIGHT_PX = 9.0
SHEET_COLUMNS, SHEET_ROWS, CAPTION_PX = 5, 14, 18
FIELDS = ("file", "x", "y", "text", "by")  # x, y: the middle of the word, px of the photo


@dataclass(frozen=True, slots=True)
class Marked:
    """A word that a mask marks.

    Attributes:
        file: The photo's file name.
        middle: x and y of the quad's middle, px of the photo.
        crop: The word and its surroundings; its text is empty.
    """

    file: str
    middle: tuple[float, float]
    crop: data.Crop


@dataclass(frozen=True, slots=True)
class Reading:
    """What all views of a word gave.

    Attributes:
        text: Of the first view.
        confidence: The least of all views and 0 where two of them, or CTC and attention, differ.
    """

    text: str
    confidence: float


def marked_words(folder: Path) -> list[Marked]:
    """Every marked word that is wide and high enough to be read.

    Raises:
        SourceError: the folder lacks images or masks.
    """
    words = []
    for photo in datasets.mlt_photos(folder):
        image = photo.pixels()
        for word in photo.words:
            quad = word.quad.astype(np.float32)
            width, height = float(np.linalg.norm(quad[1] - quad[0])), data.quad_height(quad)
            crop = data.surroundings(image, quad)
            if word.legible and height >= MIN_HEIGHT_PX and width >= height and crop is not None:
                x, y = (float(v) for v in quad.mean(0))
                words.append(Marked(photo.path.name, (x, y), crop))
    return words


@torch.no_grad()
def read_views(
    encoder: net.Encoder, decoder: net.Decoder, crops: Sequence[data.Crop]
) -> list[Reading]:
    """Read crops along their quads; the confidence is 0 where CTC and attention differ."""
    batch = data.exact_batch(crops)
    pixels: Tensor = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float()
    patches = torch.cat((pixels, net.shape_plane(torch.from_numpy(batch.codes))), 1)
    columns, ctc = encoder.columns(patches)
    pairs = zip(decoder.greedy(columns), net.read_ctc(ctc), strict=True)
    return [Reading(text, sure if text == other else 0.0) for (text, sure), other in pairs]


def read_words(reader: Path, words: Sequence[Marked], batch: int = 64) -> list[Reading]:
    """Read every word `VIEWS` times."""
    _, encoder, decoder = net.load_reader(reader)
    rng = np.random.default_rng(0)
    readings = []
    for start in range(0, len(words), batch):
        crops = [word.crop for word in words[start : start + batch]]
        views = [read_views(encoder, decoder, crops)]
        for _ in range(VIEWS - 1):
            off = [replace(c, quad=data.jitter_quad(rng, c.quad, 0.7)) for c in crops]
            views.append(read_views(encoder, decoder, off))
        for seen in zip(*views, strict=True):
            agreed = all(r.text == seen[0].text for r in seen)
            readings.append(
                Reading(seen[0].text, min(r.confidence for r in seen) if agreed else 0.0)
            )
    return readings


def transcriptions(files: Sequence[Path]) -> dict[int, str]:
    """Read ``number<TAB>text`` lines; words marked ``?`` are left out.

    Raises:
        SourceError: a line is something else.
    """
    texts = {}
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines():
            number, tab, text = line.partition("\t")
            if not tab or not number.strip().isdigit():
                raise SourceError(f"{path}: {line!r} is not number<TAB>text")
            if text.strip() not in ("", "?"):
                texts[int(number)] = text.strip()
    return texts


def write_labels(
    path: Path, words: Sequence[Marked], texts: dict[int, str], readings: Sequence[Reading]
) -> int:
    """Write the labels; what was transcribed by eye goes before what was read."""
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(
            file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n"
        )
        writer.writerow(FIELDS)
        for number, (word, reading) in enumerate(zip(words, readings, strict=True)):
            text = texts.get(number, reading.text if reading.confidence > 0 else "")
            if data.target_of(text):
                by = "eye" if number in texts else "reader"
                x, y = word.middle
                writer.writerow([word.file, f"{x:.1f}", f"{y:.1f}", text, by])
                rows += 1
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="labels", description=__doc__.split("\n")[0])
    parser.add_argument("--mlt", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--reader", type=Path, required=True, help="the reader's .npz")
    parser.add_argument("--out", type=Path, required=True, help="labels (.tsv) to write")
    parser.add_argument("--least", type=float, default=0.8, help="confidence of a label")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of the other words")
    parser.add_argument("--by-eye", type=Path, nargs="*", default=[], help="number<TAB>text files")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    words = marked_words(args.mlt)
    readings = [
        r if r.confidence >= args.least and r.text else Reading(r.text, 0.0)
        for r in read_words(args.reader, words)
    ]
    texts = transcriptions(args.by_eye)
    rows = write_labels(args.out, words, texts, readings)
    print(f"{args.out}: {rows} of {len(words)} words, {len(texts)} of them by eye")
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        unsure = [i for i, r in enumerate(readings) if not r.confidence]
        each = SHEET_COLUMNS * SHEET_ROWS
        for start in range(0, len(unsure), each):
            write_sheet(args.sheets, words, unsure[start : start + each])
    return 0


def write_sheet(folder: Path, words: Sequence[Marked], numbers: Sequence[int]) -> None:
    """Write one sheet as PNG."""
    tiles = []
    for number in numbers:
        pixels, _ = data.cut(words[number].crop.image, words[number].crop.quad)
        tile = cv2.copyMakeBorder(pixels, 0, CAPTION_PX, 0, 4, cv2.BORDER_CONSTANT)
        at, white = (2, tile.shape[0] - 4), (255, 255, 255)
        tiles.append(cv2.putText(tile, str(number), at, cv2.FONT_HERSHEY_PLAIN, 1.0, white))
    while len(tiles) % SHEET_COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + SHEET_COLUMNS]) for i in range(0, len(tiles), SHEET_COLUMNS)]
    cv2.imwrite(str(folder / f"words_{numbers[0]:05d}.png"), np.vstack(rows))


if __name__ == "__main__":
    raise SystemExit(main())
