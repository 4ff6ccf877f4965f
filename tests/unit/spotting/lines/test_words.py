"""Words of a line: places, order of scripts that run from right to left, confidences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.records import Detection, Reading
from textspot_ray.spotting.lines.words import split_line, words_of_line

LINE = Detection(0.9, (0.0, 0.0, 200.0, 40.0), (0, 0, 200, 0, 200, 40, 0, 40), 0.0)


def read(text: str, places: list[float] | None = None, turned: bool = False) -> Reading:
    n = len(text)
    even = [(i + 0.5) / n for i in range(n)] if places is None else places
    sure = tuple(0.9 - 0.01 * i for i in range(n))
    return Reading(text, math.prod(sure), sure, tuple(even), turned)


def texts(text: str) -> list[str]:
    return [word.text for word in words_of_line(0, LINE, read(text))]


def test_words_lie_side_by_side_at_their_characters() -> None:
    first, second = words_of_line(
        7, LINE, read("ab cde.", [0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8]), 0.5
    )
    assert (first.text, second.text, first.line, second.line) == ("ab", "cde.", 7, 7)
    assert first.box == pytest.approx((0.1 * 200 - 0.65 * 20, 10, 0.2 * 200 + 0.65 * 20, 30))
    assert second.box == pytest.approx((0.5 * 200 - 0.65 * 20, 10, 0.8 * 200 + 0.65 * 20, 30))
    assert first.polygon[:4] == pytest.approx((7, 10, 53, 10))
    assert first.char_confidences == (0.9, 0.89)
    assert first.text_confidence == pytest.approx(0.9 * 0.89)
    assert second.char_confidences[0] == pytest.approx(0.87)  # the space's is no word's


def test_close_words_part_half_way() -> None:
    first, second = words_of_line(0, LINE, read("ab cd", [0.1, 0.3, 0.35, 0.4, 0.6]))
    assert first.box[2] == pytest.approx(0.35 * 200)
    assert second.box[0] == pytest.approx(0.35 * 200)


def test_a_lone_character_is_about_as_wide_as_half_its_height() -> None:
    (word,) = words_of_line(0, LINE, read("7", [0.5]))
    assert word.box[2] - word.box[0] == pytest.approx(1.3 * 20)


def test_scripts_without_spaces_stay_one_word() -> None:
    assert texts("東京都渋谷区") == ["東京都渋谷区"]
    assert texts("名前　山田") == ["名前", "山田"]  # but an ideographic space is one


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        ("Hello, World!", ["Hello,", "World!"]),
        ("םולש", ["שלום"]),
        ("םלוע םולש", ["שלום", "עולם"]),
        ("12:30 העשב", ["בשעה", "12:30"]),  # numbers keep their order
        ("No 7 הגפוסל אלמ גבא", ["אבג", "מלא", "לסופגה", "No", "7"]),  # and so do other words
        ("2024 ماع", ["عام", "2024"]),
        ("abc123 םולש def", ["abc123", "שלום", "def"]),  # most of it runs from left to right
        ("see םלוע םולש overthere", ["see", "שלום", "עולם", "overthere"]),
    ],
)
def test_right_to_left_comes_in_logical_order(seen: str, wanted: list[str]) -> None:
    assert texts(seen) == wanted


def test_places_follow_the_logical_order() -> None:
    first, second = words_of_line(0, LINE, read("םלוע םולש"))
    assert first.box[0] > second.box[0]  # the first word is the right one
    assert first.char_confidences[0] < first.char_confidences[-1]  # it was seen last


def test_a_line_upside_down_starts_at_its_other_corner() -> None:
    (word,) = words_of_line(0, LINE, read("abcd", [0.1, 0.2, 0.3, 0.4], turned=True))
    assert abs(word.angle_deg) == pytest.approx(180)
    assert word.box[0] > 100  # its first half is the picture's right
    assert word.polygon[0] > word.polygon[2]


def test_a_line_without_text_has_no_words() -> None:
    assert words_of_line(0, LINE, Reading("", 0.0, ())) == ()
    assert words_of_line(0, LINE, read("   ")) == ()


@given(st.text(alphabet="ab אב12.", max_size=20), st.floats(1, 40))
def test_every_character_is_in_one_word_inside_the_line(text: str, aspect: float) -> None:
    places = [(i + 0.5) / max(len(text), 1) for i in range(len(text))]
    spans = split_line(text, places, aspect)
    used = sorted(i for span in spans for i in span.characters)
    assert used == [i for i, c in enumerate(text) if not c.isspace()]
    for span in spans:
        assert 0 <= span.start < span.end <= 1
        assert all(span.start < places[i] < span.end for i in span.characters)
