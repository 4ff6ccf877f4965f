"""Evaluation of a table against ICDAR ground truth: scores, intervals, results per image.

An image of the table is joined to a file of ground truth by name: ``.../img_7.jpg`` to
``gt_img_7.txt`` or ``img_7.txt`` (see `export.names.image_key`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.bootstrap import Comparison, Interval, compare_scores, hmean_interval
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.lexicon import Lexicon, apply_lexicon
from textspot_ray.evaluation.matching import Measured, Scores, measure, score
from textspot_ray.evaluation.rules import Rules, ScoringTask, Variant
from textspot_ray.export.names import image_key
from textspot_ray.query.views import TableViews

_WORDS_SQL = """
    SELECT image_id, width, height, polygon, text, text_confidence, detection_confidence
    FROM words JOIN (SELECT unnest($ids) AS image_id) USING (image_id) JOIN images USING (image_id)
    WHERE text_confidence >= $lowest
    ORDER BY image_id, word_index
"""
_BELOW_SQL = """
    SELECT count(*) FROM words JOIN (SELECT unnest($ids) AS image_id) USING (image_id)
    WHERE text_confidence < $lowest
"""


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """What is measured and how.

    Attributes:
        variant: Whose rules.
        gt_size: Width and height that the ground truth's coordinates belong to; None: the images'.
        min_confidence: Words below are left out; None: the table's text threshold.
        lexicon: Dictionary to correct readings with.
        max_distance: Readings with a larger edit distance to the dictionary are dropped.
        only_in_table: Leave out ground truth of images that the table lacks, instead of counting
            their words as missed.
    """

    variant: Variant = Variant.RRC
    gt_size: tuple[int, int] | None = None
    min_confidence: float | None = None
    lexicon: Lexicon | None = None
    max_distance: int = 1
    only_in_table: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """Predictions of the images that have ground truth, by key.

    Attributes:
        predictions: By image key, in pixels of the ground truth.
        image_ids: The table's id of each key.
        without_gt: Images of the table without ground truth.
        not_in_table: Keys of ground truth whose image the table lacks.
        below: Words of those images left out because of their confidence.
        min_confidence: Minimal confidence of the words that count.
    """

    predictions: dict[str, tuple[Predicted, ...]]
    image_ids: dict[str, str]
    without_gt: int
    not_in_table: tuple[str, ...]
    below: int = 0
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scores of one table."""

    joined: Joined
    measured: tuple[Measured, ...]
    scores: dict[ScoringTask, Scores]
    intervals: dict[ScoringTask, Interval]


def evaluate_table(
    tables: TableViews, gt: Mapping[str, Sequence[GtWord]], settings: EvaluateSettings
) -> Evaluation:
    """Score a table by all tasks of the variant.

    Args:
        tables: The opened table.
        gt: Words by image key.
        settings: What to measure.

    Raises:
        UsageError: No image of the table has ground truth, or two have the same name.
    """
    joined = join_predictions(tables, gt, settings)
    predictions: Mapping[str, Sequence[Predicted]] = joined.predictions
    if settings.lexicon is not None:
        predictions = apply_lexicon(predictions, settings.lexicon, settings.max_distance)
    kept = joined.image_ids if settings.only_in_table else gt
    measured = measure({key: gt[key] for key in sorted(kept)}, predictions)
    tasks = [ScoringTask.WORD_SPOTTING, ScoringTask.DETECTION]
    if settings.variant is Variant.RRC:
        tasks[1:1] = [ScoringTask.END_TO_END, ScoringTask.ALPHANUMERIC]
    scores = {task: score(measured, Rules(task, settings.variant)) for task in tasks}
    intervals = {task: hmean_interval(found) for task, found in scores.items()}
    return Evaluation(joined, measured, scores, intervals)


def compare_evaluations(a: Evaluation, b: Evaluation) -> dict[ScoringTask, Comparison]:
    """Paired differences, B minus A, of each task."""
    return {task: compare_scores(a.scores[task], b.scores[task]) for task in a.scores}


def join_predictions(
    tables: TableViews, gt: Mapping[str, Sequence[GtWord]], settings: EvaluateSettings
) -> Joined:
    """Join images with their ground truth, and scale their words to its size.

    Args:
        tables: The opened table.
        gt: Words by image key.
        settings: Sizes and the minimal confidence.
    """
    image_ids: dict[str, str] = {}
    without_gt = 0
    for (image_id,) in tables.rows("SELECT image_id FROM images"):
        key = image_key(image_id)
        if key not in gt:
            without_gt += 1
            continue
        if key in image_ids:
            raise UsageError(
                f"{image_ids[key]} and {image_id} are both called {key}: ground truth cannot be "
                "told apart by name"
            )
        image_ids[key] = image_id
    if not image_ids:
        raise UsageError(
            f"no image of {tables.uri} is named like the ground truth "
            f"(img_7.jpg belongs to gt_img_7.txt; the ground truth has {min(gt, default='none')})"
        )
    found: dict[str, list[Predicted]] = {key: [] for key in image_ids}
    parameters: dict[str, Any] = {
        "ids": list(image_ids.values()),
        "lowest": tables.min_confidence(settings.min_confidence),
    }
    for image_id, width, height, polygon, text, confidence, detection in tables.rows(
        _WORDS_SQL, parameters
    ):
        place = scaled(polygon, (width, height), settings.gt_size)
        found[image_key(image_id)].append(Predicted(place, text, confidence, detection))
    missing = tuple(sorted(key for key in gt if key not in image_ids))
    return Joined(
        {key: tuple(words) for key, words in found.items()},
        image_ids,
        without_gt,
        missing,
        int(tables.rows(_BELOW_SQL, parameters)[0][0]),
        float(parameters["lowest"]),
    )


def scaled(
    polygon: Sequence[float], size: tuple[int, int], gt_size: tuple[int, int] | None
) -> tuple[float, ...]:
    """A polygon in pixels of the ground truth.

    Args:
        polygon: x0, y0, x1, y1, ... in pixels of the image.
        size: Width and height of the image.
        gt_size: Those that the ground truth's coordinates belong to; None: the image's.
    """
    if gt_size is None:
        return tuple(polygon)
    factors = (gt_size[0] / size[0], gt_size[1] / size[1])
    return tuple(value * factors[n % 2] for n, value in enumerate(polygon))
