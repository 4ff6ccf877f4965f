"""The list of words that weighs unsure readings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.spotting.dictionary import (
    MOST_SIMILAR,
    Dictionary,
    Slips,
    list_sha256,
    listed,
    number_format,
    words_of_lists,
)

LEAST = -6.0


def slips(
    text: str,
    replaced: Mapping[int, Mapping[str, float]] | None = None,
    inserted: Mapping[int, Mapping[str, float]] | None = None,
    omitted: Mapping[int, float] | None = None,
) -> Slips:
    """By place, with shares of the reading's likelihood instead of their logarithms."""

    def logs(shares: Mapping[str, float]) -> dict[str, float]:
        return {symbol: math.log(share) for symbol, share in shares.items()}

    return Slips(
        [logs((replaced or {}).get(i, {})) for i in range(len(text))],
        [logs((inserted or {}).get(i, {})) for i in range(len(text) + 1)],
        [math.log((omitted or {}).get(i, 1e-9)) for i in range(len(text))],
    )


def test_words_that_differ_where_the_reader_was_unsure_are_similar() -> None:
    dictionary = Dictionary(frozenset({"cat", "cart", "car", "cab", "dog"}), 8.0)
    assert dictionary.similar("cal", slips("cal"), LEAST) == {}
    found = dictionary.similar("cal", slips("cal", {2: {"t": 0.3, "b": 0.25, "n": 0.2}}), LEAST)
    assert list(found) == ["cat", "cab"]
    assert found["cat"] == pytest.approx(math.log(0.3))


def test_two_symbols_may_differ() -> None:
    dictionary = Dictionary(frozenset({"hour"}), 8.0)
    found = dictionary.similar("bout", slips("bout", {0: {"h": 0.8}, 3: {"r": 0.5}}), LEAST)
    assert found == pytest.approx({"hour": math.log(0.4)})


def test_a_symbol_may_be_missing_or_too_many() -> None:
    too_many = slips("cottonn", omitted={6: 0.5})
    assert list(Dictionary(frozenset({"cotton"}), 8.0).similar("cottonn", too_many, LEAST)) == [
        "cotton"
    ]
    for text, place, symbol, word in (("formula", 7, "s", "formulas"), ("venue", 0, "a", "avenue")):
        missing = slips(text, inserted={place: {symbol: 0.5}})
        assert list(Dictionary(frozenset({word}), 8.0).similar(text, missing, LEAST)) == [word]


def test_what_could_not_win_is_not_looked_at() -> None:
    unlikely = slips("mear", {0: {"y": 1 / 30}})
    # with odds of 8 a third of what would win is a 24th
    assert Dictionary(frozenset({"year"}), 8.0).similar("mear", unlikely, LEAST) == {}
    assert list(Dictionary(frozenset({"year"}), 80.0).similar("mear", unlikely, LEAST)) == ["year"]
    likely = slips("tear", {0: {"y": 0.2}})
    both = Dictionary(frozenset({"year", "tear"}), 8.0)
    assert both.similar("tear", likely, LEAST) == {}  # a listed word has the same odds
    assert list(Dictionary(frozenset({"year"}), 8.0).similar("tear", likely, LEAST)) == ["year"]


def test_only_the_likeliest_few_are_looked_at() -> None:
    dictionary = Dictionary(frozenset({"bat", "cat", "hat", "mat", "rat"}), 50.0)
    places = slips("lat", {0: {"m": 0.1, "b": 0.8, "r": 0.1, "c": 0.7, "h": 0.6}})
    assert list(dictionary.similar("lat", places, LEAST)) == ["bat", "cat"]
    assert MOST_SIMILAR == 2


def test_a_listed_word_weighs_as_its_odds_say() -> None:
    dictionary = Dictionary(frozenset({"year"}), 8.0)
    weights = dictionary.weigh("mear", {"mear": 0.6, "year": 0.2})
    # Bayes: 0.2 * 8 against 0.6 and all that is left, 1 - 0.2 in all
    assert weights == pytest.approx({"mear": 0.6 / 2.4, "year": 1.6 / 2.4})
    assert dictionary.weigh("mear", {"mear": 0.6}) == {"mear": 0.6}
    assert dictionary.weigh("year", {"year": 0.5})["year"] == pytest.approx(4 / 4.5)


