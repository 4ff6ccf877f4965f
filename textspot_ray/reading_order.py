"""Lines and reading order of an image's words, by geometry.

Every word looks along its own direction for the next one; two words that choose each other are
neighbours, and chains of neighbours are lines. Where the model has read whole lines (`Word.line`),
their words stay together. Lines are read from top to bottom, those at one height from left to
right, and columns of text one after the other.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_MAX_TURN_DEG = 20.0  # between the directions of two words of one line
_SAME_ROW = 0.5  # overlap in height, as a share of the smaller line's
_MOSTLY = 0.6  # share of the text that decides how an image is turned
_TOUCH = 0.2  # of a letter's height that lines may overlap and still be above one another
_GUTTER = 1.0  # least width of a strip between columns, in heights of its lines
_BETWEEN = 0.3  # how far below a line one of the next column may stand, in heights
_KEEPS = 0.5  # share of a strip's width that the next band must leave
_COLUMN_LINES = 2  # fewer levels of text are no column
_LEVEL = 0.25  # how far apart two cells of a row may be, in heights
_ROWS = 0.7  # share of a side's lines that have a cell beside them in a table
_CELL_WORDS = 1.5  # words of a cell, on average
_NARROW = 0.6  # of the other side's width, for cells of more words
_CELLS = 1.5  # of a row of one side, on average, and no prose
_PROSE_WORDS = 3.0  # of a line, on average, in columns of running text
_MAX_CUTS = 40
_BLOCK_PAIRS = 2**18  # of words looked at together: some 20 MB of arrays


class PlacedWord(Protocol):
    """A word's geometry in pixels of the upright image, as in `records.Word`."""

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


def text_lines(words: Sequence[W]) -> list[list[W]]:
    """Group words into lines in reading order; every word is in exactly one.

    Words with a ``line`` number from the model are grouped by it, the others by geometry.
    """
    return [[words[n] for n in chain] for chain in _ordered_lines(words)]


def line_indices(words: Sequence[PlacedWord]) -> list[int]:
    """For each word the index of its line in reading order, from 0."""
    indices = [0] * len(words)
    for place, chain in enumerate(_ordered_lines(words)):
        for n in chain:
            indices[n] = place
    return indices


def _ordered_lines(words: Sequence[PlacedWord]) -> list[list[int]]:
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
    return shapes.reading_order([*chains, *_linked(shapes, free, Line())])


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
        """Lines from top to bottom, those on one level from left to right, column by column.

        If most text runs downwards or upwards, the image is treated as if it were rotated.
        """
        turns = self._quarter_turns(chains)
        boxes = [self._line_box(chain, turns) for chain in chains]
        heights = [median(self._height[chain].tolist()) for chain in chains]
        counts = [len(chain) for chain in chains]
        return [chains[n] for n in _Columns(boxes, heights, counts).order(range(len(chains)))]

    def _quarter_turns(self, chains: list[list[int]]) -> int:
        """Quarter turns, clockwise, from upright to how most of the text stands."""
        weights = [0.0] * 4
        for chain in chains:
            x, y = self._direction[chain].sum(axis=0)
            weights[round(math.degrees(math.atan2(y, x)) / 90) % 4] += float(
                self._length[chain].sum()
            )
        most = max(range(4), key=lambda n: (weights[n], -n))
        return most if weights[most] > _MOSTLY * sum(weights) else 0

    def _line_box(self, chain: list[int], turns: int) -> tuple[float, float, float, float]:
        """A line's upright box, of a size that its words' lengths and heights give."""
        c, s = ((1, 0), (0, -1), (-1, 0), (0, 1))[turns]  # turned back
        x = self._centre[chain, 0] * c - self._centre[chain, 1] * s
        y = self._centre[chain, 0] * s + self._centre[chain, 1] * c
        ux = np.abs(self._direction[chain, 0] * c - self._direction[chain, 1] * s)
        uy = np.abs(self._direction[chain, 0] * s + self._direction[chain, 1] * c)
        half_w = (self._length[chain] * ux + self._height[chain] * uy) / 2
        half_h = (self._length[chain] * uy + self._height[chain] * ux) / 2
        return (
            float((x - half_w).min()),
            float((y - half_h).min()),
            float((x + half_w).max()),
            float((y + half_h).max()),
        )


