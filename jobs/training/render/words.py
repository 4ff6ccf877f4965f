"""What the drawn words say: dictionary words, street words, numbers, codes, prices, plates."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TARGET_SYMBOLS = frozenset(string.ascii_lowercase + string.digits)
DICTIONARY_PATHS = ("/usr/share/dict/words", "/usr/share/dict/american-english-large")

# What signs, shop fronts, packages and screens say most, whatever the town.
_STREET_WORDS_TEXT = """
the of and to in for on at by or no not is it be you we our your all from with this that are as an
exit entrance enter open closed push pull sale sales shop shops store stores mall level floor lift
lifts stairs toilet toilets men women ladies gents way out only one two new now free off up down
buy get save more best food court cafe coffee tea bar restaurant hotel bank bus stop stops taxi
train station mrt line gate street road avenue lane drive park parking car cars lot center centre
plaza square tower house building north south east west left right city hall office post school
college hospital clinic dental pharmacy police fire hose reel extinguisher danger warning caution
do smoking camera cctv notice please keep clear emergency help info information customer service
services counter cash card atm visa mastercard pay payment ticket tickets price promotion special
offer discount member members reserved private property staff authorised access button watch mind
gap platform bread bakery cake pizza burger chicken rice noodle noodles fish seafood soup sushi
ramen curry chinese japanese thai korean indian western beer wine juice water ice cream milk sugar
fresh fruit hot cold spicy sweet salad grill kitchen deli fashion shoes bags books music optical
eye hair salon beauty spa nail nails skin care massage health fitness gym sport sports golf club
travel tours money changer change jewellery gold diamond watches time phone mobile computer
digital electronics photo print copy laundry dry cleaning tailor gifts toys baby kids children
family home living furniture design gallery art museum theatre cinema market super mart express
mini world global international group company pte ltd inc co bhd llc tel fax www com net org http
email max min height speed limit km kg cm hrs am pm mon tue wed thu fri sat sun monday tuesday
wednesday thursday friday saturday sunday jan feb mar apr may jun jul aug sep oct nov dec daily
hours till late 24hrs 7days big small large extra plus power energy life love happy good great
first class quality original classic since est made china singapore malaysia london paris york
tokyo hong kong asia europe america orchard bay marina river hill garden gardens beach airport
terminal arrival departure baggage bridge tunnel highway expressway end ahead slow yield give
bicycle pedestrian cross crossing walk wait green red blue white black yellow orange pink purple
brown silver
"""
STREET_WORDS = tuple(_STREET_WORDS_TEXT.split())

_SYLLABLES_TEXT = """
an ar ba be bi bo ca ce chi co da de di do el en er es fa fi fo ga go gra ha he ho in is ja ka ke
ki ko la le li lo ma me mi mo na ne ni no on or pa pe po ra re ri ro sa se shi so sta ta te ti to
tri tu un va ve vi vo wa we xi ya yo za zen
"""
_SYLLABLES = tuple(_SYLLABLES_TEXT.split())
_UNITS = ("km", "kg", "m", "cm", "ml", "g", "th", "GB", "hrs")
_NAME_ENDS = ("", "", "", "n", "s", "x", "o", "a", "tech", "mart", "co", "ly", "z", "el")
_CONSONANTS_HEAVY = "BCDFGHJKLMNPRSTVWXYZAEIOU"


def target_of(text: str) -> str:
    """What the reader has to say for a text: lower case, accents dropped, only a-z and 0-9."""
    plain = unicodedata.normalize("NFKD", text).lower()
    return "".join(char for char in plain if char in TARGET_SYMBOLS)


@dataclass(slots=True)
class Vocabulary:
    """A seeded source of texts in the proportions of street photographs.

    Args:
        dictionary: Ordinary words; may be empty (invented words take their place).
        street: Words of signs, drawn more often than the dictionary's.
    """

    dictionary: Sequence[str]
    street: Sequence[str] = STREET_WORDS
    _by_length: dict[int, list[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_length = {}
        for word in self.dictionary:
            self._by_length.setdefault(min(len(word), 16), []).append(word)

    def draw(self, rng: np.random.Generator, max_chars: int = 16, plain: bool = False) -> str:
        """One text of at most max_chars characters, at least one of them a letter or digit.

        Args:
            rng: Where chance comes from.
            max_chars: Longest text, >= 2.
            plain: Letters and digits only, no punctuation.
        """
        for _ in range(20):
            text = self._draw_once(rng, max_chars)
            if not plain and rng.random() < 0.10:
                text = _punctuate(rng, text)
            if plain:
                text = "".join(char for char in text if char.isalnum())
            if 1 <= len(text) <= max_chars and target_of(text):
                return text
        return str(int(rng.integers(10, 100)))

    def draw_code(self, rng: np.random.Generator) -> str:
        """A number plate, unit number or other code."""
        return _code(rng) if rng.random() < 0.7 else _number(rng)

    def _draw_once(self, rng: np.random.Generator, max_chars: int) -> str:
        kind = rng.random()
        if kind < 0.36:
            return _recase(rng, self._dictionary_word(rng, max_chars))
        if kind < 0.72:
            return _recase(rng, str(self.street[int(rng.integers(len(self.street)))]))
        if kind < 0.82:
            return _recase(rng, _invented_name(rng))
        if kind < 0.92:
            return _number(rng)
        if kind < 0.96:
            return _code(rng)
        length = int(rng.integers(1, 8))
        letters = string.ascii_uppercase if rng.random() < 0.6 else string.ascii_lowercase
        if rng.random() < 0.3:
            letters = string.ascii_letters + string.digits
        return "".join(letters[int(i)] for i in rng.integers(0, len(letters), length))

    def _dictionary_word(self, rng: np.random.Generator, max_chars: int) -> str:
        # Lengths of words seen in street photographs, not of a dictionary's entries: a mode at
        # four letters and a long thin tail (the unlisted 1 and 2 come from codes and numbers).
        length = 3 + int(rng.gamma(1.6, 1.75))
        for size in range(min(length, max_chars), 0, -1):
            words = self._by_length.get(size)
            if words:
                return words[int(rng.integers(len(words)))]
        return _invented_name(rng)


def load_vocabulary(dictionary: Path | None = None, extra: Iterable[str] = ()) -> Vocabulary:
    """Read a word list, one word a line, as the system's spelling dictionaries are.

    Args:
        dictionary: The list; the system's own when None, none at all where there is none.
        extra: More street words, for example the transcriptions of training photographs.

    Raises:
        OSError: A list that was named cannot be read.
    """
    path = dictionary
    if path is None:
        path = next((Path(at) for at in DICTIONARY_PATHS if Path(at).is_file()), None)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path else []
    words = tuple(
        word
        for word in (line.strip() for line in lines)
        if word.isascii() and word.isalpha() and len(word) >= 2
    )
    return Vocabulary(words, (*STREET_WORDS, *(word for word in extra if target_of(word))))


def _recase(rng: np.random.Generator, word: str) -> str:
    pick = rng.random()
    if pick < 0.50:
        return word.upper()
    if pick < 0.80:
        return word[:1].upper() + word[1:].lower()
    if pick < 0.985:
        return word.lower()
    flips = rng.random(len(word)) < 0.5
    return "".join(c.upper() if up else c.lower() for c, up in zip(word, flips, strict=True))


def _invented_name(rng: np.random.Generator) -> str:
    count = int(rng.integers(1, 4))
    parts = [_SYLLABLES[int(i)] for i in rng.integers(0, len(_SYLLABLES), count)]
    return "".join(parts) + _NAME_ENDS[int(rng.integers(len(_NAME_ENDS)))]


def _digits(rng: np.random.Generator, count: int) -> str:
    return "".join(str(int(i)) for i in rng.integers(0, 10, count))


def _number(rng: np.random.Generator) -> str:
    kind = int(rng.integers(0, 14))
    if kind < 5:
        return _digits(rng, int(rng.choice([1, 2, 2, 3, 3, 4, 4, 5, 6])))
    if kind == 5:
        sign = ("$", "$", "S$", "", "RM")[int(rng.integers(5))]
        return (
            f"{sign}{int(rng.integers(1, 200))}.{rng.choice(['00', '50', '90', '95', '99', '20'])}"
        )
    if kind == 6:
        return f"{int(rng.integers(5, 100))}%"
    if kind == 7:
        return f"{_digits(rng, 4)}-{_digits(rng, 4)}" if rng.random() < 0.5 else _digits(rng, 8)
    if kind == 8:
        colon = ":" if rng.random() < 0.6 else "."
        half = ("", "am", "pm", "AM", "PM")[int(rng.integers(5))]
        return f"{int(rng.integers(1, 24))}{colon}{int(rng.integers(0, 60)):02d}{half}"
    if kind == 9:
        return f"#{int(rng.integers(1, 60)):02d}-{int(rng.integers(1, 400)):02d}"
    if kind == 10:
        return str(int(rng.integers(1900, 2026)))
    if kind == 11:
        return f"{int(rng.integers(1, 100))}{_UNITS[int(rng.integers(len(_UNITS)))]}"
    if kind == 12:
        return f"{_digits(rng, 2)}/{_digits(rng, 2)}"
    return f"{int(rng.integers(1, 30))}-{int(rng.integers(1, 60))}"


def _code(rng: np.random.Generator) -> str:
    def letters(count: int) -> str:
        picks = rng.integers(0, len(_CONSONANTS_HEAVY), count)
        return "".join(_CONSONANTS_HEAVY[int(i)] for i in picks)

    kind = int(rng.integers(0, 6))
    if kind == 0:
        return f"{letters(3)}{_digits(rng, 4)}{letters(1)}"
    if kind == 1:
        return f"{letters(1)}{_digits(rng, int(rng.integers(1, 4)))}"
    if kind == 2:
        return f"{letters(2)}{_digits(rng, int(rng.integers(1, 5)))}"
    if kind == 3:
        return f"{letters(2)}-{_digits(rng, 3)}"
    if kind == 4:
        return f"{_digits(rng, int(rng.integers(1, 4)))}{letters(1)}"
    return f"{letters(2)}{_digits(rng, 2)}{letters(2)}"


def _punctuate(rng: np.random.Generator, text: str) -> str:
    kind = int(rng.integers(0, 12))
    if kind < 3:
        return text + "!?."[kind]
    if kind < 5:
        return text + (":" if kind == 3 else ",")
    if kind == 5:
        return f"({text})"
    if kind == 6:
        return f'"{text}"'
    if kind == 7:
        return text + ("'s" if text[-1:].islower() else "'S")
    if kind == 8:
        return f"[{text}]"
    if kind == 9 and len(text) > 4:
        half = len(text) // 2
        return f"{text[:half]}{'-/&.'[int(rng.integers(4))]}{text[half:]}"
    if kind == 10:
        return f"@{text}"
    return text + "-"
