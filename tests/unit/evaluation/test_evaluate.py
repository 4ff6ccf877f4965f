from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.evaluation.evaluate import EvaluateSettings, Evaluation, evaluate_table
from textspot_ray.evaluation.ground_truth import read_ground_truth
from textspot_ray.evaluation.report import evaluation_report, write_images_csv
from textspot_ray.evaluation.rules import ScoringTask
from textspot_ray.query.views import open_views


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    folder = tmp_path / "gt"
    folder.mkdir()
    # twice the size of the images
    (folder / "gt_img_1.txt").write_text(
        "\ufeff20,20,100,20,100,52,20,52,Exit\r\n200,20,300,20,300,60,200,60,gone\r\n",
        encoding="utf-8",
    )
    (folder / "gt_img_2.txt").write_text("20,20,100,20,100,52,20,52,Open\n")
    return folder


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table(
        [
            Page("a/img_1.jpg", [word("exit"), word("xyz", 300, 300, confidence=0.1)]),
            Page("a/img_2.jpg", [word("opem")]),
            Page("a/other.jpg", [word("word")]),
        ]
    )


def evaluation(table: str, gt: Path, **settings: object) -> Evaluation:
    with open_views(table) as tables:
        found = EvaluateSettings(gt_size=(1280, 960), **settings)  # type: ignore[arg-type]
        return evaluate_table(tables, read_ground_truth(gt), found)


def test_a_table_is_scored_in_the_pixels_of_the_ground_truth(table: str, gt: Path) -> None:
    found = evaluation(table, gt)
    figures = found.scores[ScoringTask.WORD_SPOTTING].figures
    assert (figures.matched, figures.wanted, figures.predicted) == (1, 3, 3)
    assert found.scores[ScoringTask.DETECTION].figures.matched == 2
    assert found.joined.without_gt == 1


def test_words_below_the_threshold_are_left_out(table: str, gt: Path) -> None:
    found = evaluation(table, gt, min_confidence=0.5)
    assert found.scores[ScoringTask.WORD_SPOTTING].figures.predicted == 2
    assert found.joined.below == 1
    assert "left out: 1 words read with less than 0.5" in evaluation_report(found)
    assert "left out" not in evaluation_report(evaluation(table, gt))


def test_the_account_of_each_image_starts_with_the_worst(table: str, gt: Path) -> None:
    file = io.StringIO()
    write_images_csv(evaluation(table, gt), file)
    lines = file.getvalue().splitlines()
    assert lines[1] == "img_1,a/img_1.jpg,0.5000,1,2,2,,gone,xyz"
    assert lines[2] == "img_2,a/img_2.jpg,0.0000,0,1,1,Open>opem,,"


def test_missing_images_count_unless_left_out(make_table: MakeTable, gt: Path) -> None:
    table = make_table([Page("img_1.jpg", [word("exit")])])
    assert evaluation(table, gt).scores[ScoringTask.WORD_SPOTTING].figures.wanted == 3
    only = evaluation(table, gt, only_in_table=True)
    assert only.scores[ScoringTask.WORD_SPOTTING].figures.wanted == 2


def test_names_that_cannot_be_joined_are_refused(make_table: MakeTable, gt: Path) -> None:
    with pytest.raises(UsageError, match="named like the ground truth"):
        evaluation(make_table([Page("x.jpg")], name="none"), gt)
    twice = make_table([Page("a/img_1.jpg"), Page("b/img_1.png")], name="twice")
    with pytest.raises(UsageError, match="told apart"):
        evaluation(twice, gt)


def test_command_reports_and_compares(
    table: str, gt: Path, make_table: MakeTable, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    better = make_table(
        [Page("img_1.jpg", [word("exit")]), Page("img_2.jpg", [word("open")])], name="better"
    )
    options = ["--gt", str(gt), "--gt-size", "1280x960", "--per-image", str(tmp_path / "i.csv")]
    assert run_command("evaluate", [better, *options, "--against", table]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "word spotting      66.67     100.00   80.00" in shown
    assert "+46.67" in shown
    assert (tmp_path / "i.csv").read_text().startswith("image,image_id")
    run_command("evaluate", [better, *options, "--json", "--rules", "accuracy-checker"])
    data = json.loads(capsys.readouterr().out)
    assert data["tasks"]["word-spotting"]["hmean"] == pytest.approx(0.8)
    assert "end-to-end" not in data["tasks"]


def test_lexicon_corrects(table: str, gt: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("open\nexit\n")
    run_options = [
        "--gt",
        str(gt),
        "--gt-size",
        "1280x960",
        "--lexicon",
        str(tmp_path / "words.txt"),
    ]
    assert run_command("evaluate", [table, *run_options, "--json"]) == ExitCode.OK
