"""Lines and reading order of an image's words, by geometry alone.

Every word looks along its own direction for the next one; two words that choose each other are
neighbours, and chains of neighbours are lines. Lines are read from top to bottom, those at one
height from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from textspot_ray.query.phrase import Line

if TYPE_CHECKING:
    from textspot_ray.query.pages import PageWord

_MAX_TURN_DEG = 20.0  # between the directions of two words of one line
_SAME_ROW = 0.5  # overlap in height, as a share of the smaller line's


def text_lines(words: Sequence[PageWord], line: Line | None = None) -> list[list[PageWord]]:
    """Group words into lines in reading order; every word is in exactly one."""
    if not words:
        return []
    limits = line or Line()
    shapes = _Shapes(words)
    chosen = [shapes.next_of(n, limits) for n in range(len(words))]
    best_before: dict[int, tuple[float, int]] = {}
    for n, (gap, m) in enumerate(chosen):
        if m >= 0 and (gap, n) < best_before.get(m, (math.inf, -1)):
            best_before[m] = (gap, n)
    follows = {n: m for m, (_, n) in best_before.items()}
    chains = _chains(follows, len(words))
    return [[words[n] for n in chain] for chain in shapes.reading_order(chains)]


def _chains(follows: dict[int, int], count: int) -> list[list[int]]:
    """Chains of a partial one-to-one map; a ring is cut at its lowest index."""
    targets = set(follows.values())
    seen: set[int] = set()
    chains = []
    starts = [n for n in range(count) if n not in targets]
    for start in [*starts, *range(count)]:
        chain = []
        n: int | None = start
        while n is not None and n not in seen:
            seen.add(n)
            chain.append(n)
            n = follows.get(n)
        if chain:
            chains.append(chain)
    return chains


class _Shapes:
    """Centre, direction, length and height of every word, as arrays."""

    def __init__(self, words: Sequence[PageWord]) -> None:
        corners = np.array([word.polygon for word in words], dtype=np.float64).reshape(-1, 4, 2)
        self._centre = corners.mean(axis=1)
        top = corners[:, 1] - corners[:, 0]
        bottom = corners[:, 2] - corners[:, 3]
        left = corners[:, 3] - corners[:, 0]
        right = corners[:, 2] - corners[:, 1]
        self._length = (np.hypot(*top.T) + np.hypot(*bottom.T)) / 2
        self._height = np.maximum((np.hypot(*left.T) + np.hypot(*right.T)) / 2, 1.0)
        angles = np.radians([word.angle_deg for word in words])
        self._direction = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def next_of(self, n: int, limits: Line) -> tuple[float, int]:
        """Gap to and index of the word after ``n``, or index -1."""
        offset = self._centre - self._centre[n]
        along = offset @ self._direction[n]
        across = offset @ np.array([-self._direction[n, 1], self._direction[n, 0]])
        gap = along - (self._length + self._length[n]) / 2
        height = (self._height + self._height[n]) / 2
        ratio = np.maximum(self._height, self._height[n]) / np.minimum(
            self._height, self._height[n]
        )
        turn = self._direction @ self._direction[n]
        fits = (
            (along > 0)
            & (gap >= -0.75 * height)
            & (gap <= limits.max_gap * height)
            & (np.abs(across) <= along * math.tan(math.radians(limits.max_slope_deg)))
            & (ratio <= limits.max_height_ratio)
            & (turn >= math.cos(math.radians(_MAX_TURN_DEG)))
        )
        fits[n] = False
        candidates = np.flatnonzero(fits)
        if not len(candidates):
            return math.inf, -1
        # the nearest, but a word on the same level before one that is off it
        cost = gap[candidates] + 2 * np.abs(across[candidates])
        best = int(candidates[np.argmin(cost)])
        return float(gap[best]), best

    def reading_order(self, chains: list[list[int]]) -> list[list[int]]:
        """Lines from top to bottom; lines on one level from left to right."""
        levels = [min(float(self._centre[n, 1]) for n in chain) for chain in chains]
        lefts = [min(float(self._centre[n, 0]) for n in chain) for chain in chains]
        heights = [float(np.median(self._height[chain])) for chain in chains]
        rows: list[list[int]] = []
        for n in sorted(range(len(chains)), key=lambda n: (levels[n], lefts[n])):
            if rows:
                first = rows[-1][0]
                lower = min(levels[n] + heights[n] / 2, levels[first] + heights[first] / 2)
                upper = max(levels[n] - heights[n] / 2, levels[first] - heights[first] / 2)
                if lower - upper > _SAME_ROW * min(heights[n], heights[first]):
                    rows[-1].append(n)
                    continue
            rows.append([n])
        return [chains[n] for row in rows for n in sorted(row, key=lambda n: lefts[n])]


def bounds(words: Sequence[PageWord]) -> tuple[float, float, float, float]:
    """The upright box around words."""
    boxes: NDArray[np.float64] = np.array([word.box for word in words], dtype=np.float64)
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
