"""Words that were not read: how many, of which kind, and their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_run
from textspot_ray.errors import ExitCode
from textspot_ray.evaluation.failure_sheet import GREEN, RED, tile
from textspot_ray.evaluation.failures import Failure, FailureKind, cut_heights, word_outcomes
from textspot_ray.evaluation.ground_truth import GtWord, Predicted
from textspot_ray.evaluation.matching import evaluate
from textspot_ray.evaluation.rules import Rules, ScoringTask


def box(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return (x, y, x + width, y, x + width, y + height, x, y + height)


GT = {
    "img_1": (
        GtWord(box(0, 0, 100, 20), "right"),
        GtWord(box(0, 50, 100, 20), "coffee"),
        GtWord(box(0, 100, 100, 20), "street"),
        GtWord(box(0, 150, 100, 20), "gone"),
        GtWord(box(0, 200, 100, 20), "beside"),
        GtWord(box(0, 250, 100, 20), "###"),
        GtWord(box(0, 300, 100, 20), "12"),  # does not count in word spotting
    )
}
READ = {
    "img_1": (
        Predicted(box(1, 1, 99, 19), "RIGHT"),
        Predicted(box(0, 50, 80, 20), "coff"),  # a height short at the right
        Predicted(box(0, 100, 98, 20), "streel"),
        Predicted(box(60, 200, 100, 20), "xx"),  # overlaps by a quarter
    )
}


def test_words_are_counted_by_what_became_of_them() -> None:
    found = word_outcomes(evaluate(GT, READ))
    assert (found.counted, found.found, found.right) == (5, 3, 1)
    assert found.kinds == {
        FailureKind.NOT_FOUND: 2,
        FailureKind.ENDS_CUT: 1,
        FailureKind.WRONG_LETTERS: 1,
    }
    by_text = {failure.text: failure for failure in found.failures}
    assert sorted(by_text) == ["beside", "coffee", "gone", "street"]
    assert by_text["coffee"].kind is FailureKind.ENDS_CUT
    assert by_text["coffee"].iou == pytest.approx(0.8)
    assert (by_text["street"].kind, by_text["street"].read) == (FailureKind.WRONG_LETTERS, "streel")
    assert (by_text["gone"].read, by_text["gone"].iou, by_text["gone"].found) == ("", 0.0, None)
    assert by_text["beside"].iou == pytest.approx(0.25)
    assert by_text["beside"].read == "xx"


def test_every_word_of_the_task_is_right_or_a_failure() -> None:
    for task in ScoringTask:
        scores = evaluate(GT, READ, Rules(task))
        found = word_outcomes(scores)
        assert found.right == scores.figures.matched
        assert found.counted == scores.figures.wanted == found.right + len(found.failures)


@given(
    angle=st.floats(-180, 180),
    cut=st.floats(-1, 2),
    side=st.booleans(),
    start=st.integers(0, 3),
)
def test_a_cut_end_is_measured_along_the_word(
    angle: float, cut: float, side: bool, start: int
) -> None:
    a = np.radians(angle)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    whole = np.reshape(box(0, 0, 100, 20), (4, 2))
    found = np.reshape(box(20 * cut if side else 0, 0, 100 - 20 * cut, 20), (4, 2))
    # whichever corner the found quad begins with
    found = np.roll(found, start, 0)
    measured = cut_heights((whole @ turn).ravel().tolist(), (found @ turn).ravel().tolist())
    assert measured == pytest.approx(max(cut, 0.0), abs=1e-6)


def test_a_tile_shows_both_quads_where_they_are() -> None:
    image = np.full((200, 400, 3), 255, np.uint8)
    # the ground truth refers to half the image's size
    failure = Failure(
        "img_1", FailureKind.ENDS_CUT, "Café", "ca", 0.6, box(50, 40, 60, 20), box(50, 40, 30, 20)
    )
    drawn = tile(failure, image, (200, 100)).astype(int)
    green = (np.abs(drawn - GREEN).sum(2) < 60).nonzero()
    red = (np.abs(drawn - RED).sum(2) < 60).nonzero()
    # the red quad's right side lies half way between the green one's ends
    assert red[1].max() == pytest.approx((green[1].min() + green[1].max()) / 2, abs=2)
    assert np.ptp(green[1]) / np.ptp(green[0]) == pytest.approx(3, rel=0.1)
    blank = tile(failure, None, None, "cannot be read")
    assert (blank < 128).any()
    assert not (np.abs(blank.astype(int) - GREEN).sum(2) < 60).any()


def write_photo(folder: Path) -> None:
    folder.mkdir()
    image = np.full((480, 640, 3), 120, np.uint8)
    cv2.putText(image, "Coffee", (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 2)
    cv2.imwrite(str(folder / "img_1.png"), image)


def test_the_command_draws_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photo(tmp_path / "photos")
    table = str(tmp_path / "table")
    write_run(table, [str(tmp_path / "photos")], lambda item: [word("cof", 10, 10, 30, 16)])
    gt = tmp_path / "gt"
    gt.mkdir()
    (gt / "gt_img_1.txt").write_text(
        "10,10,50,10,50,26,10,26,Coffee\n200,200,300,200,300,230,200,230,lost\n"
    )
    (gt / "gt_img_2.txt").write_text("10,10,50,10,50,26,10,26,elsewhere\n")
    out = tmp_path / "failures.png"
    command = [table, "--gt", str(gt), "--failures", str(out)]
    assert run_command("evaluate", command) == ExitCode.OK
    printed = capsys.readouterr().out
    for line in ("word spotting: 3 words counted", "not found", "ends cut"):
        assert line in printed
    picture = cv2.imread(str(out)).astype(int)
    assert (np.abs(picture - GREEN).sum(2) < 60).any()
    assert (np.abs(picture - RED).sum(2) < 60).any()
    assert run_command("evaluate", [*command, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["failures"] == {
        "counted": 3,
        "found": 1,
        "right": 0,
        "not found": 2,
        "ends cut": 1,
        "wrong letters": 0,
    }


def test_pictures_that_are_gone_leave_their_captions(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table([Page("a/img_1.jpg", [word("exit")])])
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "gt_img_1.txt").write_text("10,10,50,10,50,26,10,26,Open\n")
    out = tmp_path / "failures.png"
    command = [table, "--gt", str(tmp_path / "gt"), "--failures", str(out)]
    assert run_command("evaluate", command) == ExitCode.OK
    assert cv2.imread(str(out)).shape[1] > 1000
