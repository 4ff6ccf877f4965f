# mypy: disable-error-code="misc,untyped-decorator"
"""Transcriptions for photos that have word masks only.

python -m jobs.training labels --mlt DIR --reader NPZ --out FILE.tsv [--sheets DIR]

Words that the reader reads alike by attention and by CTC, on the mask's quad and on quads that are
off it, are taken at its word: what training learns from them is not the text but the look, since
it distorts them. The others are laid out on sheets for somebody to transcribe, each with a table
of the words on it: text goes into its last column (``?`` for what cannot be read), and ``--by-eye``
merges such tables.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from jobs.training.data import datasets
from jobs.training.data.located_labels import COLUMNS, read_labels
from jobs.training.data.word_crop import Crop, quad_height, surroundings
from jobs.training.reader import network as net
from jobs.training.reader.batches import exact_batch
from jobs.training.reader.cutting import cut
from jobs.training.reader.distortions import jitter_quad
from jobs.training.refiner.rectification import shape_plane
from jobs.training.render.words import target_of

VIEWS = 3  # the mask's quad, then quads that are off
MIN_HEIGHT_PX = 9.0
SHEET_COLUMNS, SHEET_ROWS, CAPTION_PX = 5, 14, 18


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
    crop: Crop

    def place(self) -> tuple[str, str, str]:
        """File, x and y, as tables have them."""
        x, y = self.middle
        return self.file, f"{x:.1f}", f"{y:.1f}"


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
            width, height = float(np.linalg.norm(quad[1] - quad[0])), quad_height(quad)
            crop = surroundings(image, quad)
            if word.legible and height >= MIN_HEIGHT_PX and width >= height and crop is not None:
                x, y = (float(v) for v in quad.mean(0))
                words.append(Marked(photo.path.name, (x, y), crop))
    return words


@torch.no_grad()
def read_views(encoder: net.Encoder, decoder: net.Decoder, crops: Sequence[Crop]) -> list[Reading]:
    """Read crops along their quads; the confidence is 0 where CTC and attention differ."""
    batch = exact_batch(crops)
    pixels: Tensor = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float()
    patches = torch.cat((pixels, shape_plane(torch.from_numpy(batch.codes))), 1)
    columns, ctc = encoder.columns(patches)
    pairs = zip(decoder.greedy(columns), net.read_ctc(ctc), strict=True)
    return [Reading(text, sure if text == other else 0.0) for (text, sure), other in pairs]


def read_words(reader: Path, words: Sequence[Marked], batch: int = 64) -> list[Reading]:
    """Read every word `VIEWS` times."""
    encoder, decoder = net.load_reader(reader)
    rng = np.random.default_rng(0)
    readings = []
    for start in range(0, len(words), batch):
        crops = [word.crop for word in words[start : start + batch]]
        views = [read_views(encoder, decoder, crops)]
        for _ in range(VIEWS - 1):
            off = [replace(c, quad=jitter_quad(rng, c.quad, 0.7)) for c in crops]
            views.append(read_views(encoder, decoder, off))
        for seen in zip(*views, strict=True):
            agreed = all(r.text == seen[0].text for r in seen)
            readings.append(
                Reading(seen[0].text, min(r.confidence for r in seen) if agreed else 0.0)
            )
    return readings


def transcriptions(
    files: Sequence[Path], words: Sequence[Marked], *, strict: bool = True
) -> dict[int, str]:
    """Read tables of transcriptions; words marked ``?`` or without text are left out.

    Args:
        files: The tables.
        words: What they are of.
        strict: Whether photos that none of `words` is of are an error.

    Returns:
        Text by index into `words`.

    Raises:
        SourceError: A table is something else, or names a place where no word is marked.
    """
    indexes: dict[str, list[int]] = {}
    for index, word in enumerate(words):
        indexes.setdefault(word.file, []).append(index)
    texts = {}
    for label in (label for path in files for label in read_labels(path)):
        there = indexes.get(label.file, [])
        if not there and not strict:
            continue
        index = label.nearest([words[i].middle for i in there])
        if label.text not in ("", "?"):
            texts[there[index]] = label.text
    return texts


def write_labels(
    path: Path, words: Sequence[Marked], texts: dict[int, str], readings: Sequence[Reading]
) -> int:
    """Write the labels; what was transcribed by eye goes before what was read."""
    rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = _tab_separated(file)
        writer.writerow((*COLUMNS, "by"))
        for number, (word, reading) in enumerate(zip(words, readings, strict=True)):
            text = texts.get(number, reading.text if reading.confidence > 0 else "")
            if target_of(text):
                by = "eye" if number in texts else "reader"
                writer.writerow([*word.place(), text, by])
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
    parser.add_argument(
        "--by-eye", type=Path, nargs="*", default=[], help="tables of sheets, filled in"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    words = marked_words(args.mlt)
    readings = [
        r if r.confidence >= args.least and r.text else Reading(r.text, 0.0)
        for r in read_words(args.reader, words)
    ]
    texts = transcriptions(args.by_eye, words)
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
    """Write one sheet as PNG, and the table of its words to fill in."""
    tiles = []
    for number in numbers:
        pixels, _ = cut(words[number].crop.image, words[number].crop.quad)
        tile = cv2.copyMakeBorder(pixels, 0, CAPTION_PX, 0, 4, cv2.BORDER_CONSTANT)
        at, white = (2, tile.shape[0] - 4), (255, 255, 255)
        tiles.append(cv2.putText(tile, str(number), at, cv2.FONT_HERSHEY_PLAIN, 1.0, white))
    while len(tiles) % SHEET_COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + SHEET_COLUMNS]) for i in range(0, len(tiles), SHEET_COLUMNS)]
    cv2.imwrite(str(folder / f"words_{numbers[0]:05d}.png"), np.vstack(rows))
    table = folder / f"words_{numbers[0]:05d}.tsv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = _tab_separated(file)
        writer.writerow(("number", *COLUMNS))
        writer.writerows((number, *words[number].place(), "") for number in numbers)


def _tab_separated(file: IO[str]) -> Any:
    return csv.writer(
        file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
