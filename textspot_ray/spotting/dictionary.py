"""A list of words that weighs unsure readings: a likely word beats a slip of one or two letters.

A reader says how likely each symbol is at each place, and knows little of what words there are. So
an unsure reading is compared with the words of the list that differ from it where it was unsure.
By Bayes' rule, with a listed word `odds` times as likely beforehand as any other string, and p(w)
for what the reader gives a string w::

    P(w) = p(w) * (odds if w is listed else 1) / (1 + (odds - 1) * sum of p over listed words)

The sum is over the reading and the listed words that may be likelier; others weigh little in it.
Nothing becomes a word that the reader thinks less likely than what it read by more than the odds,
so names, numbers and words of other languages mostly stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import BundleError

LEAST_CHARS = 3  # of listed words; shorter ones look like too much
MOST_CANDIDATES = 2  # read to the end; on validation words eight set no more right
# Log-likelihood that a candidate may lose against the reading by the reading's own steps. They are
# not those of the candidate, so this is wider than what `odds` can make up for.
_FLOOR = -6.0


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Listed words and how much more likely than other strings they are.

    Args:
        words: In the symbols of the reader.
        odds: Above 1.
    """

    words: frozenset[str]
    odds: float
    _symbols: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_symbols", frozenset("".join(self.words)))

    def similar(self, text: str, steps: NDArray[np.floating], alphabet: str) -> list[str]:
        """Listed words near a reading: two symbols replaced, or one left out or put in.

        Args:
            text: What was read, L symbols of the alphabet.
            steps: [L + 1, 1 + len(alphabet)] probabilities at each place of the reading: of the
                word's end, then of the symbols.
            alphabet: The reader's symbols.

        Returns:
            At most `MOST_CANDIDATES`, the likeliest by those steps first; without the reading.
        """
        chosen = [1 + alphabet.index(symbol) for symbol in text] + [0]
        logs = np.log(np.maximum(steps, 1e-12))
        losses = logs - logs[np.arange(len(chosen)), chosen][:, np.newaxis]
        # of each place: the other symbols that come into question, and what they lose
        others = [
            [
                (alphabet[k - 1], row[k])
                for k in range(1, len(row))
                if row[k] > _FLOOR and k != own and alphabet[k - 1] in self._symbols
            ]
            for row, own in zip(losses.tolist(), chosen, strict=True)
        ]
        found: dict[str, float] = {}

        def try_(word: str, loss: float) -> None:
            if word in self.words:
                found[word] = max(loss, found.get(word, -math.inf))

        # up to the first place that differs the steps are the candidate's own: that loss is exact
        bound = math.log(self.share(text))
        for i, place in enumerate(others):
            head, tail = text[:i], text[i:]
            for symbol, loss in place:
                if loss < bound:
                    continue
                try_(head + symbol + tail, loss)
                if not tail:
                    continue
                replaced = head + symbol + tail[1:]
                try_(replaced, loss)
                for j in range(i + 1, len(text)):
                    for second, more in others[j]:
                        if loss + more > _FLOOR:
                            try_(replaced[:j] + second + replaced[j + 1 :], loss + more)
            if tail and losses[i, chosen[i + 1]] >= bound:
                try_(head + tail[1:], float(losses[i, chosen[i + 1]]))
        found.pop(text, None)
        ranked = sorted(found, key=lambda word: (-found[word], word))
        return ranked[:MOST_CANDIDATES]

    def share(self, text: str) -> float:
        """Of a reading's likelihood, what the reader must give a listed word to be of any weight.

        A third of what makes it the likelier one: below that it would hardly change the confidence
        of the reading either.
        """
        return (1.0 if text in self.words else 1.0 / self.odds) / 3

    def weigh(self, likelihoods: Mapping[str, float]) -> dict[str, float]:
        """Probabilities of strings, from what the reader gives each of them.

        Args:
            likelihoods: p by string, in all at most 1.

        Returns:
            P by string, see the module's text.
        """
        listed = sum(p for word, p in likelihoods.items() if word in self.words)
        whole = 1 + (self.odds - 1) * listed
        return {
            word: p * (self.odds if word in self.words else 1.0) / whole
            for word, p in likelihoods.items()
        }


def read_dictionary(path: Path, odds: float, alphabet: str) -> Dictionary:
    """Read a bundle's list, a word a line.

    Raises:
        BundleError: It has a line that is no word of at least `LEAST_CHARS` of the alphabet's
            symbols, or none at all.
    """
    words = path.read_text(encoding="utf-8", errors="replace").splitlines()
    known = frozenset(alphabet)
    for number, word in enumerate(words, 1):
        if len(word) < LEAST_CHARS or not known.issuperset(word):
            raise BundleError(
                f"{path}: line {number} is not {LEAST_CHARS} or more symbols of the bundle's "
                "alphabet; give one word a line"
            )
    if not words:
        raise BundleError(f"{path}: no words; give one a line, or leave the dictionary out")
    return Dictionary(frozenset(words), odds)


def listed_words(texts: Iterable[str], alphabet: str) -> list[str]:
    """The words of a word list that a dictionary can have: lower case, sorted, each once."""
    known = frozenset(alphabet)
    words = {text.strip().lower() for text in texts}
    return sorted(w for w in words if len(w) >= LEAST_CHARS and known.issuperset(w))
