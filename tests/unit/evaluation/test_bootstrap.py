from __future__ import annotations

import random

import pytest

from jobs.training.thresholds import best, sweep
from textspot_ray.errors import UsageError
from textspot_ray.evaluation.bootstrap import compare_scores, hmean_interval
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.lexicon import Lexicon, apply_lexicon, read_lexicon
from textspot_ray.evaluation.matching import Scores, evaluate, measure
from textspot_ray.evaluation.rules import Rules

BOX = (0.0, 0.0, 40.0, 0.0, 40.0, 20.0, 0.0, 20.0)


def scored(right: list[bool]) -> Scores:
    gt = {f"i{n}": [GtWord(BOX, "word")] for n in range(len(right))}
    read = {f"i{n}": [Predicted(BOX, "word" if ok else "ward")] for n, ok in enumerate(right)}
    return evaluate(gt, read)


def test_same_run_twice_differs_by_nothing() -> None:
    scores = scored([True, False] * 20)
    found = compare_scores(scores, scores, draws=500)
    assert (found.difference.low, found.difference.estimate, found.difference.high) == (0, 0, 0)
    assert found.share_not_better == 1


def test_two_words_in_a_hundred_photos_are_within_chance() -> None:
    rng = random.Random(1)
    a = [rng.random() < 0.5 for _ in range(100)]
    b = list(a)
    flips = [n for n, ok in enumerate(a) if not ok][:3] + [n for n, ok in enumerate(a) if ok][:1]
    for n in flips:
        b[n] = not b[n]
    found = compare_scores(scored(a), scored(b), draws=2000)
    assert found.difference.estimate == pytest.approx(0.02)
    assert found.difference.low < 0 < found.difference.high


def test_a_large_gain_is_beyond_chance_and_pairing_narrows() -> None:
    a = [n % 2 == 0 for n in range(100)]
    b = [n % 2 == 0 or n % 5 == 1 for n in range(100)]
    found = compare_scores(scored(a), scored(b), draws=2000)
    assert found.difference.low > 0
    alone = hmean_interval(scored(b), draws=2000)
    assert found.difference.high - found.difference.low < alone.high - alone.low
    assert alone.low < alone.estimate < alone.high


def test_other_images_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="same ground truth"):
        compare_scores(scored([True]), scored([True, True]))


def test_the_sweep_finds_the_threshold_that_drops_the_wrong_reading() -> None:
    gt = {"a": [GtWord(BOX, "word")]}
    read = {"a": [Predicted(BOX, "ward", 0.2, 0.9), Predicted(BOX, "word", 0.8, 0.6)]}
    point = best(sweep(measure(gt, read), Rules()))
    assert point.figures.hmean == 1
    assert 0.2 < point.text_threshold <= 0.8 and point.detection_threshold <= 0.6


def test_lexicon_takes_the_nearest_word_and_drops_the_rest(tmp_path: object) -> None:
    read = {
        "a": [Predicted(BOX, "stree"), Predicted(BOX, "qqqqq"), Predicted(BOX, "SALE")],
        "b": [Predicted(BOX, "sele")],
    }
    fixed = apply_lexicon(read, Lexicon(shared=("Sale", "Sole", "STREET")))
    assert [item.text for item in fixed["a"]] == ["STREET", "Sale"]
    assert [item.text for item in fixed["b"]] == ["Sale"]  # of equals the earlier line


def test_strong_lexicon_is_looked_up_by_image(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "voc_a.txt").write_bytes("\ufeffSale\r\n".encode())
    (tmp_path / "voc_b.txt").write_text("Sole\n")
    read = {
        "a": [Predicted(BOX, "sxle")],
        "b": [Predicted(BOX, "sxle")],
        "c": [Predicted(BOX, "x")],
    }
    fixed = apply_lexicon(read, read_lexicon(tmp_path))
    assert [item.text for key in "abc" for item in fixed[key]] == ["Sale", "Sole"]
    with pytest.raises(UsageError, match="cannot read"):
        read_lexicon(tmp_path / "missing.zip")
