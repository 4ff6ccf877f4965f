"""What a run missed, and whether its reader or its detector is to blame: words read at true quads.

    python -m jobs.training failures TABLE --gt DIR --bundle DIR --out PNG

For the validation photos: ``textspot run`` over photos 801-900, then this on its table.

The account and the pictures are those of ``textspot evaluate --failures``; beside them the bundle's
reader reads every counted word along the quad of the ground truth. That needs a bundle of this
project, whose text features are the word's pixels (see :mod:`jobs.training.refiner.rectification`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jobs.training.data.word_crop import Floats, Image
from jobs.training.reader.crops import DETECTOR_SIZE
from jobs.training.reader.cutting import cut
from jobs.training.refiner.rectification import shape_plane
from textspot_ray.commands.table_options import (
    add_table_argument,
    opened_table,
    size,
    storage_options,
)
from textspot_ray.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate_table
from textspot_ray.evaluation.failure_sheet import write_sheet
from textspot_ray.evaluation.failures import failures_report
from textspot_ray.evaluation.ground_truth import read_ground_truth
from textspot_ray.evaluation.matching import ImageScore
from textspot_ray.evaluation.rules import ScoringTask
from textspot_ray.query.pages import read_some
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.views import TableViews
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.settings import SpotterSettings


def quad_features(image: Image, quads: Floats) -> NDArray[np.float32]:
    """What the embedded detector would hand to its reader for these quads.

    Args:
        image: [H, W, 3] BGR.
        quads: [K, 4, 2] in pixels of the image, clockwise from the text's top left.

    Returns:
        [K, 64, 28, 28].
    """
    stretched = np.asarray(cv2.resize(image, DETECTOR_SIZE), np.uint8)
    scale = np.array(DETECTOR_SIZE) / np.array(image.shape[1::-1])
    features = np.empty((len(quads), 64, 28, 28), np.float32)
    for i, quad in enumerate(quads):
        pixels, codes = cut(stretched, np.asarray(quad * scale, np.float32))
        plane = shape_plane(torch.from_numpy(codes)[None])[0].numpy()
        patch = np.concatenate((pixels.transpose(2, 0, 1), plane))
        features[i] = patch.reshape(64, 28, 28)
    return features


_LENGTHS = (1, 4, 7, 9, 1000)  # classes of words by their letters


@dataclass(frozen=True, slots=True)
class Attempt:
    """A word of the ground truth, and whether it was read right along its true quad."""

    text: str
    right: bool


def read_at_true_quads(
    tables: TableViews,
    evaluation: Evaluation,
    reader: Recognizer,
    gt_size: tuple[int, int] | None,
    source_options: Mapping[str, object] | None = None,
    task: ScoringTask = ScoringTask.WORD_SPOTTING,
) -> list[Attempt]:
    """Read the words of a task along their true quads.

    Args:
        tables: The evaluated table; its images are read again.
        evaluation: What was measured.
        reader: Of an embedded bundle.
        gt_size: Size that the ground truth's coordinates belong to; None: the images'.
        source_options: fsspec options of the images' sources.
        task: Whose words.
    """
    ids = evaluation.joined.image_ids
    scores = [image for image in evaluation.scores[task].images if image.image in ids]
    pages = read_some(tables, [ids[image.image] for image in scores])
    attempts: list[Attempt] = []
    with Pictures(tables.files.store, source_options) as pictures:
        shown = pictures.decoded([pages[ids[image.image]] for image in scores])
        for score, (_, image, _note) in zip(scores, shown, strict=True):
            if image is not None:
                attempts += _read(score, evaluation, task, reader, image, gt_size)
    return attempts


def _read(
    score: ImageScore,
    evaluation: Evaluation,
    task: ScoringTask,
    reader: Recognizer,
    image: Image,
    gt_size: tuple[int, int] | None,
) -> list[Attempt]:
    rules = evaluation.scores[task].rules
    wanted = [(word, rules.wanted_text(word)) for word in score.measured.words]
    counted = [(word.polygon, text) for word, text in wanted if text is not None]
    if not counted:
        return []
    quads = np.array([polygon for polygon, _ in counted], np.float32).reshape(-1, 4, 2)
    if gt_size is not None:
        height, width = image.shape[:2]
        quads *= np.array([width / gt_size[0], height / gt_size[1]], np.float32)
    readings = reader.read(quad_features(image, quads)).readings
    return [
        Attempt(text, rules.same_text(text, reading.text))
        for (_, text), reading in zip(counted, readings, strict=True)
    ]


def _by_length(attempts: Sequence[Attempt]) -> str:
    """A line for each class of lengths that has words."""
    lines = []
    for least, most in pairwise(_LENGTHS):
        right = [a.right for a in attempts if least <= len(a.text) < most]
        if right:
            named = f"{least} letters" if most == least + 1 else f"{least} to {most - 1} letters"
            if most == _LENGTHS[-1]:
                named = f"{least} letters and more"
            share = 100 * sum(right) / len(right)
            lines.append(f"    {named:<26}{sum(right):6}{share:8.2f} % of {len(right)}\n")
    return "".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="failures", description=(__doc__ or "").split("\n")[0])
    add_table_argument(parser)
    parser.add_argument("--gt", required=True, help="folder, tar or zip of gt_<image>.txt files")
    parser.add_argument(
        "--gt-size", type=size, metavar="WxH", help="image size the gt's coordinates belong to"
    )
    parser.add_argument("--bundle", default="embedded", help="bundle of this project: its reader")
    parser.add_argument("--precision", help="of the bundle; default: f32")
    parser.add_argument("--out", type=Path, required=True, help="PNG of the failures")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        help="readings surer than this count (default: 0, so that a word read unsurely is found)",
    )
    args = parser.parse_args(argv)
    # a table of the validation photos beside the ground truth of all training photos is usual
    settings = EvaluateSettings(
        gt_size=args.gt_size, min_confidence=args.min_confidence, only_in_table=True
    )
    options = storage_options(args)
    reader = Recognizer(SpotterSettings(args.bundle, precision=args.precision or "f32"))
    with opened_table(args) as tables:
        found = evaluate_table(tables, read_ground_truth(args.gt), settings)
        failed = write_sheet(tables, found, args.gt_size, str(args.out), options)
        attempts = read_at_true_quads(tables, found, reader, args.gt_size, options)
    right = sum(attempt.right for attempt in attempts)
    share = 100 * right / max(failed.counted, 1)
    print(failures_report(failed), end="")
    print(f"  {'read right at true quads':<28}{right:6}{share:8.2f} %")
    print(_by_length(attempts), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
