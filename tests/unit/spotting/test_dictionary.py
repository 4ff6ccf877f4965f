"""The list of words that weighs unsure readings."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.errors import BundleError
from textspot_ray.spotting.dictionary import (
    MOST_CANDIDATES,
    Dictionary,
    listed_words,
    read_dictionary,
)

ALPHABET = string.ascii_lowercase + string.digits
END = ""


def steps(*places: dict[str, float]) -> np.ndarray:
    """Probabilities at each place; what is not named is next to impossible."""
    table = np.full((len(places), 1 + len(ALPHABET)), 1e-9)
    for row, place in zip(table, places, strict=True):
        for symbol, probability in place.items():
            row[0 if symbol == END else 1 + ALPHABET.index(symbol)] = probability
    return table


def sure(text: str) -> list[dict[str, float]]:
    """Places at which the reader is sure, the end included."""
    return [{symbol: 0.99} for symbol in text] + [{END: 0.99}]


def test_words_that_differ_where_the_reader_was_unsure_are_similar() -> None:
    dictionary = Dictionary(frozenset({"cat", "cart", "car", "cab", "dog"}), 8.0)
    places = sure("cal")
    assert dictionary.similar("cal", steps(*places), ALPHABET) == []
    places[2] = {"l": 0.6, "t": 0.2, "b": 0.15}
    assert dictionary.similar("cal", steps(*places), ALPHABET) == ["cat", "cab"]


def test_two_symbols_may_differ() -> None:
    places = [{"b": 0.5, "h": 0.4}, {"o": 0.99}, {"u": 0.99}, {"t": 0.5, "r": 0.4}, {END: 0.99}]
    dictionary = Dictionary(frozenset({"hour"}), 8.0)
    assert dictionary.similar("bout", steps(*places), ALPHABET) == ["hour"]


def test_a_symbol_may_be_missing_or_too_many() -> None:
    places = [*sure("cotton")[:-1], {"n": 0.6, END: 0.3}, {END: 0.99}]
    cotton = Dictionary(frozenset({"cotton"}), 8.0)
    assert cotton.similar("cottonn", steps(*places), ALPHABET) == ["cotton"]
    places = [*sure("formula")[:-1], {END: 0.6, "s": 0.3}]
    formulas = Dictionary(frozenset({"formulas"}), 8.0)
    assert formulas.similar("formula", steps(*places), ALPHABET) == ["formulas"]
    places = [{"v": 0.5, "a": 0.4}, *sure("enue")]
    avenue = Dictionary(frozenset({"avenue"}), 8.0)
    assert avenue.similar("venue", steps(*places), ALPHABET) == ["avenue"]


def test_a_digit_may_stand_for_a_letter() -> None:
    places = [{"5": 0.5, "s": 0.4}, *sure("ale")]
    assert Dictionary(frozenset({"sale"}), 8.0).similar("5ale", steps(*places), ALPHABET) == [
        "sale"
    ]


def test_what_could_not_win_is_not_looked_at() -> None:
    places = [{"m": 0.6, "y": 0.02}, *sure("ear")]
    # 0.02 is a thirtieth of 0.6: with odds of 8 a third of that is out of reach
    assert Dictionary(frozenset({"year"}), 8.0).similar("mear", steps(*places), ALPHABET) == []
    assert Dictionary(frozenset({"year"}), 80.0).similar("mear", steps(*places), ALPHABET) == [
        "year"
    ]
    places[0] = {"t": 0.6, "y": 0.1}
    both = Dictionary(frozenset({"year", "tear"}), 8.0)
    assert both.similar("tear", steps(*places), ALPHABET) == []  # a listed word has the same odds


def test_only_the_likeliest_few_are_read_to_the_end() -> None:
    places = [{"l": 0.3, "b": 0.2, "c": 0.15, "h": 0.1, "m": 0.05, "r": 0.04}, *sure("at")]
    dictionary = Dictionary(frozenset({"bat", "cat", "hat", "mat", "rat"}), 50.0)
    assert dictionary.similar("lat", steps(*places), ALPHABET) == ["bat", "cat"]
    assert MOST_CANDIDATES == 2


def test_a_listed_word_weighs_as_its_odds_say() -> None:
    dictionary = Dictionary(frozenset({"year"}), 8.0)
    weights = dictionary.weigh({"mear": 0.6, "year": 0.2})
    # Bayes: 0.2 * 8 against 0.6 and all that is left, 1 - 0.2 in all
    assert weights == pytest.approx({"mear": 0.6 / 2.4, "year": 1.6 / 2.4})
    assert dictionary.weigh({"mear": 0.6}) == {"mear": 0.6}
    assert dictionary.weigh({"year": 0.5})["year"] == pytest.approx(4 / 4.5)


@given(
    st.dictionaries(
        st.text(alphabet="abc", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=6
    ),
    st.floats(1.01, 100),
)
def test_weights_are_probabilities_and_odds_never_turn_round(
    given: dict[str, float], odds: float
) -> None:
    whole = sum(given.values())
    likelihoods = {w: p / whole if whole > 1 else p for w, p in given.items()}
    dictionary = Dictionary(frozenset({"abc", "cab", "aa"}), odds)
    weights = dictionary.weigh(likelihoods)
    assert sum(weights.values()) <= 1 + 1e-9
    for one, p in likelihoods.items():
        for other, q in likelihoods.items():
            if (one in dictionary.words) == (other in dictionary.words) and p >= q:
                assert weights[one] >= weights[other]


def test_a_list_is_read_a_word_a_line(tmp_path: Path) -> None:
    path = tmp_path / "dictionary.txt"
    path.write_text("exit\nsale\n")
    assert read_dictionary(path, 8.0, ALPHABET) == Dictionary(frozenset({"exit", "sale"}), 8.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exit\nSale\n", "line 2 is not 3 or more symbols"),
        ("exit\nno\n", "line 2 is not 3 or more symbols"),
        ("exit\n\nsale\n", "line 2 is not"),
        ("café\n", "line 1 is not"),
        ("", "no words"),
    ],
)
def test_lines_that_are_no_words_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "dictionary.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=told) as caught:
        read_dictionary(path, 8.0, ALPHABET)
    assert str(path) in str(caught.value)


def test_a_dictionary_gives_its_words_of_the_alphabet() -> None:
    lines = ["Exit", "exit", "it's", "no", "café", " sale \n", "24hrs"]
    assert listed_words(lines, ALPHABET) == ["24hrs", "exit", "sale"]
