"""Figures of a bundle on photographs with ground truth, read by the spotter that users run.

Everything the detector's graph lets out is read once; thresholds are then chosen by sweeping.
``textspot evaluate`` measures tables that the pipeline wrote, at one setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.training.bags import Found, score_bags
from jobs.training.calibration import Judged, judged, reliability
from jobs.training.data.datasets import ICDAR2015_GT_SIZE, IGNORED_TEXT, FloatArray, Photo
from jobs.training.render.words import target_of
from jobs.training.thresholds import DETECTION_GRID, best, sweep
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.ground_truth import DONT_CARE, GtWord, Predicted
from textspot_ray.evaluation.matching import Figures, measure, score
from textspot_ray.evaluation.rules import Rules, ScoringTask
from textspot_ray.images.decode import Decoded
from textspot_ray.records import Reading
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector

LEAST_THRESHOLD = 0.3  # what the detector's graph lets out
# Boxes that do not change the figures are not worth reading: of all points this near to the best
# (0.3 per cent, one word of 400) the one with the highest detection threshold is taken, and of
# those the one that keeps most readings: plates and codes are read with less confidence than words.
HMEAN_SLACK = 0.003
CONFIDENCES = tuple(round(0.05 * i, 2) for i in range(20))  # that the reliability plot shows


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
    pages_f: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For ``bundle.yaml``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, what the detector finds in it, and what its words should say.

    Attributes:
        picture: With its words, in pixels of the file.
        quads: [N, 4, 2] in pixels of the file.
        scores: [N] of the detector.
        features: [N, 64, 28, 28], half precision: they are pixels.
        is_page: A document; its words are counted as a bag.
    """

    picture: Photo
    quads: FloatArray
    scores: FloatArray
    features: NDArray[np.float16]
    is_page: bool = False


def detect_all(
    folder: Path, precision: str, photos: Sequence[Photo], pages: Sequence[Photo], threads: int = 2
) -> list[Seen]:
    """Run a bundle's detector over pictures, at the lowest threshold that its graph lets out.

    Raises:
        UsageError: the detector failed.
    """
    lowest = load_bundle(str(folder)).spec.graph_threshold
    settings = SpotterSettings(
        str(folder), precision=precision, detection_threshold=lowest, threads=threads
    )
    detector = PageDetector(settings)
    seen = []
    for picture in (*photos, *pages):
        image = picture.pixels()
        height, width = image.shape[:2]
        found, features = detector.detect_pixels(
            Decoded(image, width, height, 1.0, 1.0, "pixels", 1, 1)
        )
        if found.error is not None:
            raise UsageError(f"the detector failed: {found.error.message}")
        polygons = [np.reshape(d.polygon, (4, 2)) for d in found.detections]
        seen.append(
            Seen(
                picture,
                np.array(polygons, np.float32).reshape(-1, 4, 2),
                np.array([d.confidence for d in found.detections], np.float32),
                features.astype(np.float16),
                is_page=len(seen) >= len(photos),
            )
        )
    return seen


def read_all(
    folder: Path, precision: str, seen: Sequence[Seen], threads: int = 2, *, dictionary: bool = True
) -> list[tuple[Reading, ...]]:
    """Run a bundle's reader over what `detect_all` found."""
    settings = SpotterSettings(
        str(folder), precision=precision, threads=threads, dictionary=dictionary
    )
    reader = Recognizer(settings)
    return [reader.read(s.features.astype(np.float32)).readings for s in seen]


def judge_all(
    seen: Sequence[Seen], read: Sequence[Sequence[Reading]], least_score: float = 0.5
) -> list[Judged]:
    """Right and wrong readings, photos as a whole counting as much as pages."""
    found: dict[bool, list[Judged]] = {False: [], True: []}
    for s, readings in zip(seen, read, strict=True):
        sure = s.scores >= least_score
        kept = [r for r, ok in zip(readings, sure, strict=True) if ok]
        found[s.is_page] += judged(s.quads[sure], kept, s.picture.words)
    return [replace(j, weight=1 / len(group)) for group in found.values() for j in group]


