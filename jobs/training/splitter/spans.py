"""Which words a rectangle covers, and which of its columns lie between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.training.data.datasets import FloatArray, PhotoWord
from jobs.training.detector.crops import rect_of_quad
from jobs.training.splitter.network import COLUMNS, SPLITTER_PATCH

GAP_WEIGHT = 4.0  # of a column between two words, any other being 1
# A word stands in a rectangle's line if the line's middle runs through it, not too near to its top
# or bottom, and it is not far higher or lower than the rectangle.
_MIDDLE = (0.15, 0.85)
_HEIGHTS = (0.45, 1.8)
_LEAST_PX = 4.0  # of a rectangle's sides
_UNSURE = 0.06  # heights at a word's ends that count neither way


@dataclass(frozen=True, slots=True)
class Span:
    """A word along a rectangle's middle line.

    Attributes:
        start: 0 the rectangle's left end, 1 its right.
        end: The same.
        known: Whether its columns may be learnt from: it is legible, and in the rectangle's line.
    """

    start: float
    end: float
    known: bool


def spans_in(rect: FloatArray, words: Sequence[PhotoWord]) -> list[Span]:
    """Words that reach into a rectangle's line, from left to right.

    Args:
        rect: [4, 2] corners, clockwise from the text's top left.
        words: All words of the picture.
    """
    along, down = rect[1] - rect[0], rect[3] - rect[0]
    to_rect = np.linalg.inv(np.stack([along, down], 1).astype(np.float64))
    found = []
    for word in words:
        u, v = to_rect @ (word.quad - rect[0]).T
        left, right = (u[0] + u[3]) / 2, (u[1] + u[2]) / 2
        top, bottom = (v[0] + v[1]) / 2, (v[2] + v[3]) / 2
        if right > left and bottom > top:
            middle, height = (0.5 - top) / (bottom - top), bottom - top
            same_line = _MIDDLE[0] < middle < _MIDDLE[1] and _HEIGHTS[0] < height < _HEIGHTS[1]
        else:  # another reading direction
            same_line = False
        if not same_line and (v.max() < 0.2 or v.min() > 0.8):
            continue  # of another line
        if not same_line:
            left, right = u.min(), u.max()
        found.append(Span(float(left), float(right), same_line and word.legible))
    return sorted(found, key=lambda span: span.start + span.end)


def column_targets(rect: FloatArray, spans: Sequence[Span]) -> tuple[FloatArray, FloatArray]:
    """What the splitter should say of a rectangle's columns: [48] targets and their weights."""
    width = max(float(np.hypot(*(rect[1] - rect[0]))), 1.0)
    height = max(float(np.hypot(*(rect[3] - rect[0]))), 1.0)
    margin = min(SPLITTER_PATCH.margin_x * height / width, SPLITTER_PATCH.max_margin)
    middle = (np.arange(COLUMNS) + 0.5) / COLUMNS * (1 + 2 * margin) - margin
    column = (1 + 2 * margin) / COLUMNS
    unsure = max(_UNSURE * height / width, column / 2)
    wanted = np.ones(COLUMNS, np.float32)
    weight = np.ones(COLUMNS, np.float32)
    for span in spans:
        weight[(middle > span.start - unsure) & (middle < span.end + unsure)] = 0.0
    for span in spans:
        inside = (middle > span.start + unsure) & (middle < span.end - unsure)
        wanted[inside] = 0.0
        weight[inside] = 1.0 if span.known else 0.0
    for left, right in itertools.pairwise(spans):
        if not (left.known or right.known):
            continue
        low, high = min(left.end, right.start), max(left.end, right.start)
        if low < high and left.end > right.start:  # quads that overlap: somewhere in the middle
            around = (middle > low - unsure) & (middle < high + unsure)
            weight[around] = 0.0
        between = (middle > left.end) & (middle < right.start)
        between[np.argmin(np.abs(middle - (low + high) / 2))] = True
        between &= (middle > 0) & (middle < 1)
        wanted[between] = 1.0
        weight[between] = GAP_WEIGHT
    return wanted, weight


def joined(rng: np.random.Generator, words: Sequence[PhotoWord]) -> list[FloatArray]:
    """Quads [4, 2] around neighbours in a line: a word and the next one, or the next two, of which
    the last may be cut."""
    found = []
    for word in words:
        if not word.legible:
            continue
        first = word.quad
        spans = _followers(word, words)
        if not spans:
            continue
        last = spans[min(len(spans) - 1, int(rng.random() < 0.3))].quad
        share = 1.0 if rng.random() < 0.6 else float(rng.uniform(0.3, 1.0))
        right_top = last[0] + (last[1] - last[0]) * share
        right_bottom = last[3] + (last[2] - last[3]) * share
        share = 0.0 if rng.random() < 0.7 else float(rng.uniform(0.0, 0.6))
        left_top = first[0] + (first[1] - first[0]) * share
        left_bottom = first[3] + (first[2] - first[3]) * share
        quad = np.stack([left_top, right_top, right_bottom, left_bottom]).astype(np.float32)
        if min(rect_of_quad(quad).width, rect_of_quad(quad).height) > _LEAST_PX:
            found.append(quad)
    return found


def _followers(word: PhotoWord, words: Sequence[PhotoWord]) -> list[PhotoWord]:
    """Words right of a word in its line, the nearest first, as far as they follow closely."""
    quad = word.quad.astype(np.float64)
    along, down = quad[1] - quad[0], quad[3] - quad[0]
    matrix = np.stack([along, down], 1)
    if abs(np.linalg.det(matrix)) < 1e-3:
        return []
    to_word = np.linalg.inv(matrix)
    width, height = float(np.hypot(*along)), float(np.hypot(*down))
    reach = height / max(width, 1e-6)
    placed = []
    for other in words:
        if other is word:
            continue
        u, v = to_word @ (other.quad - quad[0]).T
        left, right = (u[0] + u[3]) / 2, (u[1] + u[2]) / 2
        middle, size = v.mean(), (v[2] + v[3] - v[0] - v[1]) / 2
        if right > left and abs(middle - 0.5) < 0.35 and 0.6 < size < 1.6:
            placed.append((float(left), float(right), other))
    placed.sort(key=lambda p: p[0])
    found, end = [], 1.0
    for left, right, other in placed:
        if left < end - 0.3 * reach:
            continue
        if left > end + 1.2 * reach:
            break
        found.append(other)
        end = right
    return found
