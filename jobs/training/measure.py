"""Figures of a bundle on photographs with ground truth, read by the spotter that users run.

Everything the detector's graph lets out is read once; thresholds are then chosen by sweeping.
``textspot evaluate`` measures tables that the pipeline wrote, at one setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jobs.training.data.datasets import ICDAR2015_GT_SIZE, ByteArray, Photo
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import DONT_CARE, GtWord, Predicted
from textspot_ray.evaluation.matching import Figures, measure, score
from textspot_ray.evaluation.rules import Rules, ScoringTask
from textspot_ray.evaluation.thresholds import DETECTION_GRID, best, sweep
from textspot_ray.images.decode import Decoded
from textspot_ray.spotting.bundle import load_bundle
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector

LEAST_THRESHOLD = 0.3  # what the detector's graph lets out
# Boxes that do not change the figures are not worth reading: of all points this near to the best
# (0.3 per cent, one word of 400) the one with the highest detection threshold is taken.
HMEAN_SLACK = 0.003


@dataclass(frozen=True, slots=True)
class OperatingFigures:
    """Figures at one pair of thresholds, in per cent."""

    detection_threshold: float
    text_threshold: float
    spotting_precision: float
    spotting_recall: float
    spotting_hmean: float
    end_to_end_hmean: float
    detection_precision: float
    detection_recall: float
    detection_hmean: float

    def as_dict(self) -> dict[str, float]:
        """For ``bundle.yaml``."""
        return asdict(self)


def read_photo(pages: PageDetector, reader: Recognizer, image: ByteArray) -> list[Predicted]:
    """Detect and read one photo [H, W, 3]; words without text are kept, with ``""``.

    Raises:
        UsageError: the detector failed.
    """
    height, width = image.shape[:2]
    page, features = pages.detect_pixels(Decoded(image, width, height, 1.0, 1.0, "pixels", 1, 1))
    if page.error is not None:
        raise UsageError(f"the detector failed: {page.error.message}")
    readings = reader.read(features).readings
    return [
        Predicted(found.polygon, read.text, read.confidence, found.confidence)
        for found, read in zip(page.detections, readings, strict=True)
    ]


def measure_bundle(
    folder: Path,
    precision: str,
    photos: Sequence[Photo],
    at: OperatingFigures | None = None,
    threads: int = 2,
) -> OperatingFigures:
    """Detect and read photos; choose thresholds by word-spotting hmean, or use those given.

    Args:
        folder: The bundle.
        precision: Which of its files to run.
        photos: With ground truth, in pixels of the files.
        at: Figures at these thresholds; None chooses them.
        threads: For inference.
    """
    lowest = load_bundle(str(folder)).spec.graph_threshold
    settings = SpotterSettings(
        str(folder), precision=precision, detection_threshold=lowest, threads=threads
    )
    pages, reader = PageDetector(settings), Recognizer(settings)
    truth: dict[str, tuple[GtWord, ...]] = {}
    read: dict[str, list[Predicted]] = {}
    for photo in photos:
        image = photo.pixels()
        to_gt = np.array(ICDAR2015_GT_SIZE) / np.array(image.shape[1::-1])
        truth[photo.path.stem] = tuple(
            GtWord(
                tuple(float(round(v)) for v in (w.quad * to_gt).ravel()),
                w.text if w.legible else DONT_CARE,
            )
            for w in photo.words
        )
        read[photo.path.stem] = [
            Predicted(
                tuple((np.reshape(p.polygon, (4, 2)) * to_gt).ravel().tolist()),
                p.text,
                p.text_confidence,
                p.detection_confidence,
            )
            for p in read_photo(pages, reader, image)
        ]
    return operating_figures(truth, read, at)


def operating_figures(
    truth: dict[str, tuple[GtWord, ...]],
    read: dict[str, list[Predicted]],
    at: OperatingFigures | None = None,
) -> OperatingFigures:
    """Figures by the organisers' rules; detection at its own best threshold."""
    with_text = {k: [p for p in v if p.text] for k, v in read.items()}
    measured = measure(truth, with_text)
    rules = Rules(ScoringTask.WORD_SPOTTING)
    if at is None:
        points = sweep(measured, rules, [n for n in DETECTION_GRID if n >= LEAST_THRESHOLD])
        enough = best(points).figures.hmean - HMEAN_SLACK
        good = [p for p in points if p.figures.hmean >= enough]
        point = max(good, key=lambda p: (p.detection_threshold, p.figures.hmean))
        low, lowest = point.detection_threshold, point.text_threshold
    else:
        low, lowest = at.detection_threshold, at.text_threshold

    def kept(p: Predicted) -> bool:
        return p.detection_confidence >= low and p.text_confidence >= lowest

    spotting = score(measured, rules, kept).figures
    end_to_end = score(measured, Rules(ScoringTask.END_TO_END), kept).figures
    boxes = best(sweep(measure(truth, read), Rules(ScoringTask.DETECTION), text=(0.0,))).figures
    return OperatingFigures(
        round(low, 3),
        round(lowest, 3),
        *_percent(spotting),
        _percent(end_to_end)[2],
        *_percent(boxes),
    )


def _percent(figures: Figures) -> tuple[float, float, float]:
    return (
        round(100 * figures.precision, 2),
        round(100 * figures.recall, 2),
        round(100 * figures.hmean, 2),
    )
