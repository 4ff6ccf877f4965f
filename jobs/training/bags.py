"""Scores of documents and plates, whose ground truth has no word's place to go by.

    python -m jobs.training score T --gt receipts_dev.tar
    python -m jobs.training score T --gt D/forms_train --kept-aside measure
    python -m jobs.training score T --plates D/plates_dev/plates.tsv
    python -m jobs.training score rival.jsonl --plates D/plates_dev/plates.tsv

Documents: the words of a page as a bag (those of at least three letters and digits, lower case,
nothing else in them), F over all pages. What stands between blanks is a word without its
punctuation ("12.50" is 1250); the second F takes runs of letters and digits instead ("12.50" is two
runs too short to count), which is how programs that split words otherwise are usually compared.
Plates: read exactly by a word, by words beside each other, or by a line; words that the bundle is
not sure of are left out of the first figure and not of the second.

A rival's readings come as lines of JSON (`jobs.bench.rival_texts`), so that one rule counts both.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.training.data.kept_aside import names_for
from jobs.training.render.words import target_of
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import DONT_CARE, read_ground_truth
from textspot_ray.export.names import image_key

LEAST_CHARS = 3
_WORDS_SQL = """
SELECT image_id, text, text_confidence, line_index, x_min, y_min, x_max, y_max FROM words
ORDER BY image_id, word_index
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A word of a table.

    Attributes:
        text: As `target_of` gives it.
        confidence: Of the text.
        box: Upright, pixels.
        written: The text as it was read.
        line: Its text line's number on the page.
    """

    text: str
    confidence: float
    box: tuple[float, float, float, float]
    written: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BagScore:
    """Words of all pages: matched, in the ground truth, found."""

    matched: int
    wanted: int
    found: int

    @property
    def recall(self) -> float:
        """Share of the ground truth's words found."""
        return self.matched / max(self.wanted, 1)

    @property
    def precision(self) -> float:
        """Share of the words found that are in the ground truth."""
        return self.matched / max(self.found, 1)

    @property
    def f(self) -> float:
        """Their harmonic mean."""
        return 2 * self.matched / max(self.wanted + self.found, 1)


def bag(texts: Sequence[str]) -> Counter[str]:
    """The words of texts, by their letters and digits."""
    words = (target_of(word) for text in texts for word in text.split())
    return Counter(word for word in words if len(word) >= LEAST_CHARS)


def bag_of_runs(texts: Sequence[str]) -> Counter[str]:
    """The runs of letters and digits in texts, accents dropped."""
    plain = (unicodedata.normalize("NFKD", text).lower() for text in texts)
    bare = ("".join(c for c in text if not unicodedata.combining(c)) for text in plain)
    runs = (run for text in bare for run in re.findall("[a-z0-9]+", text))
    return Counter(run for run in runs if len(run) >= LEAST_CHARS)


def score_bags(
    pages: Mapping[str, Sequence[Found]],
    gt: Mapping[str, Sequence[str]],
    least: float,
    *,
    runs: bool = False,
) -> BagScore:
    """Compare the words of pages with their ground truth.

    Args:
        pages: Words by page; a page that lacks was not read at all.
        gt: Texts by page, words or lines.
        least: Confidence below which words are left out.
        runs: Whether runs of letters and digits count, instead of words.
    """
    count = bag_of_runs if runs else bag
    matched = wanted = found = 0
    for name, texts in gt.items():
        sure = [w for w in pages.get(name, ()) if w.confidence >= least]
        true = count(texts)
        own = count([w.written if runs else w.text for w in sure])
        matched += (true & own).total()
        wanted += true.total()
        found += own.total()
    return BagScore(matched, wanted, found)


def reads_plate(words: Sequence[Found], plate: str) -> bool:
    """Whether a word says what a plate says, a line, or up to three words beside each other."""
    wanted = target_of(plate)
    lines: defaultdict[int, str] = defaultdict(str)
    for word in words:
        if word.line is not None:
            lines[word.line] += word.text
    if wanted in lines.values():
        return True
    for first in words:
        text, last = first.text, first
        for _ in range(3):
            if text == wanted:
                return True
            after = [w for w in words if _beside(last, w)]
            if not after or not wanted.startswith(text):
                break
            last = min(after, key=lambda w: w.box[0])
            text += last.text
    return False


