"""The words of a line, weighed by a dictionary; see `textspot_ray.spotting.dictionary`.

A CTC recogniser gives each step's softmax. A word of the line is a run of characters between
spaces, without the punctuation at its ends. What it could be instead is told by the steps: another
letter where one was read, a letter where there is a gap, or blank where there is a letter. The
product of the letters' best steps stands for the likelihood, as it does for confidences.

Print with wide gaps is read with spaces that are none, and surely: "adjus tment". Two neighbours of
which neither is a listed word become one if that is one, however sure the space.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from textspot_ray.spotting.dictionary import Dictionary, Slips

LETTERS = string.ascii_lowercase + string.digits  # what a slip may be taken for
_ALPHANUMERIC = frozenset(string.ascii_letters + string.digits)
_TINY = 1e-9
_LEAST_PIECE = 3  # of a word that was read in two; "to me" is no "tome"
_MOST_PITCHES = 3.0  # between its pieces' letters: 1 within a word, 2 with a space


@dataclass(frozen=True, slots=True)
class Symbol:
    """A character of a line.

    Attributes:
        text: One character, or what else a class stands for.
        confidence: Its softmax at its best step.
        start: First step of its run.
        end: The step after its last.
    """

    text: str
    confidence: float
    start: int
    end: int

    @property
    def centre(self) -> float:
        """In steps."""
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Steps:
    """What a recogniser says at each of T steps.

    Attributes:
        best: [T] softmax of the best class.
        letters: [T, 1 + 36] softmax of blank, then of each of `LETTERS` in its likelier case.
    """

    best: NDArray[np.float32]
    letters: NDArray[np.float32]


class LineWeigher:
    """Weighs the unsure words of lines.

    Args:
        dictionary: Listed words.
        below: Confidence below which a word is weighed.
    """

    def __init__(self, dictionary: Dictionary, below: float) -> None:
        self._dictionary, self._below = dictionary, below

    def weighed(self, symbols: Sequence[Symbol], steps: Steps) -> list[Symbol]:
        """A line with each unsure word as the likeliest of itself and the words near it.

        The symbols' confidences are changed so that their product is the word's; those of a word
        that became another share it evenly.

        Args:
            symbols: The line's, spaces included, from left to right.
            steps: Of the line.
        """
        symbols, steps = self._joined(symbols, steps)
        made: list[Symbol] = []
        first = 0
        for start, end in _cores(symbols):
            core = symbols[start:end]
            before = symbols[start - 1].end if start else 0
            after = symbols[end].start if end < len(symbols) else len(steps.best)
            made += symbols[first:start]
            made += self._word(core, steps, before, after)
            first = end
        return [*made, *symbols[first:]]

    def _joined(self, symbols: Sequence[Symbol], steps: Steps) -> tuple[Sequence[Symbol], Steps]:
        """A line without the spaces within listed words, and its steps with blank there."""
        spaces: list[int] = []
        joined = -1  # where the last piece that was joined to one before it begins
        for (start, end), (again, stop) in pairwise(_cores(symbols)):
            left, right, between = symbols[start:end], symbols[again:stop], symbols[end:again]
            if (
                start != joined
                and all(symbol.text == " " for symbol in between)
                and _near(left, right)
                and self._is_one(left, right)
            ):
                spaces += range(end, again)
                joined = again
        if not spaces:
            return symbols, steps
        best, letters = steps.best.copy(), steps.letters.copy()
        for i in spaces:
            run = slice(symbols[i].start, symbols[i].end)
            # no letter is to be put in where a space was seen
            best[run], letters[run] = 1.0, [1.0, *[0.0] * len(LETTERS)]
        kept = [symbol for i, symbol in enumerate(symbols) if i not in set(spaces)]
        return kept, Steps(best, letters)

    def _is_one(self, left: Sequence[Symbol], right: Sequence[Symbol]) -> bool:
        """Whether two neighbours are the pieces of a word: by the list and by their case."""
        pieces = ["".join(s.text for s in piece) for piece in (left, right)]
        if not all(len(piece) >= _LEAST_PIECE and piece.isalpha() for piece in pieces):
            return False
        if not (pieces[1].islower() or "".join(pieces).isupper()):
            return False
        first, second = (piece.lower() for piece in pieces)
        if self._dictionary.lists(first) or self._dictionary.lists(second):
            return False
        return first + second in self._dictionary.words  # a user's list has too few to tell

    def _word(
        self, core: Sequence[Symbol], steps: Steps, before: int, after: int
    ) -> Sequence[Symbol]:
        """A word; the steps around it from the end of the symbol before to the next one."""
        confidence = math.prod(symbol.confidence for symbol in core)
        if confidence >= self._below:
            return core
        text = "".join(symbol.text for symbol in core).lower()
        least = math.log(self._dictionary.share(text))
        slips = _slips(core, steps, before, after, least)
        losses = self._dictionary.similar(text, slips, least)
        # the best of a run's steps are from different steps: a sum may come out above its parts
        likely = {word: confidence * math.exp(min(loss, 0.0)) for word, loss in losses.items()}
        weights = self._dictionary.weigh(text, {text: confidence, **likely})
        best = max(weights, key=lambda word: weights[word])
        if best != text:
            each = weights[best] ** (1 / len(best))
            return [replace(s, confidence=each) for s in _spelt(core, best, before, after)]
        if len(weights) == 1 and not self._dictionary.lists(text):
            return core
        power = math.log(weights[text]) / math.log(confidence)
        return [replace(symbol, confidence=symbol.confidence**power) for symbol in core]


def _near(left: Sequence[Symbol], right: Sequence[Symbol]) -> bool:
    """Whether a word goes on about where its next letter would stand."""
    letters = len(left) + len(right) - 2
    widths = left[-1].centre - left[0].centre + right[-1].centre - right[0].centre
    return right[0].centre - left[-1].centre <= _MOST_PITCHES * widths / letters


def _cores(symbols: Sequence[Symbol]) -> list[tuple[int, int]]:
    """First and last place (exclusive) of each word of two or more ASCII letters and digits."""
    found = []
    start = 0
    while start < len(symbols):
        if symbols[start].text == " ":
            start += 1
            continue
        stop = start
        while stop < len(symbols) and symbols[stop].text != " ":
            stop += 1
        first, last = start, stop
        while first < last and not symbols[first].text.isalnum():
            first += 1
        while last > first and not symbols[last - 1].text.isalnum():
            last -= 1
        if last - first >= 2 and all(s.text in _ALPHANUMERIC for s in symbols[first:last]):
            found.append((first, last))
        start = stop
    return found


def _slips(core: Sequence[Symbol], steps: Steps, before: int, after: int, least: float) -> Slips:
    """What may be wrong in a word, as far as it loses no more than the least."""
    replaced, inserted, omitted = [], [], []
    edge = before
    for symbol in core:
        run = slice(symbol.start, symbol.end)
        here = steps.letters[run]
        own = symbol.text.lower()
        replaced.append(_above(np.log(here[:, 1:].max(0) + _TINY), symbol.confidence, own, least))
        blank = np.log(here[:, 0] + _TINY) - np.log(steps.best[run] + _TINY)
        omitted.append(float(blank.sum()))
        inserted.append(_put_in(steps.letters[edge : symbol.start], least))
        edge = symbol.end
    inserted.append(_put_in(steps.letters[edge:after], least))
    return Slips(replaced, inserted, omitted)


def _put_in(gap: NDArray[np.float32], least: float) -> dict[str, float]:
    """Letters and digits that a gap may hold, against its being blank there."""
    if not len(gap):
        return {}
    ratios = np.log(gap[:, 1:] + _TINY) - np.log(gap[:, :1] + _TINY)
    return _above(ratios.max(0), 1.0, "", least)


def _above(
    logs: NDArray[np.floating], confidence: float, own: str, least: float
) -> dict[str, float]:
    losses = (logs - math.log(confidence)).tolist()
    return {
        letter: loss
        for letter, loss in zip(LETTERS, losses, strict=True)
        if loss >= least and letter != own
    }


def _spelt(core: Sequence[Symbol], word: str, before: int, after: int) -> list[Symbol]:
    """A word's symbols with the letters of a similar one, in the case that most of it has."""
    text = "".join(symbol.text for symbol in core)
    symbols = list(core)
    alike = zip(word, text.lower(), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], alike))
    if len(word) > len(text):
        left = symbols[same - 1].end if same else before
        right = symbols[same].start if same < len(symbols) else after
        symbols.insert(same, Symbol("", 1.0, left, right))
    elif len(word) < len(text):
        del symbols[same]
    if sum(letter.isupper() for letter in text) * 2 > len(text):
        word = word.upper()
    elif text[0].isupper():
        word = word[0].upper() + word[1:]
    return [
        symbol if symbol.text.lower() == letter.lower() else replace(symbol, text=letter)
        for symbol, letter in zip(symbols, word, strict=True)
    ]
