"""Words of the ground truth that were not read, by the kind of failure.

Counted, found and right are as defined by the rules, so the sums agree with the evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from textspot_ray.evaluation.matching import ImageScore, Scores

CUT_HEIGHTS = 0.3  # an end this far outside the found quad is cut: about half a letter


class FailureKind(StrEnum):
    """What went wrong with a word."""

    NOT_FOUND = "not found"  # no prediction overlaps it enough
    ENDS_CUT = "ends cut"  # found, but an end of it lies outside what was read
    WRONG_LETTERS = "wrong letters"  # found whole, and misread


@dataclass(frozen=True, slots=True)
class Failure:
    """A word that was not read.

    Attributes:
        image: Key of the image.
        kind: What went wrong.
        text: What it says.
        read: What was read at the best overlap, ``""`` without any.
        iou: Overlap with that prediction, 0 without any.
        quad: x0, y0, ... x3, y3 of the word, in pixels of the ground truth.
        found: The same of the prediction, or None.
    """

    image: str
    kind: FailureKind
    text: str
    read: str
    iou: float
    quad: tuple[float, ...]
    found: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class WordOutcomes:
    """Words of a data set by result.

    Attributes:
        counted: Words that count by the rules.
        found: Those of them that a prediction overlaps enough.
        right: Those of the found ones that were read right.
        failures: The others.
    """

    counted: int
    found: int
    right: int
    failures: tuple[Failure, ...]

    @property
    def kinds(self) -> dict[FailureKind, int]:
        """Failures of each kind."""
        counts = Counter(failure.kind for failure in self.failures)
        return {kind: counts[kind] for kind in FailureKind}


def word_outcomes(scores: Scores) -> WordOutcomes:
    """Classify every counted word of an evaluation."""
    pairs = [pair for image in scores.images for pair in image.pairs]
    return WordOutcomes(
        counted=scores.figures.wanted,
        found=len(pairs),
        right=sum(pair.right for pair in pairs),
        failures=tuple(failure for image in scores.images for failure in _failures(image)),
    )


def failures_report(found: WordOutcomes) -> str:
    """The failures by kind as lines of text."""
    lines = [
        f"word spotting: {found.counted} words counted",
        _line("found (IoU > 0.5)", found.found, found.counted),
        _line("read right at found quads", found.right, found.counted),
        *(_line(str(kind), count, found.counted) for kind, count in found.kinds.items()),
    ]
    return "\n".join(lines) + "\n"


def _line(label: str, count: int, of: int) -> str:
    return f"  {label:<28}{count:6}{100 * count / max(of, 1):8.2f} %"


def _failures(image: ImageScore) -> Iterator[Failure]:
    words, predictions = image.measured.words, image.measured.predictions
    ious = {(o.gt, o.predicted): o.iou for o in image.measured.overlaps}
    best: dict[int, int] = {}
    for (g, candidate), iou in ious.items():
        if g not in best or iou > ious[g, best[g]]:
            best[g] = candidate
    misread = {pair.gt: pair.predicted for pair in image.pairs if not pair.right}
    for g in sorted({*image.missed, *misread}):
        p: int | None = misread.get(g, best.get(g))
        found = None if p is None else predictions[p]
        kind = FailureKind.NOT_FOUND
        if g in misread and found is not None:
            kind = FailureKind.WRONG_LETTERS
            if cut_heights(words[g].polygon, found.polygon) > CUT_HEIGHTS:
                kind = FailureKind.ENDS_CUT
        yield Failure(
            image.image,
            kind,
            words[g].text,
            found.text if found else "",
            0.0 if p is None else ious[g, p],
            words[g].polygon,
            found.polygon if found else None,
        )


def cut_heights(word: Sequence[float], found: Sequence[float]) -> float:
    """How far a word sticks out of a found quad at either end, in heights of the word.

    Measured along the word's own middle line; 0 where both ends lie inside.
    """
    quad, other = (np.reshape(q, (4, 2)).astype(np.float64) for q in (word, found))
    left, right = (quad[0] + quad[3]) / 2, (quad[1] + quad[2]) / 2
    length = max(float(np.hypot(*(right - left))), 1e-6)
    along = (right - left) / length
    down = np.array([-along[1], along[0]])
    height = max(float(np.mean(np.abs((quad[[3, 2]] - quad[[0, 1]]) @ down))), 1e-6)
    # ends of the found quad: its corners in pairs by where they lie along the word
    reach = np.sort((other - left) @ along)
    return max(0.0, float(reach[:2].mean()), length - float(reach[2:].mean())) / height
