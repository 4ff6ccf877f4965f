"""An evaluation as text, as JSON, and as CSV by image."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import IO, Any

from textspot_ray.evaluation.bootstrap import Comparison
from textspot_ray.evaluation.evaluate import Evaluation
from textspot_ray.evaluation.failures import WordOutcomes
from textspot_ray.evaluation.matching import ImageScore
from textspot_ray.evaluation.rules import ScoringTask, Variant

_NAMES = {
    ScoringTask.WORD_SPOTTING: "word spotting",
    ScoringTask.END_TO_END: "end-to-end",
    ScoringTask.ALPHANUMERIC: "a-z, 0-9",
    ScoringTask.DETECTION: "detection only",
}
_RULES = {
    Variant.RRC: "the organisers' (RRC)",
    Variant.ACCURACY_CHECKER: "the accuracy checker's",
}


def evaluation_report(evaluation: Evaluation) -> str:
    """Scores in per cent, with 95 % intervals over images."""
    scores = evaluation.scores
    joined = evaluation.joined
    variant = next(iter(scores.values())).rules.variant
    counted = len(evaluation.measured)
    lines = [
        f"images: {counted} with ground truth are counted, {len(joined.image_ids)} of them in the "
        f"table; {joined.without_gt} in the table have no ground truth",
    ]
    if joined.not_in_table and counted > len(joined.image_ids):
        named = ", ".join(joined.not_in_table[:3])
        lines.append(
            f"NOT IN THE TABLE: {len(joined.not_in_table)} ({named}, ...); their words count as "
            "missed (--only-in-table leaves them out)"
        )
    if joined.below:
        lines.append(
            f"left out: {joined.below} words read with less than {joined.min_confidence:g} "
            "(--min-confidence)"
        )
    lines += [
        f"rules: {_RULES[variant]}",
        "",
        f"{'':16}{'recall':>8}{'precision':>11}{'hmean':>8}   {'95 % interval':<16}"
        f"{'matched':>8}{'wanted':>8}{'predicted':>11}",
    ]
    for task, found in scores.items():
        f, interval = found.figures, evaluation.intervals[task]
        span = f"{100 * interval.low:.2f} - {100 * interval.high:.2f}"
        lines.append(
            f"{_NAMES[task]:<16}{100 * f.recall:8.2f}{100 * f.precision:11.2f}{100 * f.hmean:8.2f}"
            f"   {span:<16}{f.matched:8}{f.wanted:8}{f.predicted:11}"
        )
    return "\n".join(lines) + "\n"


def comparison_report(other: str, comparisons: Mapping[ScoringTask, Comparison]) -> str:
    """Differences to another table in points, with paired intervals."""
    lines = ["", f"against {other} (points of hmean, paired over images):"]
    for task, found in comparisons.items():
        difference = found.difference
        sure = "beyond chance" if difference.low > 0 or difference.high < 0 else "within chance"
        lines.append(
            f"{_NAMES[task]:<16}{100 * difference.estimate:+8.2f}   "
            f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}   {sure}"
        )
    return "\n".join(lines) + "\n"


def evaluation_json(
    evaluation: Evaluation,
    comparisons: Mapping[ScoringTask, Comparison] | None = None,
    failed: WordOutcomes | None = None,
) -> dict[str, Any]:
    """The same as plain values for JSON.

    Args:
        evaluation: What was measured.
        comparisons: With another table, if asked for.
        failed: Failures by kind, if asked for.
    """
    tasks = {}
    for task, found in evaluation.scores.items():
        f, interval = found.figures, evaluation.intervals[task]
        tasks[str(task)] = {
            "recall": f.recall,
            "precision": f.precision,
            "hmean": f.hmean,
            "hmean_interval_95": [interval.low, interval.high],
            "matched": f.matched,
            "wanted": f.wanted,
            "predicted": f.predicted,
        }
    data: dict[str, Any] = {
        "rules": str(next(iter(evaluation.scores.values())).rules.variant),
        "images": len(evaluation.measured),
        "images_in_table": len(evaluation.joined.image_ids),
        "words_below_min_confidence": evaluation.joined.below,
        "tasks": tasks,
    }
    if comparisons is not None:
        data["difference"] = {
            str(task): {
                "hmean": found.difference.estimate,
                "interval_95": [found.difference.low, found.difference.high],
                "share_not_better": found.share_not_better,
            }
            for task, found in comparisons.items()
        }
    if failed is not None:
        data["failures"] = {
            "counted": failed.counted,
            "found": failed.found,
            "right": failed.right,
            **{str(kind): count for kind, count in failed.kinds.items()},
        }
    return data


def write_images_csv(evaluation: Evaluation, file: IO[str]) -> None:
    """One line per image: counts of word spotting, and the words missed, misread and spurious."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            "image",
            "image_id",
            "hmean",
            "matched",
            "wanted",
            "predicted",
            "misread",
            "missed",
            "spurious",
        ]
    )
    for image in worst_first(evaluation):
        f = image.figures
        words, predictions = image.measured.words, image.measured.predictions
        wrong = [pair for pair in image.pairs if not pair.right]
        writer.writerow(
            [
                image.image,
                evaluation.joined.image_ids.get(image.image, ""),
                f"{f.hmean:.4f}",
                f.matched,
                f.wanted,
                f.predicted,
                " ".join(f"{words[p.gt].text}>{predictions[p.predicted].text}" for p in wrong),
                " ".join(words[g].text for g in image.missed),
                " ".join(predictions[p].text for p in image.spurious),
            ]
        )


def worst_first(evaluation: Evaluation) -> list[ImageScore]:
    """Images by the number of words missed, misread and spurious, most first."""
    images = evaluation.scores[ScoringTask.WORD_SPOTTING].images

    def errors_first(image: ImageScore) -> tuple[int, str]:
        return (-len(image.missed) - image.wrong - len(image.spurious), image.image)

    return sorted(images, key=errors_first)
