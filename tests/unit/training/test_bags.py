"""Bags of words and plates: what counts, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training.bags import (
    Found,
    bag,
    bag_of_runs,
    read_rival,
    reads_plate,
    score_bags,
)


def found(text: str, x: float = 0, y: float = 0, confidence: float = 1.0) -> Found:
    return Found(text, confidence, (x, y, x + 10 * len(text), y + 20))


def test_a_bag_holds_words_of_three_letters_or_digits_by_those_alone() -> None:
    assert bag(["NO 122.124, Jalan", "RM 5.50"]) == {"122124": 1, "jalan": 1, "550": 1}


def test_runs_are_cut_at_all_that_is_no_letter_or_digit() -> None:
    assert bag_of_runs(["NO 122.124, Crème-brûlée", "RM 5.50"]) == {
        "122": 1, "124": 1, "creme": 1, "brulee": 1
    }  # fmt: skip
    pages = {"a": [Found("ab12cde", 1.0, (0, 0, 0, 0), "AB12/cde")]}
    assert score_bags(pages, {"a": ["ab12 CDE"]}, 0.5, runs=True).f == 1
    assert score_bags(pages, {"a": ["ab12 CDE"]}, 0.5).f == 0


def test_a_rivals_lines_are_counted_by_the_same_rule(tmp_path: Path) -> None:
    file = tmp_path / "rival.jsonl"
    file.write_text('{"image": "p1.jpg", "lines": ["ABC 1234", "Texas"]}\n')
    pages, least = read_rival(file)
    assert least == 0
    assert reads_plate(pages["p1"], "abc-1234") and reads_plate(pages["p1"], "texas")
    assert not reads_plate(pages["p1"], "1234texas")
    assert score_bags(pages, {"p1": ["abc 1234 texas"]}, 0.0).f == 1


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
    line = [
        Found("abc", 1.0, (0, 0, 30, 20), line=3),
        Found("1234", 1.0, (300, 0, 340, 20), line=3),
    ]
    assert reads_plate(line, "ABC1234")
