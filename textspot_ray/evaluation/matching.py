"""Matching of predictions to ground truth, and the resulting scores; in memory, without tables.

    gt = read_ground_truth("icdar2015_dev.tar")
    scores = evaluate(gt, {"img_901": [Predicted(polygon, "topman")]}, Rules())
    scores.figures.hmean

The overlaps do not depend on thresholds or rules, so a sweep computes them once: `measure`, then
`score` for each setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textspot_ray.errors import MissingExtraError
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.rules import Rules


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over images and the scores derived from them (micro average)."""

    matched: int = 0
    wanted: int = 0  # words of the ground truth that count
    predicted: int = 0  # predictions that count

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.matched + other.matched,
            self.wanted + other.wanted,
            self.predicted + other.predicted,
        )

    @property
    def recall(self) -> float:
        """Share of the wanted words that were found, 0 where none was wanted."""
        return self.matched / self.wanted if self.wanted else 0.0

    @property
    def precision(self) -> float:
        """Share of the predictions that are right, 0 where there are none."""
        return self.matched / self.predicted if self.predicted else 0.0

    @property
    def hmean(self) -> float:
        """Harmonic mean of recall and precision."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """A word and a prediction that touch."""

    gt: int
    predicted: int
    iou: float
    share: float  # of the prediction's area


@dataclass(frozen=True, slots=True)
class Measured:
    """An image's words, predictions and their overlaps, in order of (gt, predicted)."""

    image: str
    words: tuple[GtWord, ...]
    predictions: tuple[Predicted, ...]
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A word and the prediction matched to it; ``right`` if the text is right too."""

    gt: int
    predicted: int
    right: bool


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The result of one image, with indexes into `measured`."""

    measured: Measured
    figures: Figures
    pairs: tuple[Pair, ...]
    missed: tuple[int, ...]  # words that count without a pair
    spurious: tuple[int, ...]  # predictions that count without a pair

    @property
    def image(self) -> str:
        """The image's key."""
        return self.measured.image

    @property
    def wrong(self) -> int:
        """Words found but misread."""
        return sum(not pair.right for pair in self.pairs)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a data set."""

    rules: Rules
    figures: Figures
    images: tuple[ImageScore, ...]


def evaluate(
    gt: Mapping[str, Sequence[GtWord]],
    predictions: Mapping[str, Sequence[Predicted]],
    rules: Rules | None = None,
) -> Scores:
    """Score predictions; images of ``gt`` without predictions count as without words.

    Args:
        gt: Words by image key.
        predictions: Predictions by the same keys, in the pixels of the ground truth; keys that
            ``gt`` lacks are left out.
        rules: Task and variant; default: the organisers' word spotting.

    Raises:
        MissingExtraError: shapely is not installed.
    """
    return score(measure(gt, predictions), rules or Rules())


def measure(
    gt: Mapping[str, Sequence[GtWord]], predictions: Mapping[str, Sequence[Predicted]]
) -> tuple[Measured, ...]:
    """Overlaps of all words and predictions, whose coordinates are truncated to integers."""
    return tuple(
        _measure_image(image, tuple(words), tuple(predictions.get(image, ())))
        for image, words in gt.items()
    )


def score(
    measured: Iterable[Measured],
    rules: Rules,
    keep: Callable[[Predicted], bool] | None = None,
) -> Scores:
    """Match and count, with only those predictions that ``keep`` accepts.

    Args:
        measured: Images with their overlaps.
        rules: Task and variant.
        keep: Whether a prediction counts; None: all do.
    """
    images = tuple(_score_image(image, rules, keep) for image in measured)
    return Scores(rules, sum((image.figures for image in images), Figures()), images)


def polygon_overlaps(
    gt: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]]
) -> tuple[Overlap, ...]:
    """All polygons that touch, in order of (gt, predicted).

    Args:
        gt: Polygons as x0, y0, x1, y1, ...
        predicted: The same of the predictions.

    Raises:
        MissingExtraError: shapely is not installed.
    """
    try:
        import shapely
    except ImportError as exc:
        raise MissingExtraError("evaluation", "evaluate") from exc

    def shapes(polygons: Sequence[Sequence[float]]) -> Any:
        made = [shapely.Polygon(np.reshape(polygon, (-1, 2))) for polygon in polygons]
        return shapely.make_valid(np.array(made, object))  # bow ties, points in a line

    wanted, found = shapes(gt), shapes(predicted)
    common = shapely.area(shapely.intersection(wanted[:, None], found[None, :]))
    wanted_area, found_area = shapely.area(wanted), shapely.area(found)
    overlaps = []
    for g, p in np.argwhere(common > 0).tolist():
        both, area = float(common[g, p]), float(found_area[p])
        union = float(wanted_area[g]) + area - both
        overlaps.append(Overlap(g, p, both / union, both / area))
    return tuple(overlaps)


def _measure_image(
    image: str, words: tuple[GtWord, ...], predictions: tuple[Predicted, ...]
) -> Measured:
    # as in the organisers' rules
    cut = [[int(value) for value in item.polygon] for item in predictions]
    overlaps = polygon_overlaps([word.polygon for word in words], cut)
    return Measured(image, words, predictions, overlaps)


def _score_image(
    measured: Measured, rules: Rules, keep: Callable[[Predicted], bool] | None
) -> ImageScore:
    wanted = [rules.wanted_text(word) for word in measured.words]
    kept = {p for p, item in enumerate(measured.predictions) if keep is None or keep(item)}
    ignored = {
        overlap.predicted
        for overlap in measured.overlaps
        if wanted[overlap.gt] is None and rules.is_enough(overlap.share)
    }
    live = kept - ignored
    used_gt: set[int] = set()
    used_predicted: set[int] = set()
    pairs: list[Pair] = []
    for overlap in measured.overlaps:  # in order of (gt, predicted): first come, first served
        target = wanted[overlap.gt]
        if (
            target is None
            or overlap.predicted not in live
            or overlap.gt in used_gt
            or overlap.predicted in used_predicted
            or not rules.is_enough(overlap.iou)
        ):
            continue
        right = rules.same_text(target, measured.predictions[overlap.predicted].text)
        if right or rules.consumes:
            used_gt.add(overlap.gt)
            used_predicted.add(overlap.predicted)
            pairs.append(Pair(overlap.gt, overlap.predicted, right))
    care = [g for g, text in enumerate(wanted) if text is not None]
    return ImageScore(
        measured=measured,
        figures=Figures(sum(pair.right for pair in pairs), len(care), len(live)),
        pairs=tuple(pairs),
        missed=tuple(g for g in care if g not in used_gt),
        spurious=tuple(sorted(live - used_predicted)),
    )
