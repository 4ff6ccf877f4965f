"""A list of words that weighs unsure readings: a likely word beats a slip of one or two letters.

A reader says how likely each symbol is at each place, and knows little of what words there are. So
an unsure reading is compared with the words of the list that differ from it where it was unsure.
By Bayes' rule, with a listed word o(w) times as likely beforehand as any other string, for which o
is 1, and p(w) for what the reader gives a string w::

    P(w) = p(w) * o(w) / (1 + sum of (o(v) - 1) * p(v) over listed words v)

The sum is over the reading and the listed words that may be likelier; others weigh little in it.
Nothing becomes a word that the reader thinks less likely than what it read by more than the odds,
so names, numbers and words of other languages mostly stay what they are.

Number plates are in no list, but their formats are: O and 0 look alike on them, 8 and B, 2 and Z,
and which one it is the format tells. A reading of letters and digits that is in no listed format is
compared with strings near it that are, which have the odds of listed words. One that is in a
format stays what it is, and as sure: others of the format are as likely beforehand.
"""

from __future__ import annotations

import hashlib
import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

LEAST_CHARS = 3  # of listed words; shorter ones look like too much
# What a user lists is there to be found, unlike most words of a language: eight times its odds.
OWN_ODDS = 64.0
MOST_SIMILAR = 2  # words looked at for a reading; on validation words eight set no more right


@dataclass(frozen=True, slots=True)
class Slips:
    """What a reader may have got wrong in a reading of L symbols.

    All numbers are logarithms: of what the reader gives the reading with that change, over what it
    gives the reading.

    Attributes:
        replaced: [L] by another symbol than the one that was read.
        inserted: [L + 1] by symbol: before each symbol, and after the last.
        omitted: [L] without that symbol.
    """

    replaced: Sequence[Mapping[str, float]]
    inserted: Sequence[Mapping[str, float]]
    omitted: Sequence[float]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """Listed words and how much more likely than other strings they are.

    Args:
        words: Of a language; lower case, in the symbols of the reader.
        odds: Of these; above 1.
        own: Words that a user expects.
        own_odds: Of these.
        formats: Of number plates, see `number_format`; strings in them have the odds of `words`
            where what was read is in none.
    """

    words: frozenset[str]
    odds: float
    own: frozenset[str] = frozenset()
    own_odds: float = OWN_ODDS
    formats: frozenset[str] = frozenset()

    def lists(self, text: str) -> bool:
        """Whether a text is a listed word."""
        return text in self.words or text in self.own

    def odds_of(self, text: str, read: str) -> float:
        """How much likelier than strings that are not listed a text is beforehand.

        Args:
            text: What may be there.
            read: What was read there.
        """
        if text in self.own:
            return self.own_odds
        in_format = number_format(text) in _near(self.formats, number_format(read))
        return self.odds if text in self.words or in_format else 1.0

    def similar(self, text: str, slips: Slips, least: float) -> dict[str, float]:
        """Listed words near a reading: one or two symbols replaced, one left out or put in.

        Args:
            text: What was read, lower case.
            slips: What may be wrong in it.
            least: Words that lose more are left out: where the first change is a likelihood to go
                by and the second is not, `share` holds for the first alone.

        Returns:
            At most `MOST_SIMILAR` words, the likeliest by their odds first, and as many strings of
            a format, each with its logarithm; without the reading.
        """
        found: dict[str, float] = {}
        formats = _near(self.formats, number_format(text))

        def try_(word: str, loss: float) -> None:
            if (
                word in self.words
                or word in self.own
                or (formats and number_format(word) in formats)
            ):
                found[word] = max(loss, found.get(word, -math.inf))

        bound = max(math.log(self.share(text)), least)
        # a second change may lose what is left beside the likeliest first one
        likeliest_loss = max((max(p.values(), default=least) for p in slips.replaced), default=0.0)
        lowest = min(bound, least - likeliest_loss)
        for i, place in enumerate(slips.inserted):
            for symbol, loss in place.items():
                if loss >= bound:
                    try_(text[:i] + symbol + text[i:], loss)
        for i, loss in enumerate(slips.omitted):
            if loss >= bound:
                try_(text[:i] + text[i + 1 :], loss)
        places = [
            [(symbol, loss) for symbol, loss in place.items() if loss >= lowest]
            for place in slips.replaced
        ]
        for i, symbols in enumerate(places):
            for symbol, loss in symbols:
                if loss < bound:
                    continue
                changed = text[:i] + symbol + text[i + 1 :]
                try_(changed, loss)
                for j in range(i + 1, len(text)):
                    before, after = changed[:j], changed[j + 1 :]
                    for second, more in places[j]:
                        # most of the time: hundreds of strings for a reading
                        if loss + more < least:
                            continue
                        word = before + second + after
                        if (
                            word in self.words
                            or word in self.own
                            or (formats and number_format(word) in formats)
                        ):
                            try_(word, loss + more)
        found.pop(text, None)

        def rank(word: str) -> tuple[float, str]:
            own = math.log(self.own_odds / self.odds) if word in self.own else 0.0
            return -found[word] - own, word

        ranked = sorted(found, key=rank)
        words = [word for word in ranked if self.lists(word)][:MOST_SIMILAR]
        numbers = [word for word in ranked if not self.lists(word)][:MOST_SIMILAR]
        return {word: found[word] for word in (*words, *numbers)}

    def share(self, text: str) -> float:
        """Of a reading's likelihood, what the reader must give a listed word to be of any weight.

        A third of what makes it the likelier one: below that it would hardly change the confidence
        of the reading either.
        """
        most = max(self.odds, self.own_odds) if self.own else self.odds
        return self.odds_of(text, text) / most / 3

    def weigh(self, read: str, likelihoods: Mapping[str, float]) -> dict[str, float]:
        """Probabilities of strings, from what the reader gives each of them.

        Args:
            read: What was read.
            likelihoods: p by string, in all at most 1.

        Returns:
            P by string, see the module's text.
        """
        odds = {word: self.odds_of(word, read) for word in likelihoods}
        whole = 1 + sum((odds[word] - 1) * p for word, p in likelihoods.items())
        return {word: p * odds[word] / whole for word, p in likelihoods.items()}