class _Columns:
    """A recursive XY-cut that keeps the rows of tables together.

    Nagy and Seth, Hierarchical representation of optically scanned documents (1984), cut a page at
    its white strips, across and down by turns. Here lines are put into bands (what overlaps in
    height); following bands that share a white strip with text on both of its sides are columns,
    each read on its own, unless the two sides are the cells of a table.

    Args:
        boxes: x_min, y_min, x_max, y_max of each line, the text upright.
        heights: Of the lines' letters.
        counts: Of the lines' words.
    """

    def __init__(
        self,
        boxes: list[tuple[float, float, float, float]],
        heights: list[float],
        counts: list[int],
    ) -> None:
        self._boxes = boxes
        self._heights = heights
        self._counts = counts

    def order(self, lines: Iterable[int], depth: int = 0) -> list[int]:
        """Some lines in reading order."""
        bands = self._bands(list(lines))
        found: list[int] = []
        at = 0
        while at < len(bands):
            end, gutter = self._shared(bands, at) if depth < _MAX_CUTS else (at + 1, None)
            group = [n for band in bands[at:end] for n in band]
            sides = None if gutter is None else self._sides(group, gutter)
            if sides is None or self._is_table(*sides):
                for band in bands[at:end]:
                    found += self._rows(band)
            else:
                for side in sides:
                    found += self.order(side, depth + 1)
            at = end
        return found

    def _bands(self, lines: list[int]) -> list[list[int]]:
        """Lines that overlap in height, from top to bottom."""
        bands: list[list[int]] = []
        floor = -math.inf
        for n in sorted(lines, key=lambda n: (self._boxes[n][1], self._boxes[n][0])):
            top, bottom = self._boxes[n][1], self._boxes[n][3]
            slack = _TOUCH * min(bottom - top, self._heights[n])
            if bands and top + slack < floor:
                bands[-1].append(n)
            else:
                bands.append([n])
            floor = max(floor, bottom - slack)
        return bands

    def _shared(self, bands: list[list[int]], start: int) -> tuple[int, tuple[float, float] | None]:
        """Where the bands end that share a white strip with the first, and the strip."""
        gutter = self._gutter(bands[start])
        if gutter is None and start + 1 < len(bands):  # columns whose lines stand between lines
            first, second = bands[start], bands[start + 1]
            apart = min(self._boxes[n][1] for n in second) - max(self._boxes[n][3] for n in first)
            if apart < _BETWEEN * median(self._heights[n] for n in first):
                gutter = self._gutter([*first, *second])
        if gutter is None:
            return start + 1, None
        end = start + 1
        while end < len(bands):
            strip = self._narrowed(bands[end], gutter)
            if strip is None:
                break
            gutter = strip
            end += 1
        return end, gutter

    def _gutter(self, band: list[int]) -> tuple[float, float] | None:
        """The widest white strip of a band."""
        widest = None
        reach = -math.inf
        for n in sorted(band, key=lambda n: self._boxes[n][0]):
            left = self._boxes[n][0]
            if left > reach > -math.inf and (
                widest is None or left - reach > widest[1] - widest[0]
            ):
                widest = (reach, left)
            reach = max(reach, self._boxes[n][2])
        if widest is None or widest[1] - widest[0] < self._least_gutter(band):
            return None
        return widest

    def _narrowed(self, band: list[int], gutter: tuple[float, float]) -> tuple[float, float] | None:
        """What a band leaves of a strip; None where it reaches across, or leaves little of it."""
        low, high = gutter
        middle = (low + high) / 2
        for n in band:
            left, right = self._boxes[n][0], self._boxes[n][2]
            if left < middle < right:
                return None
            low = max(low, right) if right <= middle else low
            high = min(high, left) if left >= middle else high
        kept = high - low
        if kept < max(self._least_gutter(band), _KEEPS * (gutter[1] - gutter[0])):
            return None
        return low, high

    def _least_gutter(self, band: list[int]) -> float:
        return _GUTTER * median(self._heights[n] for n in band)

    def _sides(
        self, group: list[int], gutter: tuple[float, float]
    ) -> tuple[list[int], list[int]] | None:
        """Left and right of a strip; None where either is too little for a column."""
        middle = sum(gutter) / 2
        left = [n for n in group if self._boxes[n][2] <= middle]
        right = [n for n in group if self._boxes[n][0] >= middle]
        if min(len(self._bands(left)), len(self._bands(right))) < _COLUMN_LINES:
            return None
        return left, right

    def _is_table(self, left: list[int], right: list[int]) -> bool:
        """Whether the sides are cells of the same rows, as names and prices are.

        Most rows of the side that has fewer stand on the level of something on the other; and its
        cells are single words, or one side is narrower by far, or has several cells in a row.
        """
        rows, others = sorted(((self._bands(side), side) for side in (left, right)), key=_levels)
        few, many = [n for band in rows[0] for n in band], others[1]
        levels = sorted((self._level(m), self._heights[m]) for m in many)
        beside = sum(any(self._has_cell(n, levels) for n in band) for band in rows[0])
        if beside < _ROWS * len(rows[0]):
            return False
        narrow, wide = sorted(
            median(self._boxes[n][2] - self._boxes[n][0] for n in side) for side in (few, many)
        )
        if narrow <= _NARROW * wide or self._words_a_line(few) <= _CELL_WORDS:
            return True
        return any(
            len(side) >= _CELLS * len(bands) and self._words_a_line(side) < _PROSE_WORDS
            for bands, side in (rows, others)
        )

    def _level(self, n: int) -> float:
        return (self._boxes[n][1] + self._boxes[n][3]) / 2

    def _has_cell(self, n: int, levels: list[tuple[float, float]]) -> bool:
        """Whether one of the other side's lines, by level and height, is on line ``n``'s level."""
        level, near = self._level(n), _LEVEL * self._heights[n]
        first = bisect_left(levels, (level - near,))
        for other, height in itertools.islice(levels, first, None):
            if other > level + near:
                return False
            if abs(other - level) <= _LEVEL * height:
                return True
        return False

    def _words_a_line(self, side: list[int]) -> float:
        return sum(self._counts[n] for n in side) / len(side)

    def _rows(self, band: list[int]) -> list[int]:
        """The lines of a band: from top to bottom, those on one level from left to right."""
        rows: list[list[int]] = []
        for n in sorted(band, key=lambda n: (self._level(n), self._boxes[n][0])):
            if rows:
                first = rows[-1][0]
                apart = abs(self._level(n) - self._level(first))
                least, other = sorted((self._heights[n], self._heights[first]))
                if (least + other) / 2 - apart > _SAME_ROW * least:
                    rows[-1].append(n)
                    continue
            rows.append([n])
        return [n for row in rows for n in sorted(row, key=lambda n: self._boxes[n][0])]


def _levels(side: tuple[list[list[int]], list[int]]) -> int:
    return len(side[0])


def bounds(words: Sequence[PlacedWord]) -> tuple[float, float, float, float]:
    """The upright box around words."""
    boxes: NDArray[np.float64] = np.array([word.box for word in words], dtype=np.float64)
    x0, y0 = boxes[:, :2].min(axis=0)
    x1, y1 = boxes[:, 2:].max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
