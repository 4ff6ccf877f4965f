"""Labels by the teacher: lines cut into words, and readings of words that have no transcription.

    python -m jobs.training teacher lines --from D/receipts_train --out D/receipts_words
    python -m jobs.training teacher photos --from D/packages_unlabelled --out D/packages_words
    python -m jobs.training teacher masks --from D/mlt_english_masks D/mlt_french_masks \\
        --eye jobs/labels/mlt_by_eye.tsv --out jobs/labels/mlt_words.tsv

``lines`` keeps the transcription and finds where its words lie; pictures are linked, not copied.
``photos`` finds the words of pictures that come with nothing, by the bundle ``ppocrv6-small``;
those that it is not sure of become ignored regions. ``masks`` reads words along their masks' quads
and keeps what it is sure of.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from jobs.training.data import datasets
from jobs.training.data.datasets import FloatArray, PhotoWord
from jobs.training.data.located_labels import COLUMNS
from jobs.training.data.pseudo_labels import marked_words, transcriptions
from jobs.training.data.word_crop import Crop
from jobs.training.render.words import target_of
from jobs.training.teacher.model import (
    SURE,
    VERY_SURE,
    Image,
    LineReader,
    mean_confidence,
    word_spans,
)
from textspot_ray.errors import UsageError
from textspot_ray.records import Word
from textspot_ray.spotting.spotter import TextSpotter

# A word of a line whose symbols the teacher finds less likely than this becomes an ignored region:
# the transcription is of another line, or its place is a guess.
LEAST_ALIGNED = 0.3
# Word confidence of the bundle from which its words of unlabelled pictures are taken.
SURE_WORD = 0.9
TIGHT = 0.06  # share of a line's height that its box may be wider than its ink


def upright(image: Image, quad: FloatArray, grow: float = 0.0) -> Image:
    """Lay a quad [4, 2] upright: [height, width, 3], as high as the quad is.

    Args:
        image: [H, W, 3] BGR.
        quad: Clockwise from the text's top left.
        grow: Margin on all sides, share of the height.
    """
    tl, tr, br, bl = np.asarray(quad, np.float32)
    across, down = (tr - tl + br - bl) / 2, (bl - tl + br - tr) / 2
    width, height = float(np.hypot(*across)), float(np.hypot(*down))
    x, y = across / max(width, 1e-6) * grow * height, down / max(height, 1e-6) * grow * height
    corners = np.stack([tl - x - y, tr + x - y, br + x + y, bl - x + y])
    w, h = max(1, round(width + 2 * grow * height)), max(1, round((1 + 2 * grow) * height))
    to = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), to)
    flags, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpPerspective(image, matrix, (w, h), flags=flags, borderMode=border))


def words_of_line(reader: LineReader, image: Image, line: PhotoWord) -> list[PhotoWord]:
    """Cut a transcribed line into its words.

    Args:
        reader: The teacher.
        image: The page, [H, W, 3] BGR.
        line: Its quad and text.

    Returns:
        A word for each run of characters; those that the teacher does not find are not legible.
        The whole line as one illegible region where it cannot be aligned.
    """
    if not line.legible or len(line.text.split()) == 1:
        return [line]
    spans = word_spans(reader.align(upright(image, line.quad), line.text))
    if len(spans) != len(line.text.split()):
        return [PhotoWord(line.quad, line.text, False)]
    tl, tr, br, bl = line.quad
    across, down = (tr - tl + br - bl) / 2, (bl - tl + br - tr) / 2
    length = float(np.hypot(*across)) / max(float(np.hypot(*down)), 1e-6)  # in heights
    words = []
    for i, ((_, start, stop, sure), text) in enumerate(zip(spans, line.text.split(), strict=True)):
        # the box's own ends are those of the outer words
        a = 0.0 if not i else min(max(start / length, 0.0), 1.0)
        b = 1.0 if i == len(spans) - 1 else min(max(stop / length, 0.0), 1.0)
        quad = np.stack([tl + (tr - tl) * a, tl + (tr - tl) * b, bl + (br - bl) * b,
                         bl + (br - bl) * a])  # fmt: skip
        words.append(PhotoWord(quad.astype(np.float32), text, sure >= LEAST_ALIGNED and b > a))
    return words


def cut_lines(source: Path, out: Path, reader: LineReader) -> int:
    """Write a data set of words from one of lines; returns how many words.

    Raises:
        SourceError: `source` has no images, or ground truth in another form.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "gt").mkdir(exist_ok=True)
    total = 0
    for path in datasets.image_files(source / "images"):
        gt = source / "gt" / f"gt_{path.stem}.txt"
        image = datasets.read_image(path)
        lines = datasets.parse_gt(gt.read_text(encoding="utf-8-sig"), str(gt))
        words = [word for line in lines for word in words_of_line(reader, image, line)]
        total += write_page(out, path, words)
    return total


