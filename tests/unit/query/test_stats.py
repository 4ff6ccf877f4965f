from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import (
    MakeTable,
    Page,
    replace_columns,
    run_command,
    word,
    write_run,
)
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.evaluation.evaluate import EvaluateSettings, evaluate_table
from textspot_ray.evaluation.ground_truth import read_ground_truth
from textspot_ray.evaluation.rules import ScoringTask
from textspot_ray.evaluation.worst_images import judged_words, write_misses
from textspot_ray.query.pages import read_page
from textspot_ray.query.stats import Copies, CopyGroup, compute_stats, stats_text
from textspot_ray.query.views import open_views
from textspot_ray.records import ErrorKind


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table(
        [
            Page("a/1.jpg", [word("exit")], source="file:///x/a/1.jpg"),
            Page("a/2.jpg", [word("no"), word("way", 60)], source="file:///x/a/2.jpg"),
            Page("b/$1$.jpg", error=ErrorKind.CORRUPT, source="file:///x/$b_{$/1.jpg"),
            Page("a/3.jpg", source="file:///x/a/3.jpg", seconds=(1, 2, 3, 4)),
        ]
    )


def test_report_has_sources_failures_and_slow_images(
    table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("stats", [table]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "images  4: 2 with words, 1 without, 1 failed" in shown
    assert "file:///x/a/           3       0      3" in shown
    assert "decode corrupt" in shown
    slow = shown[shown.index("slowest images") :].splitlines()
    assert slow[3].split()[:2] == ["a/3.jpg", "10"]


def test_json_is_complete(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_command("stats", [table, "--json", "--top", "1"])
    data = json.loads(capsys.readouterr().out)
    assert data["figures"]["totals"]["words"] == 3
    assert len(data["sources"]) == len(data["slowest"]) == 1


def test_plots_are_a_drawing_or_a_page(table: str, make_table: MakeTable, tmp_path: Path) -> None:
    for uri in (table, make_table(name="empty")):
        drawing, page = tmp_path / "plots.svg", tmp_path / "plots.html"
        for out in (drawing, page):
            assert run_command("stats", [uri, "--plot", str(out)]) == ExitCode.OK
        tree = ET.fromstring(drawing.read_text())
        titles = [
            text.text
            for text in tree.iter("{http://www.w3.org/2000/svg}text")
            if text.get("class") == "title"
        ]
        assert titles[0] == uri and titles[1:] == [
            "Throughput",
            "Words per image",
            "Text confidence",
            "Word length",
            "Mean time of an image by stage",
        ]
        assert page.read_text().count('<figure class="chart">') == 5
    with pytest.raises(UsageError, match="cannot write"):
        run_command("stats", [table, "--plot", str(tmp_path / "no" / "plot.svg")])
    with pytest.raises(UsageError, match=r"\.svg or \.html, not plot\.png"):
        run_command("stats", [table, "--plot", "plot.png"])


def test_copies_are_told_where_the_table_keeps_hashes(table: str) -> None:
    with open_views(table) as tables:
        replace_columns(tables, content_sha256="NULL::VARCHAR")
        assert compute_stats(tables).copies is None  # a table of before, opened with nulls
    with open_views(table) as tables:
        # a/1 and a/2 are one content; both pages of the TIFF b are one file
        replace_columns(
            tables,
            source="CASE WHEN image_id LIKE 'a/%' THEN image_id ELSE 'b' END",
            content_sha256="CASE image_id WHEN 'a/1.jpg' THEN 'x' WHEN 'a/2.jpg' THEN 'x' "
            "ELSE 'y' || starts_with(image_id, 'a/') END",
        )
        stats = compute_stats(tables)
    assert stats.copies == Copies(1, 1, (CopyGroup(2, "a/1.jpg"),))
    assert "copies  1 file with the bytes of another (1 content)" in stats_text(stats)


def test_page_of_misses_shows_each_kind_in_the_images_pixels(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    cv2.imwrite(str(tmp_path / "src" / "img_1.jpg"), np.zeros((480, 640, 3), np.uint8))
    uri = str(tmp_path / "out")
    write_run(
        uri,
        [str(tmp_path / "src")],
        lambda _: [word("exit"), word("opem", 100), word("<b>", 400, 400)],
    )
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "gt_img_1.txt").write_text(
        "20,20,100,20,100,52,20,52,Exit\n200,20,280,20,280,52,200,52,Open\n"
        "400,200,500,200,500,240,400,240,<i>gone\n600,600,640,600,640,640,600,640,Lost\n"
    )
    size = (1280, 960)
    with open_views(uri) as tables:
        found = evaluate_table(
            tables, read_ground_truth(tmp_path / "gt"), EvaluateSettings(gt_size=size)
        )
        out = tmp_path / "misses.html"
        write_misses(tables, found, size, 5, str(out))
        score = found.scores[ScoringTask.WORD_SPOTTING].images[0]
        page = read_page(tables, found.joined.image_ids["img_1"])
        assert page is not None
        words = judged_words(score, page, size)
    assert [(w["kind"], w["label"]) for w in words] == [
        ("same", "exit"),
        ("changed", "Open → opem"),
        ("lost", "− Lost"),
        ("gained", "+ <b>"),
    ]
    assert words[2]["p"] == [300, 300, 320, 300, 320, 320, 300, 320]
    text = out.read_text()
    assert "data:image/jpeg" in text and '<b>"' not in text and "word spotting" in text
