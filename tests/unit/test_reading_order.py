from __future__ import annotations

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
    return PageWord(0, text, 0.9, (), 0.9, (min(xs), min(ys), max(xs), max(ys)), polygon, angle)


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
