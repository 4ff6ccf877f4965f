"""Confidence intervals of a score: bootstrap over images, paired for two runs.

Images are drawn with replacement. For two runs both are scored on the same draw, so that the
difficulty of the images cancels out (Efron and Tibshirani, An Introduction to the Bootstrap, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.matching import Figures, Scores


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % percentile interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """B minus A of two runs over the same images.

    Attributes:
        difference: Of the hmeans, with its interval.
        share_not_better: Share of the draws in which B is not above A (a one-sided p-value).
        images: Number of images drawn from.
    """

    difference: Interval
    share_not_better: float
    images: int


def hmean_interval(scores: Scores, *, draws: int = 10_000) -> Interval:
    """Interval of one run's hmean, from so many draws of the images."""
    counts = _counts([image.figures for image in scores.images])
    values = _hmeans(_draw(len(counts), draws) @ counts)
    return _interval(scores.figures.hmean, values)


def compare_scores(a: Scores, b: Scores, *, draws: int = 10_000) -> Comparison:
    """Paired difference of two runs' hmeans, B minus A.

    Args:
        a: One run's scores.
        b: The other's, on the same images.
        draws: How often the images are drawn.

    Raises:
        UsageError: The runs were not scored on the same images.
    """
    of_a = {image.image: image.figures for image in a.images}
    of_b = {image.image: image.figures for image in b.images}
    if of_a.keys() != of_b.keys():
        raise UsageError("two runs can be compared only on the same ground truth images")
    keys = sorted(of_a)
    weights = _draw(len(keys), draws)
    first = _hmeans(weights @ _counts([of_a[key] for key in keys]))
    second = _hmeans(weights @ _counts([of_b[key] for key in keys]))
    difference = second - first
    estimate = b.figures.hmean - a.figures.hmean
    return Comparison(_interval(estimate, difference), float(np.mean(difference <= 0)), len(keys))


def _counts(figures: Sequence[Figures]) -> NDArray[np.float64]:
    rows = [(item.matched, item.wanted, item.predicted) for item in figures]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _draw(images: int, draws: int) -> NDArray[np.float64]:
    """How often each image is in each draw: draws x images."""
    if images == 0:
        raise UsageError("there are no images to draw from")
    generator = np.random.default_rng(0)  # deterministic
    return generator.multinomial(images, np.full(images, 1 / images), draws).astype(np.float64)


def _hmeans(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    # 2PR/(P+R) with P = matched/predicted and R = matched/wanted is 2 matched/(wanted+predicted)
    total = sums[:, 1] + sums[:, 2]
    return np.divide(2 * sums[:, 0], total, out=np.zeros_like(total), where=total > 0)


def _interval(estimate: float, values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(estimate, float(low), float(high))