def _beside(left: Found, right: Found) -> bool:
    """Whether a word follows another on its line, within 1.5 heights."""
    height = min(left.box[3] - left.box[1], right.box[3] - right.box[1])
    shared = min(left.box[3], right.box[3]) - max(left.box[1], right.box[1])
    gap = right.box[0] - left.box[2]
    return shared > 0.6 * height and -0.3 * height < gap < 1.5 * height


def read_table(uri: str) -> tuple[dict[str, list[Found]], float]:
    """A table's words by image name in their order, and its text threshold."""
    from textspot_ray.query.views import open_views

    with open_views(uri) as tables:
        pages: dict[str, list[Found]] = {}
        for (image_id,) in tables.rows("SELECT image_id FROM images"):
            pages.setdefault(image_key(image_id), [])
        for image_id, text, confidence, line, *box in tables.rows(_WORDS_SQL):
            x0, y0, x1, y1 = (float(v) for v in box)
            found = Found(target_of(text), confidence, (x0, y0, x1, y1), text, line)
            pages[image_key(image_id)].append(found)
        return pages, tables.files.text_threshold


def read_rival(path: Path) -> tuple[dict[str, list[Found]], float]:
    """A rival's words: lines of JSON with the image's name and its text lines; nothing left out."""
    pages: dict[str, list[Found]] = {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        words = pages.setdefault(Path(row["image"]).stem, [])
        for number, text in enumerate(row["lines"]):
            for word in text.split():
                # one place for all: words of different lines are never beside each other
                box = (0.0, 100.0 * number, 1.0, 100.0 * number + 20)
                words.append(Found(target_of(word), 1.0, box, word, number))
    return pages, 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="score", description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="+", help="one or more tables, or a rival's .jsonl")
    parser.add_argument("--gt", type=Path, help="folder or tar of gt_<page>.txt")
    parser.add_argument("--kept-aside", choices=("measure", "validate"), help="only these pages")
    parser.add_argument("--plates", type=Path, help="plates.tsv: file, x, y, w, h, plate")
    parser.add_argument("--min-confidence", type=float, help="default: the bundle's")
    args = parser.parse_args(argv)
    if (args.gt is None) == (args.plates is None):
        raise UsageError("give --gt or --plates")
    for uri in args.table:
        is_rival = uri.endswith(".jsonl")
        pages, least = read_rival(Path(uri)) if is_rival else read_table(uri)
        least = least if args.min_confidence is None else args.min_confidence
        if args.plates:
            print(f"{uri}: {_plates(pages, args.plates, least)}")
            continue
        gt = {
            name: [w.text for w in words if w.text != DONT_CARE]
            for name, words in read_ground_truth(args.gt).items()
        }
        if args.kept_aside:
            wanted = names_for(args.kept_aside, gt, args.gt)
            gt = {name: texts for name, texts in gt.items() if name in wanted}
        s = score_bags(pages, gt, least)
        by_runs = score_bags(pages, gt, least, runs=True)
        print(
            f"{uri}: {len(gt)} pages, {s.wanted} words; recall {s.recall:.3f}, "
            f"precision {s.precision:.3f}, F {s.f:.3f}; by runs of letters and digits "
            f"F {by_runs.f:.3f}"
        )
    return 0


def _plates(pages: Mapping[str, Sequence[Found]], table: Path, least: float) -> str:
    lines = table.read_text(encoding="utf-8").splitlines()
    plates = [line.split("\t") for line in lines if line.strip() and not line.startswith("file\t")]
    shares = []
    for lowest in (least, 0.0):
        right = sum(
            reads_plate(
                [w for w in pages.get(Path(file).stem, ()) if w.confidence >= lowest], plate
            )
            for file, *_, plate in plates
        )
        shares.append(f"{right} of {len(plates)} plates, {right / max(len(plates), 1):.3f}")
    return f"{shares[0]}; with unsure words {shares[1]}"


if __name__ == "__main__":
    raise SystemExit(main())
