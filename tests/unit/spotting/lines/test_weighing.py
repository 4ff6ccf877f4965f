"""Unsure words of a line are weighed by a dictionary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.spotting.dictionary import Dictionary
from textspot_ray.spotting.lines.recognizer import letters_of
from textspot_ray.spotting.lines.weighing import LETTERS, LineWeigher, Steps, Symbol

ODDS = 8.0
WIDTH = 3  # steps from one symbol's start to the next; each is at one step, with blank after it


def line(text: str, sure: float = 0.99) -> tuple[list[Symbol], Steps]:
    """A line whose symbols all have one confidence, and its steps, which rule out all else."""
    symbols = [Symbol(c, sure, WIDTH * i, WIDTH * i + 1) for i, c in enumerate(text)]
    best = np.full(WIDTH * len(text), 0.999, np.float32)
    letters = np.full((len(best), 1 + len(LETTERS)), 1e-6, np.float32)
    letters[:, 0] = 0.999
    for symbol in symbols:
        best[symbol.start] = sure
        letters[symbol.start, 0] = 1e-6
    return symbols, Steps(best, letters)


def doubt(
    symbols: list[Symbol], steps: Steps, place: int, own: float, letter: str, p: float
) -> None:
    """Make the reader unsure of a symbol."""
    at = symbols[place].start
    symbols[place] = Symbol(symbols[place].text, own, at, at + 1)
    steps.best[at] = own
    steps.letters[at, 1 + LETTERS.index(letter)] = p


def weighed(symbols: list[Symbol], steps: Steps, *words: str) -> list[Symbol]:
    return LineWeigher(Dictionary(frozenset(words), ODDS), 0.9).weighed(symbols, steps)


def text_of(symbols: list[Symbol]) -> str:
    return "".join(symbol.text for symbol in symbols)


def test_a_letter_is_replaced_in_the_words_own_case() -> None:
    for written, told in (("NUNBER", "NUMBER"), ("nunber", "number"), ("Nunber", "Number")):
        symbols, steps = line(written)
        doubt(symbols, steps, 2, 0.6, "m", 0.3)
        made = weighed(symbols, steps, "number")
        assert text_of(made) == told
        assert [(s.start, s.end) for s in made] == [(s.start, s.end) for s in symbols]


def test_a_digit_is_replaced_too() -> None:
    symbols, steps = line("ab0z", sure=1.0)
    doubt(symbols, steps, 3, 0.6, "2", 0.3)
    assert text_of(weighed(symbols, steps, "ab02")) == "ab02"


def test_the_symbols_of_a_weighed_word_share_its_confidence() -> None:
    symbols, steps = line("nunber", sure=1.0)
    doubt(symbols, steps, 2, 0.6, "m", 0.3)
    made = weighed(symbols, steps, "number")
    expected = 0.3 * ODDS / (1 + (ODDS - 1) * 0.3)
    assert np.prod([s.confidence for s in made]) == pytest.approx(expected, rel=1e-4)
    assert max(s.confidence for s in made) == pytest.approx(min(s.confidence for s in made))
    likely = weighed(symbols, steps, "nunber")
    assert text_of(likely) == "nunber"
    expected = 0.6 * ODDS / (1 + (ODDS - 1) * 0.6)
    assert np.prod([s.confidence for s in likely]) == pytest.approx(expected, rel=1e-4)
    assert [s.confidence for s in likely].index(min(s.confidence for s in likely)) == 2
    assert weighed(symbols, steps, "another") == symbols


def test_a_letter_is_put_in_where_there_is_a_gap() -> None:
    for written, gap, letter, told in (
        ("arking", 0, "p", "parking"),
        ("tota", 4, "l", "total"),
        ("supies", 3, "l", "supplies"),
    ):
        symbols, steps = line(f"x {written} y")
        first = symbols[2 + gap].start - 1 if gap < len(written) else symbols[1 + gap].end
        steps.letters[first, [0, 1 + LETTERS.index(letter)]] = 0.6, 0.3
        for i in range(2, 2 + len(written)):
            doubt(symbols, steps, i, 0.95, "z", 1e-6)
        word = "suplies" if told == "supplies" else told
        made = weighed(symbols, steps, word)
        assert text_of(made) == f"x {word} y"
        places = [s.centre for s in made]
        assert places == sorted(places)


def test_a_letter_too_many_is_left_out() -> None:
    symbols, steps = line("exxit")
    doubt(symbols, steps, 2, 0.6, "z", 1e-6)
    steps.letters[symbols[2].start, 0] = 0.35
    assert text_of(weighed(symbols, steps, "exit")) == "exit"


def test_only_words_of_ascii_letters_and_digits_are_weighed() -> None:
    for written, told in (
        ("(nunber:", "(number:"),
        ("nún.nunber", None),
        ("no.nunber", None),
        ("nunberř", None),
    ):
        symbols, steps = line(written)
        place = written.index("nber")
        doubt(symbols, steps, place, 0.6, "m", 0.3)
        made = weighed(symbols, steps, "number", "nonumber")
        assert text_of(made) == (told or written)
        if told is None:
            assert made == symbols


def test_sure_words_numbers_and_spaces_stay_as_they_are() -> None:
    symbols, steps = line("nunber 12 of")
    assert weighed(symbols, steps, "number") == symbols
    symbols, steps = line("12.50 nunber", sure=0.5)
    made = weighed(symbols, steps, "number")
    assert text_of(made) == "12.50 nunber"
    assert made[:6] == symbols[:6]


def test_a_listed_word_that_was_read_in_two_is_one() -> None:
    listed = ("adjustment", "car", "carpet", "tome", "pet")
    for written, told in (
        ("adjus tment 5", "adjustment 5"),
        ("ADJUS TMENT,", "ADJUSTMENT,"),
        ("(Adjus  tment)", "(Adjustment)"),
        ("x adjus tment adjus tment", "x adjustment adjustment"),
    ):
        made = weighed(*line(written), *listed)
        assert text_of(made) == told
        symbols = line(written)[0]
        assert all(s in symbols for s in made)  # each where it was, as sure as before
    # words of their own, too short to tell, two names, punctuation between
    for written in ("car pet", "to me", "Adjus Tment", "adjus-tment", "adjus. tment"):
        symbols, steps = line(written)
        assert weighed(symbols, steps, *listed) == symbols
    symbols, steps = line("adjus tment")
    for own in ({"adjustment"}, {"tment"}):  # a user's list has too few, and counts its words
        words = frozenset() if own == {"adjustment"} else frozenset({"adjustment"})
        weigher = LineWeigher(Dictionary(words, ODDS, own=frozenset(own)), 0.9)
        assert weigher.weighed(symbols, steps) == symbols
    far = [
        replace(s, start=s.start + 30, end=s.end + 30) if i > 5 else s
        for i, s in enumerate(symbols)
    ]
    assert weighed(far, line("adjus tment" + 12 * " ")[1], "adjustment") == far


def test_a_piece_is_joined_to_one_side_alone() -> None:
    made = weighed(*line("perc ent erostomy"), "percent", "enterostomy")
    assert text_of(made) == "percent erostomy"


def test_nothing_is_put_in_where_a_space_was() -> None:
    symbols, steps = line("neu ral", sure=0.95)
    steps.letters[symbols[3].start] = 1e-12
    made = weighed(symbols, steps, "neural", "neutral")
    assert text_of(made) == "neural"
    whole = weighed(*line("neural", sure=0.95), "neural", "neutral")
    assert [s.confidence for s in made] == pytest.approx([s.confidence for s in whole])


def test_a_word_that_was_read_in_two_is_weighed_as_one() -> None:
    symbols, steps = line("adjus tment", sure=1.0)
    doubt(symbols, steps, 7, 0.5, "n", 0.2)
    made = weighed(symbols, steps, "adjustment")
    assert text_of(made) == "adjustment"
    assert np.prod([s.confidence for s in made]) == pytest.approx(0.5 * ODDS / (1 + 0.5 * 7))


def test_a_symbol_of_several_characters_is_no_letter() -> None:
    symbols, steps = line("nunber")
    symbols[0] = Symbol("...", 0.5, 0, 1)
    assert text_of(weighed(symbols, steps, "number")) == "...unber"


@given(
    st.text(alphabet="abc .é1", max_size=12),
    st.lists(st.floats(0.01, 1), min_size=12, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_any_line_stays_a_line(text: str, sure: list[float], seed: int) -> None:
    symbols = [
        Symbol(c, p, WIDTH * i, WIDTH * i + 1)
        for i, (c, p) in enumerate(zip(text, sure))  # noqa: B905
    ]
    rng = np.random.default_rng(seed)
    steps = Steps(
        rng.random(WIDTH * len(text), np.float32),
        rng.random((WIDTH * len(text), 1 + len(LETTERS)), np.float32),
    )
    words = ("abc", "cab", "aab", "bcca", "abba")
    made = weighed(symbols, steps, *words)
    assert text_of(made).count(" ") == text.count(" ")
    assert all(0 < s.confidence <= 1 for s in made)
    places = [s.centre for s in made]
    assert places == sorted(places)
    for before, after in zip(text.split(" "), text_of(made).split(" "), strict=True):
        assert before == after or after.strip(".é") in words


def test_letters_are_found_in_both_cases_or_not_at_all() -> None:
    lower = LETTERS[:26]
    known = ["", *lower, "%", *lower.upper(), *"0123456789"]
    pairs = letters_of(known)
    assert pairs is not None
    assert pairs[0] == (1, 28) and pairs[25] == (26, 53)
    assert pairs[26] == (54, 54) and pairs[35] == (63, 63)  # digits have one case
    assert letters_of(known[:-1]) is None
    assert letters_of(["", *LETTERS]) is None


@given(st.lists(st.sampled_from(["abc", "cab", "bba", "aa", "x", "."]), min_size=2, max_size=5))
def test_any_line_that_is_joined_keeps_its_letters(pieces: list[str]) -> None:
    symbols, steps = line(" ".join(pieces))
    words = frozenset({"abccab", "cabbba", "bbaabc"})
    made = weighed(symbols, steps, *words)
    assert text_of(made).replace(" ", "") == "".join(pieces)
    assert all(s in symbols for s in made)
    for word in text_of(made).split():
        assert word in pieces or word in words
