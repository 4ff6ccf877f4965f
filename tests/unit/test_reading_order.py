from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.query.pages import PageWord
from textspot_ray.reading_order import line_indices, text_lines
from textspot_ray.records import Word


def placed(
    text: str, x: float, y: float, width: float = 40, height: float = 16, degrees: float = 0
) -> PageWord:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    turned = [(px * c - py * s + 500, px * s + py * c + 500) for px, py in corners]
    xs, ys = [p[0] for p in turned], [p[1] for p in turned]
    angle = degrees if degrees <= 180 else degrees - 360
    polygon = tuple(v for p in turned for v in p)
    return PageWord(text, 0.9, (), 0.9, (min(xs), min(ys), max(xs), max(ys)), polygon, angle)


def texts(words: list[PageWord]) -> list[str]:
    return [" ".join(word.text for word in line) for line in text_lines(words)]


def test_words_become_lines_from_top_to_bottom() -> None:
    words = [
        placed("world", 50, 0),
        placed("day", 60, 30),
        placed("hello", 0, 0),
        placed("good", 10, 30),
    ]
    assert texts(words) == ["hello world", "good day"]


def test_columns_far_apart_are_lines_of_their_own() -> None:
    words = [placed("left", 0, 0), placed("right", 300, 2), placed("below", 0, 30)]
    assert texts(words) == ["left", "right", "below"]


def test_large_and_small_words_are_not_one_line() -> None:
    assert texts([placed("big", 0, 0, 120, 60), placed("small", 130, 20, 30, 10)]) == [
        "big",
        "small",
    ]


def test_the_nearer_of_two_followers_is_taken() -> None:
    words = [placed("a", 0, 0), placed("c", 95, 0), placed("b", 45, 0)]
    assert texts(words) == ["a b c"]


def test_a_slightly_slanted_line_stays_one() -> None:
    words = [placed(str(n), 45 * n, 4 * n) for n in range(6)]
    assert texts(words) == ["0 1 2 3 4 5"]


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 135, 180, 225, 270, 315])
def test_turned_text_is_read_in_its_own_direction(degrees: int) -> None:
    words = [placed(t, 45 * n, 0, degrees=degrees) for n, t in enumerate("abc")]
    random.Random(degrees).shuffle(words)
    assert texts(words) == ["a b c"]


def test_nothing_gives_nothing() -> None:
    assert text_lines([]) == []


coordinate = st.floats(-500, 500)


@given(
    st.lists(
        st.tuples(coordinate, coordinate, st.floats(1, 90), st.floats(1, 40), st.floats(-180, 180)),
        max_size=25,
    )
)
def test_every_word_is_in_exactly_one_line(
    items: list[tuple[float, float, float, float, float]],
) -> None:
    words = [placed(str(n), *item) for n, item in enumerate(items)]
    found = sorted(int(word.text) for line in text_lines(words) for word in line)
    assert found == list(range(len(words)))


def test_a_crowded_image_takes_seconds_at_most() -> None:
    rng = random.Random(0)
    words = [placed("w", rng.uniform(0, 9000), rng.uniform(0, 9000)) for _ in range(2000)]
    assert sum(len(line) for line in text_lines(words)) == 2000


def read(text: str, x: float, y: float, line: int | None) -> Word:
    at = placed(text, x, y)
    return Word(text, 0.9, (), 0.9, at.box, at.polygon, 0.0, line)


def test_lines_that_the_model_read_stay_together_in_the_order_of_their_text() -> None:
    words = [
        read("end", 400, 0, 1),  # too far away to be a neighbour
        read("below", 0, 40, 0),
        read("start", 0, 0, 1),
        read("alone", 50, 40, None),
    ]
    assert [[w.text for w in line] for line in text_lines(words)] == [
        ["start", "end"],
        ["below"],
        ["alone"],
    ]
    assert line_indices(words) == [0, 1, 0, 2]
    assert line_indices([]) == []


def column(text: str, x: float, y: float, lines: int, pitch: float = 30) -> list[PageWord]:
    """Lines of two words each, below one another."""
    return [
        word
        for n in range(lines)
        for word in (
            placed(f"{text}{n}", x, y + pitch * n),
            placed("more", x + 45, y + pitch * n, 50),
        )
    ]


def firsts(words: list[PageWord]) -> str:
    return " ".join(text.split()[0] for text in texts(words))


@pytest.mark.parametrize("offset", [0, 4, 8, 15])
def test_columns_are_read_one_after_the_other(offset: int) -> None:
    words = [
        placed("title", 120, -60, 100, 20),
        *column("a", 0, 0, 5),
        *column("b", 300, offset, 5),
        placed("foot", 120, 220, 120),
    ]
    random.Random(offset).shuffle(words)
    assert firsts(words) == "title a0 a1 a2 a3 a4 b0 b1 b2 b3 b4 foot"


def test_three_columns_of_unlike_length() -> None:
    words = [*column("a", 0, 0, 6), *column("b", 300, 8, 4), *column("c", 600, 5, 5)]
    assert firsts(words) == "a0 a1 a2 a3 a4 a5 b0 b1 b2 b3 c0 c1 c2 c3 c4"


def test_two_stacked_pairs_of_columns() -> None:
    words = [
        *column("a", 0, 0, 3),
        *column("b", 300, 5, 3),
        placed("middle", 60, 110, 300),
        *column("c", 0, 160, 3),
        *column("d", 250, 165, 3),
    ]
    assert firsts(words) == "a0 a1 a2 b0 b1 b2 middle c0 c1 c2 d0 d1 d2"


def test_rows_of_a_receipt_stay_rows() -> None:
    words = []
    for n, (name, price) in enumerate([("tea", "3.50"), ("rice", "12.00"), ("soup", "9.10")]):
        words += [placed(name, 0, 30 * n, 90), placed("large", 95, 30 * n)]
        words += [placed("1", 220, 30 * n, 8), placed(price, 330, 30 * n + 2)]
    assert texts(words) == [
        *("tea large", "1", "3.50", "rice large", "1", "12.00", "soup large", "1", "9.10")
    ]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_columns_of_a_turned_page(degrees: int) -> None:
    turned = []
    for x, name in ((0, "a"), (300, "b")):
        for n in range(4):
            at = math.radians(degrees)
            px, py = x, 30 * n + (8 if x else 0)
            c, s = math.cos(at), math.sin(at)
            corner = (px * c - py * s, px * s + py * c)
            flat = placed(f"{name}{n}", 0, 0, 90, 16, degrees)
            polygon = tuple(v + corner[k % 2] for k, v in enumerate(flat.polygon))
            turned.append(dataclasses.replace(flat, polygon=polygon))
    random.Random(degrees).shuffle(turned)
    assert texts(turned) == ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "b3"]
