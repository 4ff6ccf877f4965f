from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.matching import Figures, Scores, evaluate, measure, score
from textspot_ray.evaluation.rules import (
    Rules,
    ScoringTask,
    Variant,
    alphanumeric_text,
    spotting_text,
)

AC = Rules(variant=Variant.ACCURACY_CHECKER)
E2E = Rules(task=ScoringTask.END_TO_END)
DETECTION = Rules(task=ScoringTask.DETECTION)
ALPHANUMERIC = Rules(task=ScoringTask.ALPHANUMERIC)


def rectangle(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return (x, y, x + width, y, x + width, y + height, x, y + height)


BOX = rectangle(10, 10, 100, 20)
HALF = rectangle(10, 10, 50, 20)  # IoU with BOX is exactly 0.5


def run(gt: list[GtWord], predictions: list[Predicted], rules: Rules | None = None) -> Figures:
    return evaluate({"a": gt}, {"a": predictions}, rules).figures


def test_a_right_word_counts_whatever_its_case() -> None:
    assert run([GtWord(BOX, "TopMan")], [Predicted(BOX, "topman")]) == Figures(1, 1, 1)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("BROOKS", "BROOKS"),
        ("Debenham's", "Debenham"),
        ("JOE'S", "JOE"),
        ("-hyphen-", "hyphen"),
        ("co-op", "co-op"),
        ("Sale!", "Sale"),
        ("(open)", "open"),
        ("Café", "Café"),
        ("Straße", "Straße"),
        ("a.b", None),  # inner special character becomes an inner space
        ("it's", None),  # two letters are left
        ("to", None),
        ("A380", None),  # digits
        ("2nd", None),
        ("new york", None),
        ("×××", None),
        ("a÷b", None),
        ("$$$", None),
        ("", None),
    ],
)
def test_word_spotting_asks_for_letters_only(text: str, form: str | None) -> None:
    assert spotting_text(text) == form
    expected = Figures(0, 0, 0) if form is None else Figures(1, 1, 1)
    assert run([GtWord(BOX, text)], [Predicted(BOX, form or "any")]) == expected


def test_the_prediction_is_not_normalised() -> None:
    assert run([GtWord(BOX, "Sale!")], [Predicted(BOX, "sale!")]).matched == 0


def test_prediction_in_a_dont_care_region_is_left_out() -> None:
    gt = [GtWord(BOX, "###")]
    assert run(gt, [Predicted(BOX, "x")]) == Figures(0, 0, 0)
    assert run(gt, [Predicted(rectangle(300, 300, 9, 9), "x")]) == Figures(0, 0, 1)


def test_share_of_exactly_one_half_splits_the_variants() -> None:
    gt = [GtWord(HALF, "###")]
    assert run(gt, [Predicted(BOX, "x")]) == Figures(0, 0, 1)
    assert run(gt, [Predicted(BOX, "x")], AC) == Figures(0, 0, 0)


def test_iou_of_exactly_one_half_splits_the_variants() -> None:
    gt, predictions = [GtWord(BOX, "word")], [Predicted(HALF, "word")]
    assert run(gt, predictions) == Figures(0, 1, 1)
    assert run(gt, predictions, AC) == Figures(1, 1, 1)


def test_two_dont_care_regions_are_not_added_up() -> None:
    left, right = rectangle(10, 10, 40, 20), rectangle(50, 10, 40, 20)
    gt = [GtWord(left, "###"), GtWord(right, "###")]
    assert run(gt, [Predicted(BOX, "x")]) == Figures(0, 0, 1)


def test_wrong_text_uses_up_word_and_box_by_the_organisers_rules() -> None:
    gt = [GtWord(BOX, "word")]
    predictions = [Predicted(BOX, "ward"), Predicted(BOX, "word")]
    assert run(gt, predictions) == Figures(0, 1, 2)
    assert run(gt, predictions, AC) == Figures(1, 1, 2)


def test_words_and_predictions_are_used_once() -> None:
    assert run([GtWord(BOX, "word")], [Predicted(BOX, "word")] * 3) == Figures(1, 1, 3)
    assert run([GtWord(BOX, "word")] * 3, [Predicted(BOX, "word")]) == Figures(1, 3, 1)


def test_first_ground_truth_takes_the_first_prediction() -> None:
    near = rectangle(12, 10, 100, 20)
    gt = [GtWord(BOX, "one"), GtWord(near, "two")]
    # "two" comes first and overlaps "one" too: both are consumed, then "one" meets "two"
    assert run(gt, [Predicted(near, "two"), Predicted(BOX, "one")]) == Figures(0, 2, 2)
    assert run(gt, [Predicted(near, "two"), Predicted(BOX, "one")], AC) == Figures(2, 2, 2)


def test_predictions_are_cut_to_integers() -> None:
    # 51.9 x 20.9 px would be enough; cut to 50 x 20 it is exactly one half
    exact = (10.9, 10.9, 60.9, 10.9, 60.9, 30.9, 10.9, 30.9)
    assert run([GtWord(BOX, "word")], [Predicted(exact, "word")]).matched == 0


@pytest.mark.parametrize(
    ("wanted", "read", "right"),
    [
        ("2nd", "2ND", True),
        ("to", "to", True),
        ("Sale!", "sale", True),
        ("(sale)", "sale", True),
        ("(sale)", "sale)", True),
        ("sale!!", "sale", False),  # one character at an end, not two
        ("a.b", "ab", False),
        ("sale", "sale!", False),  # on the ground truth's side only
        ("!", "", True),
    ],
)
def test_end_to_end_lets_one_special_character_at_the_ends_go(
    wanted: str, read: str, right: bool
) -> None:
    assert run([GtWord(BOX, wanted)], [Predicted(BOX, read)], E2E) == Figures(int(right), 1, 1)


