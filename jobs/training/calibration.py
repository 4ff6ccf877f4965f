"""Confidences that mean something: one temperature for the reader (Guo et al. 2017).

The decoder's logits are divided by it before the softmax, in the exported graph, so that readings
stay what they are and a word's confidence comes near to the share of such words that are right. A
box that holds no word counts as wrong: that is what a confidence of the table is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.training.data.datasets import FloatArray, PhotoWord
from jobs.training.detector.scores import quad_iou
from jobs.training.render.words import target_of
from textspot_ray.records import Reading

TEMPERATURES = tuple(np.round(np.arange(0.6, 4.01, 0.05), 2).tolist())
SAME_IOU = 0.4  # documents' boxes are drawn tighter or looser than ours


@dataclass(frozen=True, slots=True)
class Judged:
    """A reading that ground truth tells right from wrong.

    Attributes:
        steps: The decoder's confidences, a step each, that of the end included.
        right: Whether a word that says so is there.
        confidence: Of the reading as a table has it.
        weight: How much it counts.
    """

    steps: tuple[float, ...]
    right: bool
    confidence: float
    weight: float = 1.0


def judged(
    quads: Sequence[FloatArray],
    readings: Sequence[Reading],
    truth: Sequence[PhotoWord],
    weight: float = 1.0,
) -> list[Judged]:
    """Tell right readings of a picture from wrong ones; those over ignored regions are left out.

    Args:
        quads: [4, 2] of each reading.
        readings: What was read there; those without text are left out.
        truth: All words and ignored regions.
        weight: Of each.
    """
    boxes = np.array([(*w.quad.min(0), *w.quad.max(0)) for w in truth], np.float32).reshape(-1, 4)
    found = []
    for quad, reading in zip(quads, readings, strict=True):
        if not reading.text:
            continue
        low, high = quad.min(0), quad.max(0)
        near = np.flatnonzero((boxes[:, :2] < high).all(1) & (boxes[:, 2:] > low).all(1))
        over = [truth[i] for i in near if _overlap(truth[i], quad) > SAME_IOU]
        if any(not word.legible for word in over):
            continue
        right = any(target_of(word.text) == reading.text for word in over)
        found.append(Judged(_steps(reading), right, reading.confidence, weight))
    return found


def _overlap(word: PhotoWord, quad: FloatArray) -> float:
    """IoU; of an ignored region the share of the quad that lies in it."""
    if word.legible:
        return quad_iou(word.quad, quad)
    import cv2

    inside, _ = cv2.intersectConvexConvex(cv2.convexHull(word.quad), cv2.convexHull(quad))
    return float(inside) / max(float(cv2.contourArea(quad)), 1e-6)


def _steps(reading: Reading) -> tuple[float, ...]:
    """Confidences of all steps; that of the end is what the word's has besides its symbols'."""
    symbols = float(np.prod(reading.char_confidences)) if reading.char_confidences else 1.0
    end = min(1.0, reading.confidence / max(symbols, 1e-9))
    return (*reading.char_confidences, end)


def tempered(steps: Sequence[float], temperature: float) -> float:
    """A word's confidence at a temperature, as if each step had one rival."""
    p = np.clip(np.asarray(steps, np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(p / (1 - p)) / temperature
    return float(np.prod(1 / (1 + np.exp(-odds))))


def best_temperature(readings: Sequence[Judged]) -> float:
    """The temperature of the least log loss; 1 where there is nothing to go by."""
    if len({r.right for r in readings}) < 2:
        return 1.0
    right = np.array([r.right for r in readings])
    weights = np.array([r.weight for r in readings])

    def loss(temperature: float) -> float:
        sure = np.array([tempered(r.steps, temperature) for r in readings])
        sure = np.clip(sure, 1e-6, 1 - 1e-6)
        return float((-np.log(np.where(right, sure, 1 - sure)) * weights).sum())

    return min(TEMPERATURES, key=loss)


def reliability(
    confidences: Sequence[float], right: Sequence[bool], least: Sequence[float]
) -> list[tuple[float, float, int]]:
    """For each confidence: the share of words at least so sure that are right, and how many.

    Args:
        confidences: Of the words.
        right: Whether each is right.
        least: The confidences to look at.
    """
    sure: NDArray[np.float64] = np.asarray(confidences, np.float64)
    hits = np.asarray(right, np.bool_)
    rows = []
    for c in least:
        kept = sure >= c
        rows.append((c, float(hits[kept].mean()) if kept.any() else float("nan"), int(kept.sum())))
    return rows


def draw_reliability(path: Path, curves: Mapping[str, Sequence[tuple[float, float, int]]]) -> None:
    """Plot what `reliability` gives, a line a kind of picture, beside the promised share.

    Args:
        path: The PNG.
        curves: Rows by the kind's name.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    axes.plot([0, 1], [0, 1], "k--", linewidth=1, label="promised")
    for name, rows in curves.items():
        seen = [(c, share) for c, share, n in rows if n]
        axes.plot([c for c, _ in seen], [share for _, share in seen], ".-", label=name)
    axes.set(
        xlabel="confidence of at least", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