@given(
    st.dictionaries(
        st.text(alphabet="abc01", min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=6
    ),
    st.floats(1.01, 100),
)
def test_weights_are_probabilities_and_odds_never_turn_round(
    given: dict[str, float], odds: float
) -> None:
    whole = sum(given.values())
    likelihoods = {w: p / whole if whole > 1 else p for w, p in given.items()}
    formats = frozenset({"LL0", "L0"})
    dictionary = Dictionary(frozenset({"abc", "cab", "aa"}), odds, formats=formats)
    read = max(likelihoods, key=lambda word: (likelihoods[word], word))
    weights = dictionary.weigh(read, likelihoods)
    assert sum(weights.values()) <= 1 + 1e-9
    for one, p in likelihoods.items():
        for other, q in likelihoods.items():
            if dictionary.odds_of(one, read) == dictionary.odds_of(other, read) and p >= q:
                assert weights[one] >= weights[other]


PLATES = Dictionary(frozenset({"kobe"}), 8.0, formats=frozenset({"LL0L0L", "LLL000"}))


def test_strings_of_a_listed_format_are_similar() -> None:
    assert number_format("ch0p8y") == "LL0L0L"
    assert list(PLATES.similar("ch0pby", slips("ch0pby", {4: {"8": 0.3}}), LEAST)) == ["ch0p8y"]
    two = slips("fk2xzzz", {4: {"2": 0.7}}, omitted={5: 0.6, 6: 0.5})
    assert PLATES.similar("fk2xzzz", two, LEAST) == {}  # two kinds of slips
    two = slips("fkzx2zz", {4: {"z": 0.9}}, omitted={5: 0.6})
    assert PLATES.similar("fkzx2zz", two, LEAST) == {}
    two = slips("fkzx2z", {2: {"2": 0.42}})
    assert PLATES.similar("fkzx2z", two, LEAST) == pytest.approx({"fk2x2z": math.log(0.42)})
    lost = slips("abc12", inserted={5: {"7": 0.4}})
    assert list(PLATES.similar("abc12", lost, LEAST)) == ["abc127"]
    assert PLATES.similar("0cab9", slips("0cab9", {0: {"o": 0.9}}), LEAST) == {}


def test_names_and_amounts_are_no_plates() -> None:
    formats = Dictionary(frozenset(), 8.0, formats=frozenset({"LL00LL", "L00000"}))
    doubts = slips("olsson", {2: {"5": 0.9}, 3: {"5": 0.9}})
    assert formats.similar("olsson", doubts, LEAST) == {}
    assert formats.similar("812345", slips("812345", {0: {"b": 0.9}}), LEAST) == {}


def test_a_reading_in_a_format_stays_as_it_is_and_as_sure() -> None:
    unsure = slips("osg719", {0: {"c": 0.9}, 2: {"6": 0.9}, 3: {"1": 0.9}})
    assert PLATES.similar("osg719", unsure, LEAST) == {}
    assert PLATES.weigh("osg719", {"osg719": 0.5}) == {"osg719": 0.5}
    own = Dictionary(frozenset(), 8.0, own=frozenset({"csg719"}), formats=PLATES.formats)
    assert list(own.similar("osg719", unsure, LEAST)) == ["csg719"]
    word = Dictionary(frozenset({"village"}), 8.0, formats=frozenset({"LL00LLL"}))
    weights = word.weigh("vi11age", {"vi11age": 0.25, "village": 0.2})
    assert weights["village"] == pytest.approx(1.6 / 2.4)


def test_a_string_of_a_format_weighs_as_a_listed_word() -> None:
    weights = PLATES.weigh("ch0pby", {"ch0pby": 0.6, "ch0p8y": 0.2})
    assert weights == pytest.approx({"ch0pby": 0.6 / 2.4, "ch0p8y": 1.6 / 2.4})
    assert PLATES.odds_of("kobe", "ch0pby") == PLATES.odds_of("ch0p8y", "ch0pby") == 8
    assert PLATES.odds_of("ch0pby", "ch0pby") == PLATES.odds_of("osg719", "osg719") == 1


def test_numbers_do_not_crowd_words_out() -> None:
    both = Dictionary(frozenset({"hollow"}), 8.0, formats=frozenset({"L00LLL", "LL00LL"}))
    doubts = slips("ho1low", {1: {"0": 0.9}, 2: {"l": 0.5}, 3: {"1": 0.8}})
    assert list(both.similar("ho1low", doubts, LEAST)) == ["hollow", "h01low", "ho11ow"]


def test_the_formats_of_number_plates() -> None:
    formats = listed("plates")
    assert {"LLL0000", "LL00LLL", "0000LLL"} <= formats
    # words, years, prices and telephone numbers have none of them
    assert all(set(plate) == {"L", "0"} and 5 <= len(plate) <= 10 for plate in formats)


def test_the_list_of_english_words() -> None:
    english = listed("english")
    assert {"exit", "sale", "arrival", "colour", "color", "mrt"} <= english
    assert len(english) > 100_000
    assert all(len(word) >= 3 and word.isascii() and word.isalnum() for word in english)
    assert all(word == word.lower() for word in english)
    assert len(list_sha256("english")) == 64


def test_spelling_dictionaries_give_their_words() -> None:
    lines = ["Exit", "exit", "it's", "no", "café", " sale \n", "24hrs"]
    symbols = "abcdefghijklmnopqrstuvwxyz0123456789"
    assert words_of_lists(lines, symbols) == ["24hrs", "exit", "sale"]