def test_end_to_end_ignores_only_marked_regions() -> None:
    gt = [GtWord(BOX, "###"), GtWord(rectangle(0, 100, 50, 20), "x1")]
    predictions = [Predicted(BOX, "?"), Predicted(rectangle(0, 100, 50, 20), "x1")]
    assert run(gt, predictions, E2E) == Figures(1, 1, 1)
    assert run(gt, predictions) == Figures(0, 0, 0)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("A380", "a380"),
        ("to", "to"),
        ("7", "7"),
        ("$46.50", "4650"),
        ("O'Neil-Smith!", "oneilsmith"),
        ("Café", None),
        ("日本", None),
        ("x²", None),
        ("&", None),
        ("###", None),
    ],
)
def test_by_letters_and_digits_every_word_counts_that_the_alphabet_can_spell(
    text: str, form: str | None
) -> None:
    assert alphanumeric_text(text) == form
    expected = Figures(0, 0, 0) if form is None else Figures(1, 1, 1)
    read = [Predicted(BOX, form or "any")]
    assert run([GtWord(BOX, text)], read, ALPHANUMERIC) == expected
    if form is not None:
        wrong = [Predicted(BOX, form + "x")]
        assert run([GtWord(BOX, text)], wrong, ALPHANUMERIC) == Figures(0, 1, 1)


def test_detection_looks_at_boxes_alone() -> None:
    gt = [GtWord(BOX, "12"), GtWord(rectangle(0, 100, 50, 20), "###")]
    predictions = [Predicted(BOX, "no"), Predicted(rectangle(0, 100, 50, 20), "no")]
    assert run(gt, predictions, DETECTION) == Figures(1, 1, 1)


def test_accuracy_checker_reads_only_what_follows_the_last_comma() -> None:
    gt = [GtWord(BOX, "10,STRAPS")]
    assert run(gt, [Predicted(BOX, "straps")], AC) == Figures(1, 1, 1)
    assert run([GtWord(BOX, "STRAPS,")], [Predicted(BOX, "straps")], AC) == Figures(0, 0, 0)
    assert run([GtWord(BOX, "STRAPS,")], [Predicted(BOX, "straps")]) == Figures(1, 1, 1)


@pytest.mark.parametrize("task", [ScoringTask.END_TO_END, ScoringTask.ALPHANUMERIC])
def test_accuracy_checker_has_no_such_task(task: ScoringTask) -> None:
    with pytest.raises(ValueError, match=task.value):
        Rules(task=task, variant=Variant.ACCURACY_CHECKER)


def test_image_without_predictions_counts_its_words_as_missed() -> None:
    scores = evaluate(
        {"a": [GtWord(BOX, "word")], "b": [GtWord(BOX, "word")]},
        {
            "b": [Predicted(BOX, "word")],
            "unknown": [Predicted(BOX, "word")],
        },
    )
    assert scores.figures == Figures(1, 2, 1)
    assert scores.figures.hmean == pytest.approx(2 / 3)


def test_no_words_and_no_predictions_divide_by_nothing() -> None:
    figures = run([], [])
    assert (figures.recall, figures.precision, figures.hmean) == (0, 0, 0)


def test_degenerate_quads_do_not_stop_the_evaluation() -> None:
    bow_tie = (0, 0, 100, 20, 100, 0, 0, 20)
    point = (5.0,) * 8
    predictions = [Predicted(bow_tie, "word"), Predicted(point, "word"), Predicted(BOX, "word")]
    assert run([GtWord(BOX, "word")], predictions) == Figures(1, 1, 3)


def test_account_names_missed_wrong_and_spurious() -> None:
    far = rectangle(500, 500, 40, 20)
    gt = [GtWord(BOX, "word"), GtWord(rectangle(0, 100, 50, 20), "gone")]
    image = evaluate({"a": gt}, {"a": [Predicted(BOX, "ward"), Predicted(far, "x")]}).images[0]
    assert (image.wrong, image.missed, image.spurious) == (1, (1,), (1,))


def test_keep_drops_predictions_before_matching() -> None:
    measured = measure(
        {"a": [GtWord(BOX, "word")]},
        {"a": [Predicted(BOX, "ward", 0.1), Predicted(BOX, "word", 0.9)]},
    )
    assert score(measured, Rules()).figures == Figures(0, 1, 2)
    kept: Scores = score(measured, Rules(), lambda item: item.text_confidence > 0.5)
    assert kept.figures == Figures(1, 1, 1)


words = st.text(alphabet="abcdefgh", min_size=3, max_size=8)


@given(st.lists(words, min_size=1, max_size=8))
def test_ground_truth_as_prediction_scores_one(texts: list[str]) -> None:
    gt = [GtWord(rectangle(0, 40 * n, 90, 30), text) for n, text in enumerate(texts)]
    predictions = [Predicted(word.polygon, word.text) for word in gt]
    for rules in (Rules(), AC, E2E, DETECTION):
        figures = run(gt, predictions, rules)
        assert (figures.hmean, figures.matched) == (1.0, len(texts))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), words), max_size=6),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), words), max_size=6),
)
def test_the_checker_is_never_harsher_on_matches_than_its_counts_allow(
    gt_items: list[tuple[int, int, str]], items: list[tuple[int, int, str]]
) -> None:
    gt = [GtWord(rectangle(x, y, 40, 20), text) for x, y, text in gt_items]
    predictions = [Predicted(rectangle(x, y, 40, 20), text) for x, y, text in items]
    for rules in (Rules(), AC, E2E, DETECTION):
        figures = run(gt, predictions, rules)
        assert 0 <= figures.matched <= min(figures.wanted, figures.predicted)
    assert run(gt, predictions, AC).matched >= run(gt, predictions).matched