def reliability_of(
    seen: Sequence[Seen], read: Sequence[Sequence[Reading]]
) -> dict[str, list[tuple[float, float, int]]]:
    """Rows of `reliability` for photos and for pages, as far as there are any."""
    curves = {}
    for name, pages in (("photos", False), ("pages", True)):
        own = [(s, r) for s, r in zip(seen, read, strict=True) if s.is_page == pages]
        words = judge_all([s for s, _ in own], [r for _, r in own])
        if words:
            sure = [word.confidence for word in words]
            curves[name] = reliability(sure, [word.right for word in words], CONFIDENCES)
    return curves


def measure_read(
    seen: Sequence[Seen],
    read: Sequence[Sequence[Reading]],
    at: OperatingFigures | None = None,
) -> OperatingFigures:
    """Figures of readings; thresholds are chosen by photos and pages, or those given are used."""
    truth: dict[str, tuple[GtWord, ...]] = {}
    found: dict[str, list[Predicted]] = {}
    bags: dict[str, list[str]] = {}
    words: dict[str, list[Predicted]] = {}
    for s, readings in zip(seen, read, strict=True):
        name = s.picture.path.stem
        if s.is_page:
            bags[name] = [w.text for w in s.picture.words if w.text != IGNORED_TEXT]
            words[name] = _predicted(s, readings, np.ones(2))
            continue
        image = s.picture.pixels()
        to_gt = np.array(ICDAR2015_GT_SIZE) / np.array(image.shape[1::-1])
        truth[name] = tuple(
            GtWord(
                tuple(float(round(v)) for v in (w.quad * to_gt).ravel()),
                w.text if w.legible else DONT_CARE,
            )
            for w in s.picture.words
        )
        found[name] = _predicted(s, readings, to_gt)

    def of_pages(low: float, lowest: float) -> float:
        kept = {
            name: [
                Found(target_of(p.text), p.text_confidence, (0, 0, 0, 0))
                for p in page
                if p.detection_confidence >= low
            ]
            for name, page in words.items()
        }
        return score_bags(kept, bags, lowest).f

    return operating_figures(truth, found, at, of_pages if bags else None)


def _predicted(
    s: Seen, readings: Sequence[Reading], scale: NDArray[np.floating]
) -> list[Predicted]:
    return [
        Predicted(tuple((quad * scale).ravel().tolist()), r.text, r.confidence, float(score))
        for quad, score, r in zip(s.quads, s.scores, readings, strict=True)
    ]


def operating_figures(
    truth: dict[str, tuple[GtWord, ...]],
    read: dict[str, list[Predicted]],
    at: OperatingFigures | None = None,
    of_pages: Callable[[float, float], float] | None = None,
) -> OperatingFigures:
    """Figures by the organisers' rules; detection at its own best threshold.

    Args:
        truth: Ground truth of the photos.
        read: Everything found in them.
        at: Figures at these thresholds; None chooses them.
        of_pages: F of documents at a detection and a text threshold, from 0 to 1; thresholds are
            then chosen by its mean with the photos' word spotting.
    """
    with_text = {k: [p for p in v if p.text] for k, v in read.items()}
    measured = measure(truth, with_text)
    rules = Rules(ScoringTask.WORD_SPOTTING)
    if at is None:
        points = sweep(measured, rules, [n for n in DETECTION_GRID if n >= LEAST_THRESHOLD])
        worth = {
            p: (p.figures.hmean + of_pages(p.detection_threshold, p.text_threshold)) / 2
            if of_pages
            else p.figures.hmean
            for p in points
        }
        enough = max(worth.values()) - HMEAN_SLACK
        good = [p for p in points if worth[p] >= enough]
        point = max(good, key=lambda p: (p.detection_threshold, -p.text_threshold))
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
        round(100 * of_pages(low, lowest), 2) if of_pages else 0.0,
    )


def _percent(figures: Figures) -> tuple[float, float, float]:
    return (
        round(100 * figures.precision, 2),
        round(100 * figures.recall, 2),
        round(100 * figures.hmean, 2),
    )
