"""Figures of a bundle on photographs with ground truth, straight on the IRs.

This is the training loop's own short path (one photo, one word at a time); ``textspot evaluate``
measures tables that the pipeline wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov

from textspot_ray.insight.icdar import DONT_CARE, GtWord, Predicted
from textspot_ray.insight.matching import Figures, measure, score
from textspot_ray.insight.rules import Rules, Task
from textspot_ray.insight.thresholds import best, sweep
from textspot_ray.spotting.bundle import Bundle, BundleSpec
from textspot_ray.training.datasets import ICDAR2015_GT_SIZE, ByteArray, FloatArray, Photo

INPUT_SIZE = (1280, 768)
RING = 30 / 28  # the mask with its rim of zeros against the mask


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


def to_input(image: ByteArray) -> np.ndarray[Any, Any]:
    """Stretch an image [H, W, 3] to the detector's input [1, 3, 768, 1280] float32."""
    resized = np.asarray(cv2.resize(image, INPUT_SIZE, interpolation=cv2.INTER_LINEAR))
    return np.ascontiguousarray(resized.transpose(2, 0, 1)[None], np.float32)


class BundleRunner:
    """A bundle's three networks, compiled for this machine's CPU."""

    def __init__(self, folder: Path, spec: BundleSpec, precision: str, threads: int = 2) -> None:
        bundle = Bundle(folder, spec)
        bundle.verify(precision)
        files = bundle.model_files(precision)
        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self.detector, self.encoder, self.decoder = (
            core.compile_model(str(bundle.path(part.xml)), "CPU", settings)
            for part in (files.detector, files.encoder, files.decoder)
        )
        self.spec = spec

    def words(self, image: ByteArray, min_score: float = 0.0) -> list[Predicted]:
        """Detect and read; polygons are in pixels of the image."""
        found = self.detector(to_input(image))
        scale = np.array([image.shape[1] / INPUT_SIZE[0], image.shape[0] / INPUT_SIZE[1]])
        words = []
        for row in range(len(found["boxes"])):
            box = found["boxes"][row]
            if box[4] <= min_score:
                continue
            quad = mask_quad(found["masks"][row], box[:4])
            if quad is None:
                continue
            text, confidence = self.read(found["text_features"][row : row + 1])
            polygon = tuple(float(v) for v in (quad * scale).ravel())
            words.append(Predicted(polygon, text, confidence, float(box[4])))
        return words

    def read(self, features: np.ndarray[Any, Any]) -> tuple[str, float]:
        """Greedy decoding of one word's features [1, 64, 28, 28]."""
        encoded = self.encoder(features)["output"]
        positions = encoded.reshape(1, 256, 784).transpose(0, 2, 1).copy()
        hidden = np.zeros((1, 1, 256), np.float32)
        symbol, confidence, text = 0, 1.0, ""
        for _ in range(self.spec.max_steps):
            step = self.decoder(
                {
                    "encoder_outputs": positions,
                    "prev_symbol": np.array([symbol], np.int64),
                    "prev_hidden": hidden,
                }
            )
            logits = step["output"][0]
            hidden = np.array(step["hidden"])
            chances = np.exp(logits - logits.max())
            chances /= chances.sum()
            symbol = int(chances.argmax())
            confidence *= float(chances[symbol])
            if symbol == 1:
                break
            text += " " if symbol == 0 else self.spec.alphabet[symbol - 2]
        return text, confidence


def mask_quad(mask: FloatArray, box: FloatArray, side_px: int = 4) -> FloatArray | None:
    """Smallest rectangle [4, 2] around a mask [28, 28] pasted into its box, sub-pixel.

    The mask gets a rim of zeros, is enlarged `side_px` times and cut at 0.5; the contour of that,
    moved out to the pixels' edges, is scaled into the box.
    """
    padded = np.pad(np.asarray(mask, np.float32), 1)
    large = cv2.resize(padded, None, fx=side_px, fy=side_px, interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(
        (np.asarray(large) > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return None
    contour = max(contours, key=cv2.contourArea).reshape(-1, 2).astype(np.float32)
    half = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], np.float32) + 0.5
    edges = (contour[:, None] + half[None]).reshape(-1, 2)
    size = np.array([box[2] - box[0], box[3] - box[1]])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    points = (edges / (30 * side_px) - 0.5) * size * RING + centre
    return np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), np.float32)


def measure_bundle(
    folder: Path,
    spec: BundleSpec,
    precision: str,
    photos: Sequence[Photo],
    at: OperatingFigures | None = None,
) -> OperatingFigures:
    """Detect and read photos; choose thresholds by word-spotting hmean, or use those given."""
    runner = BundleRunner(folder, spec, precision)
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
            for p in runner.words(image)
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
    rules = Rules(Task.WORD_SPOTTING)
    if at is None:
        point = best(sweep(measured, rules))
        low, lowest = point.detection_threshold, point.text_threshold
    else:
        low, lowest = at.detection_threshold, at.text_threshold

    def kept(p: Predicted) -> bool:
        return p.detection_confidence >= low and p.text_confidence >= lowest

    spotting = score(measured, rules, kept).figures
    end_to_end = score(measured, Rules(Task.END_TO_END), kept).figures
    boxes = best(
        sweep(measure(truth, read), Rules(Task.DETECTION), text=(0.0,))
    ).figures
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
