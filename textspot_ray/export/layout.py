"""An image prepared for export: its name, its words in lines, and clipped boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from textspot_ray.query.pages import Page, PageWord
from textspot_ray.reading_order import bounds, text_lines

Box = tuple[float, float, float, float]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class TextLine:
    """Words of one text line.

    Attributes:
        words: In reading order.
        box: Upright, around all words, in pixels.
        baseline: From x, y to x, y: the bottom of the text, fitted to the words' lower corners.
        angle_deg: Of the baseline, clockwise from the x axis, in (-180, 180].
    """

    words: tuple[PageWord, ...]
    box: Box
    baseline: tuple[float, float, float, float]
    angle_deg: float

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class PageLayout:
    """One image, prepared for a format.

    Attributes:
        page: The row of ``images`` with its words.
        name: Of the picture, as other tools find it.
    """

    page: Page
    name: str

    @property
    def width(self) -> int:
        """In pixels of the upright image."""
        return self.page.width or 0

    @property
    def height(self) -> int:
        """In pixels of the upright image."""
        return self.page.height or 0

    @cached_property
    def lines(self) -> list[TextLine]:
        """Lines in reading order: the table's, or found from geometry where it has none."""
        return [_line(words) for words in page_lines(self.page)]

    def clipped(self, box: Box) -> tuple[int, int, int, int]:
        """A box in whole pixels inside the image, at least one pixel wide and high."""
        x0, y0, x1, y1 = (round(value) for value in box)
        x0, x1 = _inside(x0, x1, self.width)
        y0, y1 = _inside(y0, y1, self.height)
        return x0, y0, x1, y1

    def polygon(self, word: PageWord) -> Points:
        """The word's corners, clipped to the image."""
        corners = list(zip(word.polygon[0::2], word.polygon[1::2], strict=True))
        return clip_polygon(corners, self.width, self.height)

    def baseline(self, line: TextLine) -> Points:
        """Both ends of a line's baseline, moved to the border where they lie outside."""
        x0, y0, x1, y1 = line.baseline
        return [
            (min(max(x, 0.0), self.width), min(max(y, 0.0), self.height))
            for x, y in ((x0, y0), (x1, y1))
        ]


def page_lines(page: Page) -> list[list[PageWord]]:
    """The words of an image in lines, in reading order.

    Uses ``line_index`` of the table where every word has one.
    """
    if not page.words:
        return []
    if any(word.line_index is None for word in page.words):
        return text_lines(page.words)
    found: dict[int, list[PageWord]] = {}
    for word in page.words:
        found.setdefault(word.line_index or 0, []).append(word)
    return [_along(found[index]) for index in sorted(found)]


def clip_polygon(corners: Sequence[tuple[float, float]], width: float, height: float) -> Points:
    """The part of a convex polygon that lies inside 0, 0, width, height (Sutherland-Hodgman).

    Sutherland and Hodgman, Reentrant polygon clipping, Communications of the ACM 17 (1974).

    Args:
        corners: x, y of each, in order.
        width: Of the image, pixels.
        height: Of the image, pixels.
    """
    points = [(float(x), float(y)) for x, y in corners]
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: Points = []
        for n, here in enumerate(points):
            before = points[n - 1]
            here_in = sign * (here[axis] - limit) >= 0
            before_in = sign * (before[axis] - limit) >= 0
            if here_in != before_in:
                share = (limit - before[axis]) / (here[axis] - before[axis])
                other = before[1 - axis] + share * (here[1 - axis] - before[1 - axis])
                kept.append((limit, other) if axis == 0 else (other, limit))
            if here_in:
                kept.append(here)
        points = kept
    if len(points) >= 3:
        return points
    # outside, or a line on the border: the nearest points inside
    return [(min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in corners]


def _inside(low: int, high: int, size: int) -> tuple[int, int]:
    if size < 1:
        return max(low, 0), max(high, low, 0)
    low = min(max(low, 0), size - 1)
    return low, max(min(high, size), low + 1)


def _along(words: list[PageWord]) -> list[PageWord]:
    """Words of one line in the order in which its text runs."""
    if len(words) < 2:
        return words
    x = sum(math.cos(math.radians(word.angle_deg)) for word in words)
    y = sum(math.sin(math.radians(word.angle_deg)) for word in words)

    def place(word: PageWord) -> float:
        return x * sum(word.polygon[0::2]) + y * sum(word.polygon[1::2])

    return sorted(words, key=place)


def _line(words: Sequence[PageWord]) -> TextLine:
    # corners 3 and 2 are the text's lower left and lower right
    start_x, start_y = words[0].polygon[6:8]
    end_x, end_y = words[-1].polygon[4:6]
    angle = math.degrees(math.atan2(end_y - start_y, end_x - start_x))
    if (start_x, start_y) == (end_x, end_y):
        angle = words[0].angle_deg
    return TextLine(tuple(words), bounds(words), (start_x, start_y, end_x, end_y), angle + 0.0)