_LETTER_OR_DIGIT = str.maketrans(
    string.ascii_lowercase + string.digits, "L" * len(string.ascii_lowercase) + "0" * 10
)


def number_format(text: str) -> str:
    """A text with ``L`` for each letter a-z and ``0`` for each digit: LLL0000."""
    return text.translate(_LETTER_OR_DIGIT)


@lru_cache(maxsize=4096)
def _near(formats: frozenset[str], read: str) -> frozenset[str]:
    """Formats that slips in a reading of such a format may have hidden.

    None if it is one of them, or a word or a number: names and amounts are no plates.
    """
    if read in formats or "L" not in read or "0" not in read:
        return frozenset()

    def one_more(longer: str, shorter: str) -> bool:
        return len(longer) == len(shorter) + 1 and any(
            longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer))
        )

    return frozenset(
        f
        for f in formats
        if (len(f) == len(read) and sum(map(str.__ne__, f, read)) <= 2)
        or one_more(f, read)
        or one_more(read, f)
    )


@cache
def listed(name: str) -> frozenset[str]:
    """The words or formats of a list of this package, ``data/NAME.txt``."""
    return frozenset(_text(name).split())


@cache
def list_sha256(name: str) -> str:
    """Of its text."""
    return hashlib.sha256(_text(name).encode()).hexdigest()


def _text(name: str) -> str:
    folder = resources.files("textspot_ray.spotting")
    return folder.joinpath(f"data/{name}.txt").read_text(encoding="ascii")


def words_of_lists(lines: Iterable[str], symbols: str) -> list[str]:
    """The words of spelling dictionaries that a list can have: lower case, sorted, each once."""
    known = frozenset(symbols)
    words = {line.strip().lower() for line in lines}
    return sorted(w for w in words if len(w) >= LEAST_CHARS and known.issuperset(w))