def find_words(source: Path, out: Path, spot: Callable[[Image], Sequence[Word]]) -> int:
    """Write a data set of words from pictures without ground truth; returns how many words.

    Args:
        source: Holds ``images/``.
        out: The data set.
        spot: Finds and reads the words of a picture [H, W, 3] BGR.

    Raises:
        SourceError: `source` has no images.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "gt").mkdir(exist_ok=True)
    total = 0
    for path in datasets.image_files(source / "images"):
        words = []
        for word in spot(datasets.read_image(path)):
            quad = np.array(word.polygon, np.float32).reshape(4, 2)
            legible = word.text_confidence >= SURE_WORD and bool(target_of(word.text))
            words.append(PhotoWord(quad, word.text, legible))
        total += write_page(out, path, words)
    return total


def write_page(out: Path, picture: Path, words: Sequence[PhotoWord]) -> int:
    """Add a picture, by a link, and its words to a data set; returns how many are legible."""
    rows = []
    for word in words:
        numbers = ",".join(str(round(float(v))) for v in word.quad.reshape(-1))
        rows.append(f"{numbers},{word.text if word.legible else datasets.IGNORED_TEXT}\n")
    (out / "gt" / f"gt_{picture.stem}.txt").write_text("".join(rows), encoding="utf-8")
    link = out / "images" / picture.name
    link.unlink(missing_ok=True)
    link.symlink_to(picture.resolve())
    return sum(word.legible for word in words)


def label_masks(
    folders: Sequence[Path], eye: Sequence[Path], out: Path, reader: LineReader
) -> dict[str, int]:
    """Write transcriptions of marked words, ours by eye and the teacher's.

    The teacher's reading is taken where its mean confidence is at least `SURE`; against a
    transcription by eye only from `VERY_SURE` on, which is checked so. Eye's are kept otherwise.

    Returns:
        How many rows came from whom, and how many by eye the teacher contradicts.
    """
    counts = {"eye": 0, "teacher": 0, "contradicted": 0}
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(
            file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n"
        )
        writer.writerow((*COLUMNS, "by"))
        for folder in folders:
            words = marked_words(folder)
            seen = transcriptions(eye, words, strict=False)
            for number, word in enumerate(words):
                text, sure = reading(reader, word.crop)
                own = seen.get(number, "")
                by = "teacher" if sure >= (VERY_SURE if own else SURE) else "eye" if own else ""
                if own and sure >= VERY_SURE and target_of(own) != target_of(text):
                    counts["contradicted"] += 1
                elif own:
                    by = "eye"
                kept = own if by == "eye" else text
                if by and target_of(kept) and "\t" not in kept:
                    counts[by] += 1
                    writer.writerow([*word.place(), kept, by])
    return counts


def reading(reader: LineReader, crop: Crop) -> tuple[str, float]:
    """The teacher's reading of a word, and its mean confidence."""
    symbols = reader.read(upright(crop.image, crop.quad, TIGHT))
    return "".join(s.text for s in symbols).strip(), mean_confidence(symbols)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="teacher", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("lines", "photos", "masks"))
    parser.add_argument("--from", dest="source", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--eye", type=Path, nargs="*", default=[], help="words transcribed by eye")
    parser.add_argument("--models", type=Path, help="folder of PP-OCRv6_rec_small.onnx")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.what != "masks" and len(args.source) != 1:
        raise UsageError(f"give one folder of {args.what} after --from")
    if args.what == "photos":
        spotter = TextSpotter.load("ppocrv6-small", dictionary=False, threads=args.threads)
        print(f"{args.out}: {find_words(args.source[0], args.out, spotter)} words")
        return 0
    reader = LineReader(args.models, args.threads)
    if args.what == "lines":
        print(f"{args.out}: {cut_lines(args.source[0], args.out, reader)} words")
    else:
        counts = label_masks(args.source, args.eye, args.out, reader)
        print(f"{args.out}: " + ", ".join(f"{n} {who}" for who, n in counts.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
