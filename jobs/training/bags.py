"""Scores of documents and plates, whose ground truth has no word's place to go by.

    python -m jobs.training score T --gt receipts_dev.tar
    python -m jobs.training score T --gt D/forms_train --kept-aside measure
    python -m jobs.training score T --plates D/plates_dev/plates.tsv

Documents: the words of a page as a bag (those of at least three letters and digits, lower case,
nothing else in them), F over all pages. Plates: read exactly by a word, or by words beside each
other.
"""

from __future__ import annotations

import argparse
from collections import Counter
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
SELECT image_id, text, text_confidence, x_min, y_min, x_max, y_max FROM words
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A word of a table: its text as `target_of` gives it, confidence and upright box."""

    text: str
    confidence: float
    box: tuple[float, float, float, float]


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


def score_bags(
    pages: Mapping[str, Sequence[Found]], gt: Mapping[str, Sequence[str]], least: float
) -> BagScore:
    """Compare the words of pages with their ground truth.

    Args:
        pages: Words by page; a page that lacks was not read at all.
        gt: Texts by page, words or lines.
        least: Confidence below which words are left out.
    """
    matched = wanted = found = 0
    for name, texts in gt.items():
        true = bag(texts)
        own = bag([w.text for w in pages.get(name, ()) if w.confidence >= least])
        matched += (true & own).total()
        wanted += true.total()
        found += own.total()
    return BagScore(matched, wanted, found)


def reads_plate(words: Sequence[Found], plate: str) -> bool:
    """Whether a word says what a plate says, or up to three words that stand beside each other."""
    wanted = target_of(plate)
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
    """A table's words by image name, and its text threshold."""
    from textspot_ray.query.views import open_views

    with open_views(uri) as tables:
        pages: dict[str, list[Found]] = {}
        for (image_id,) in tables.rows("SELECT image_id FROM images"):
            pages.setdefault(image_key(image_id), [])
        for image_id, text, confidence, *box in tables.rows(_WORDS_SQL):
            x0, y0, x1, y1 = (float(v) for v in box)
            found = Found(target_of(text), confidence, (x0, y0, x1, y1))
            pages[image_key(image_id)].append(found)
        return pages, tables.files.text_threshold


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="score", description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="+", help="one or more tables")
    parser.add_argument("--gt", type=Path, help="folder or tar of gt_<page>.txt")
    parser.add_argument("--kept-aside", choices=("measure", "validate"), help="only these pages")
    parser.add_argument("--plates", type=Path, help="plates.tsv: file, x, y, w, h, plate")
    parser.add_argument("--min-confidence", type=float, help="default: the bundle's")
    args = parser.parse_args(argv)
    if (args.gt is None) == (args.plates is None):
        raise UsageError("give --gt or --plates")
    for uri in args.table:
        pages, least = read_table(uri)
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
        print(
            f"{uri}: {len(gt)} pages, {s.wanted} words; recall {s.recall:.3f}, "
            f"precision {s.precision:.3f}, F {s.f:.3f}"
        )
    return 0


def _plates(pages: Mapping[str, Sequence[Found]], table: Path, least: float) -> str:
    lines = table.read_text(encoding="utf-8").splitlines()
    plates = [line.split("\t") for line in lines if line.strip() and not line.startswith("file\t")]
    right = 0
    for file, *_, plate in plates:
        words = [w for w in pages.get(Path(file).stem, ()) if w.confidence >= least]
        right += reads_plate(words, plate)
    return f"{right} of {len(plates)} plates, {right / max(len(plates), 1):.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
