"""Lines and reading order of an image's words, by geometry.

Every word looks along its own direction for the next one; two words that choose each other are
neighbours, and chains of neighbours are lines. Where the model has read whole lines (`Word.line`),
their words stay together. Lines are read from top to bottom, those at one height from left to
right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_MAX_TURN_DEG = 20.0  # between the directions of two words of one line
_SAME_ROW = 0.5  # overlap in height, as a share of the smaller line's
_BLOCK_PAIRS = 2**18  # of words looked at together: some 20 MB of arrays


class PlacedWord(Protocol):
    """What lines are made of: geometry in pixels of the upright image, as in `records.Word`."""

    @property
    def box(self) -> tuple[float, float, float, float]: ...
    @property
    def polygon(self) -> tuple[float, ...]: ...
    @property
    def angle_deg(self) -> float: ...


W = TypeVar("W", bound=PlacedWord)


@dataclass(frozen=True, slots=True)
class Line:
    """Limits for the next word of a line.

    Attributes:
        max_gap: Widest gap between two words, in heights of the line.
        max_slope_deg: Largest angle between the text's direction and the next word's centre.
        max_height_ratio: Of the two words' heights, the larger to the smaller.
    """

    max_gap: float = 1.5
    max_slope_deg: float = 15.0
    max_height_ratio: float = 2.0


def text_lines(words: Sequence[W], line: Line | None = None) -> list[list[W]]:
    """Group words into lines in reading order; every word is in exactly one.

    Words that bear a ``line`` of the model's are grouped by it, the others by geometry.
    """
    return [[words[n] for n in chain] for chain in _ordered_lines(words, line or Line())]


def line_indices(words: Sequence[PlacedWord], line: Line | None = None) -> list[int]:
    """For each word the place of its line in reading order, from 0."""
    indices = [0] * len(words)
    for place, chain in enumerate(_ordered_lines(words, line or Line())):
        for n in chain:
            indices[n] = place
    return indices


def _ordered_lines(words: Sequence[PlacedWord], limits: Line) -> list[list[int]]:
    if not words:
        return []
    shapes = _Shapes(words)
    given: dict[int, list[int]] = {}
    free: list[int] = []
    for n, word in enumerate(words):
        number = getattr(word, "line", None)
        if number is None:
            free.append(n)
        else:
            given.setdefault(number, []).append(n)
    chains = [shapes.along(chain) for chain in given.values()]
    return shapes.reading_order([*chains, *_linked(shapes, free, limits)])


def _linked(shapes: _Shapes, words: list[int], limits: Line) -> list[list[int]]:
    """Chains of words that choose each other."""
    best_before: dict[int, tuple[float, int]] = {}
    for n, (gap, m) in zip(words, shapes.next_of(words, limits), strict=True):
        if m >= 0 and (gap, n) < best_before.get(m, (math.inf, -1)):
            best_before[m] = (gap, n)
    return _chains({n: m for m, (_, n) in best_before.items()}, words)


def _chains(follows: dict[int, int], words: Sequence[int]) -> list[list[int]]:
    """Chains of a partial one-to-one map; a ring is cut at its lowest index."""
    targets = set(follows.values())
    seen: set[int] = set()
    chains = []
    starts = [n for n in words if n not in targets]
    for start in [*starts, *words]:
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

    def __init__(self, words: Sequence[PlacedWord]) -> None:
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

    def next_of(self, words: Sequence[int], limits: Line) -> list[tuple[float, int]]:
        """For each of some words the gap to and the number of the one after it, or number -1."""
        among = np.array(words, dtype=np.int64)
        rows = max(1, _BLOCK_PAIRS // max(len(among), 1))
        found: list[tuple[float, int]] = []
        for start in range(0, len(among), rows):
            found += self._next_of(among[start : start + rows], among, limits)
        return found

    def _next_of(
        self, some: NDArray[np.int64], among: NDArray[np.int64], limits: Line
    ) -> list[tuple[float, int]]:
        """As `next_of`, for a block of words (rows) and all candidates (columns)."""
        direction = self._direction[some]
        offset = self._centre[among][None] - self._centre[some][:, None]
        ux, uy = direction[:, :1], direction[:, 1:]
        along = offset[..., 0] * ux + offset[..., 1] * uy
        across = np.abs(offset[..., 1] * ux - offset[..., 0] * uy)
        mine, theirs = self._height[some][:, None], self._height[among][None]
        gap = along - (self._length[among][None] + self._length[some][:, None]) / 2
        height = (theirs + mine) / 2
        fits = (
            (along > 0)
            & (gap >= -0.75 * height)
            & (gap <= limits.max_gap * height)
            & (across <= along * math.tan(math.radians(limits.max_slope_deg)))
            & (np.maximum(theirs, mine) <= limits.max_height_ratio * np.minimum(theirs, mine))
            & (direction @ self._direction[among].T >= math.cos(math.radians(_MAX_TURN_DEG)))
            & (some[:, None] != among[None])
        )
        # the nearest, but a word on the same level before one that is off it
        cost = np.where(fits, gap + 2 * across, np.inf)
        best = np.argmin(cost, axis=1)
        return [
            (float(gap[row, k]), int(among[k])) if fits[row, k] else (math.inf, -1)
            for row, k in enumerate(best)
        ]

    def along(self, words: list[int]) -> list[int]:
        """The words of one line in the order in which its text runs."""
        if len(words) < 2:
            return words
        direction = self._direction[words].sum(axis=0)
        places = self._centre[words] @ direction
        return [words[k] for k in np.argsort(places, kind="stable")]

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


def bounds(words: Sequence[PlacedWord]) -> tuple[float, float, float, float]:
    """The upright box around words."""
    boxes: NDArray[np.float64] = np.array([word.box for word in words], dtype=np.float64)
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
