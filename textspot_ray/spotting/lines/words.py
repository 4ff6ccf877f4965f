"""A line's words: its text split at spaces, each word with its position along the line.

A CTC recogniser outputs each character near the character's centre. A word begins half way between
its first character and the one before, but at most `OUTER_EDGE` of a character's width before the
first one's centre. The detector's rectangle is grown for reading, so words are reported with less
height. Measured on street photos: whole lines score .282, lines cut by the number of characters
.564, by positions .610, with the limit .616, with three quarters of the height .67.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textspot_ray.records import Detection, Reading, Word
from textspot_ray.spotting.geometry import Box, angle_deg

OUTER_EDGE = 0.65  # of a character's width, from the outer characters' centres
_USUAL_CHARACTER = 0.5  # width of a lone character by the line's height
_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})


@dataclass(frozen=True, slots=True)
class Span:
    """A word of a line.

    Attributes:
        characters: Indexes of the line's characters, in the order they are read.
        start: Share of the line's width.
        end: Share of the line's width.
    """

    characters: tuple[int, ...]
    start: float
    end: float


def words_of_line(
    number: int, detection: Detection, reading: Reading, height: float = 1.0
) -> tuple[Word, ...]:
    """The words of a line, in the order they are read.

    Args:
        number: The line's, within its page.
        detection: The line's place; its polygon starts where the strip started.
        reading: The line's text from left to right, with the characters' places.
        height: Of the reported words, as a share of the detected line's.
    """
    corners = detection.polygon
    if reading.turned:
        corners = corners[4:] + corners[:4]
    spans = split_line(reading.text, reading.places, _aspect(corners))
    return tuple(_word(number, detection, reading, span, corners, height) for span in spans)


def split_line(text: str, places: Sequence[float], aspect: float) -> list[Span]:
    """Split a line at its spaces.

    Args:
        text: As it stands in the picture, from left to right.
        places: Centre of each character, shares of the line's width.
        aspect: The line's width by its height.

    Returns:
        Words in reading order: from right to left where most of the line runs so.
    """
    runs = [found.span() for found in re.finditer(r"\S+", text)]
    spans = []
    for n, (first, last) in enumerate(runs):
        before = places[runs[n - 1][1] - 1] if n > 0 else None
        after = places[runs[n + 1][0]] if n + 1 < len(runs) else None
        start, end = _ends(places[first:last], before, after, aspect)
        word = text[first:last]
        order = logical_order(word, _direction, _base(word))
        spans.append(Span(tuple(first + i for i in order), start, end))
    words = [text[first:last] for first, last in runs]
    return [spans[i] for i in logical_order(words, _word_direction, _base(text))]


def logical_order(parts: Sequence[str], direction: Callable[[str], str], base: str) -> list[int]:
    """Indexes of parts, given from left to right, in reading order.

    The inverse of the bidirectional algorithm for one level: runs against the line's direction,
    with the neutral parts between them, are reversed.

    Args:
        parts: Characters or words.
        direction: R, L, or "" for parts that go with their neighbours.
        base: R or L, the line's own direction.
    """
    order = list(range(len(parts)))
    if base == "R":
        order.reverse()
    ways = [direction(parts[i]) for i in order]
    start = 0
    while start < len(order):
        if ways[start] in ("", base):
            start += 1
            continue
        last = start  # neutrals at the end of a run belong to the line
        for i in range(start, len(order)):
            if ways[i] == base:
                break
            if ways[i]:
                last = i
        order[start : last + 1] = order[start : last + 1][::-1]
        start = last + 1
    return order


def _base(text: str) -> str:
    """The direction in which most letters run."""
    kinds = [unicodedata.bidirectional(character) for character in text]
    right = sum(kind in _RIGHT_TO_LEFT for kind in kinds)
    return "R" if right and right >= kinds.count("L") else "L"


def _direction(character: str) -> str:
    kind = unicodedata.bidirectional(character[:1])
    return "R" if kind in _RIGHT_TO_LEFT else "L" if kind in _LEFT_TO_RIGHT else ""


def _word_direction(word: str) -> str:
    ways = {_direction(character) for character in word}
    return "R" if "R" in ways else "L" if "L" in ways else ""


def _ends(
    places: Sequence[float], before: float | None, after: float | None, aspect: float
) -> tuple[float, float]:
    """Start and end of a word, from the places of its characters and of those next to it."""
    gaps = [b - a for a, b in itertools.pairwise(places)]
    pitch = statistics.fmean(gaps) if gaps else _USUAL_CHARACTER / max(aspect, 1e-6)
    reach = OUTER_EDGE * pitch
    low = (before + places[0]) / 2 if before is not None else 0.0
    high = (places[-1] + after) / 2 if after is not None else 1.0
    return max(low, places[0] - reach), min(high, places[-1] + reach)


def _word(
    number: int,
    detection: Detection,
    reading: Reading,
    span: Span,
    corners: tuple[float, ...],
    height: float,
) -> Word:
    confidences = tuple(reading.char_confidences[i] for i in span.characters)
    polygon = _part(corners, span.start, span.end, height)
    xs, ys = polygon[0::2], polygon[1::2]
    return Word(
        text="".join(reading.text[i] for i in span.characters),
        text_confidence=math.prod(confidences),
        char_confidences=confidences,
        detection_confidence=detection.confidence,
        box=_inside((min(xs), min(ys), max(xs), max(ys)), detection.box),
        polygon=polygon,
        angle_deg=angle_deg(polygon),
        line=number,
    )


def _inside(box: Box, limits: Box) -> Box:
    """Clip to the line's box, which lies inside the image."""
    x0, x1 = (min(max(v, limits[0]), limits[2]) for v in (box[0], box[2]))
    y0, y1 = (min(max(v, limits[1]), limits[3]) for v in (box[1], box[3]))
    return x0, y0, x1, y1


def _part(corners: tuple[float, ...], start: float, end: float, height: float) -> tuple[float, ...]:
    """The part of a rectangle between two shares of its length, about its middle line."""
    x0, y0, x1, y1, x2, y2, x3, y3 = corners
    off = (1 - height) / 2

    def at(along: float, down: float) -> tuple[float, float]:
        top = x0 + (x1 - x0) * along, y0 + (y1 - y0) * along
        bottom = x3 + (x2 - x3) * along, y3 + (y2 - y3) * along
        return top[0] + (bottom[0] - top[0]) * down, top[1] + (bottom[1] - top[1]) * down

    quad = (at(start, off), at(end, off), at(end, 1 - off), at(start, 1 - off))
    return tuple(v for point in quad for v in point)


def _aspect(corners: tuple[float, ...]) -> float:
    x0, y0, x1, y1, _, _, x3, y3 = corners
    return math.hypot(x1 - x0, y1 - y0) / max(math.hypot(x3 - x0, y3 - y0), 1e-6)
