"""Bags of words and plates: what counts, and what does not."""

from __future__ import annotations

import pytest

from jobs.training.bags import Found, bag, reads_plate, score_bags


def found(text: str, x: float = 0, y: float = 0, confidence: float = 1.0) -> Found:
    return Found(text, confidence, (x, y, x + 10 * len(text), y + 20))


def test_a_bag_holds_words_of_three_letters_or_digits_by_those_alone() -> None:
    assert bag(["NO 122.124, Jalan", "RM 5.50"]) == {"122124": 1, "jalan": 1, "550": 1}


def test_scores_count_each_word_as_often_as_it_stands_there() -> None:
    gt = {"a": ["total total cash"], "b": ["change"]}
    pages = {"a": [found("total"), found("cash"), found("junk"), found("cash", confidence=0.1)]}
    score = score_bags(pages, gt, 0.25)
    assert (score.matched, score.wanted, score.found) == (2, 4, 3)
    assert score.f == pytest.approx(2 * 2 / 7)
    assert (score.recall, score.precision) == (0.5, pytest.approx(2 / 3))


def test_a_plate_is_read_by_a_word_or_by_words_beside_each_other() -> None:
    assert reads_plate([found("newyork"), found("abc1234", y=40)], "ABC 1234")
    assert reads_plate([found("1234", x=50), found("abc")], "ABC-1234")
    assert not reads_plate([found("1234", x=50, y=60), found("abc")], "ABC1234")
    assert not reads_plate([found("1234", x=300), found("abc")], "ABC1234")
    assert not reads_plate([found("abc12345")], "ABC1234")
    assert not reads_plate([], "ABC1234")
