"""Tables in Python: what a notebook shows, and results for other libraries."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import textspot_ray
from tests.support.insight_tables import MakeTable, Page, run_command, word, write_run
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.query.cookbook import recipes
from textspot_ray.query.opened import open_tables
from textspot_ray.query.sql import SqlError, run_query
from textspot_ray.records import ErrorKind


@pytest.fixture
def table(make_table: MakeTable) -> str:
    return make_table(
        [Page("a/1.jpg", [word("exit"), word("fire", 60)]), Page("a/2.jpg")],
        [Page("b/3.jpg", error=ErrorKind.CORRUPT), Page("b/4.jpg", [word("exit")])],
    )


def test_a_glance_shows_counts_and_words_and_no_list_of_files(table: str) -> None:
    shown = repr(textspot_ray.open_tables(table))
    assert "4 images, 3 words, 1 failed" in shown and "exit" in shown
    assert "parquet" not in shown and len(shown) < 1500


def test_results_go_to_pandas_polars_and_arrow(table: str) -> None:
    tables = open_tables(table)
    sql = "SELECT text, count(*)::INT AS n FROM words GROUP BY text ORDER BY text;"
    assert tables.sql(sql).fetchall() == [("exit", 2), ("fire", 1)]
    assert tables.sql(sql).to_arrow_table().column("n").to_pylist() == [2, 1]
    pytest.importorskip("pandas", reason="the extra [pandas] is not installed")
    assert tables.sql(sql).df()["n"].tolist() == [2, 1]
    pytest.importorskip("polars", reason="the extra [polars] is not installed")
    assert tables.sql(sql).pl()["n"].to_list() == [2, 1]
    assert tables.words.count_rows() == 3
    assert [hit.text for hit in tables.search("exot", mode="fuzzy")] == ["exit", "exit"]
    with pytest.raises(SqlError):
        tables.sql("DROP VIEW words")
    with pytest.raises(UsageError, match="nonsense"):
        tables.search("x", mode="nonsense")


def test_a_picture_is_shown_with_its_words_also_when_it_has_moved(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), np.zeros((480, 640, 3), np.uint8))
    write_run(str(tmp_path / "out"), [str(folder)], lambda _: [word("exit", 20, 60)])
    tables = open_tables(str(tmp_path / "out"))
    shown = tables.show("1.png")
    assert shown.size == (640, 480)
    assert shown.getpixel((20, 68)) == (255, 90, 0) and shown.getpixel((300, 300)) == (0, 0, 0)
    folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="missing"):
        tables.show("1.png")
    again = tables.show("1.png", source_root=[f"{folder}={tmp_path / 'moved'}"])
    assert np.array_equal(np.asarray(again), np.asarray(shown))
    with pytest.raises(UsageError, match="no image"):
        tables.show("2.png")


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.question)
def test_every_recipe_answers(table: str, recipe: object) -> None:
    tables = open_tables(table)
    rows = run_query(tables.views, recipe.sql).read_all()  # type: ignore[attr-defined]
    assert rows.num_columns
    answers = {
        "Which images have no text?": [
            {"image_id": "a/2.jpg", "width": 640, "height": 480, "damage": None}
        ],
        "Which words are in several images?": [{"text_key": "exit", "images": 2, "n": 2}],
        "What does one image say, in order?": [{"line": "exit fire"}],
        "What did the last run add?": [{"text": "exit", "n": 2}, {"text": "fire", "n": 1}],
        "Which pairs of words stand near each other?": [
            {"a": "exit", "b": "fire", "image_id": "a/1.jpg"}
        ],
    }
    wanted = answers.get(recipe.question)  # type: ignore[attr-defined]
    if wanted is not None:
        assert rows.to_pylist() == wanted


def test_the_cookbook_prints_with_and_without_a_table(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("query", ["--cookbook"]) == ExitCode.OK
    plain = capsys.readouterr().out
    assert all(recipe.sql in plain for recipe in recipes())
    out = tmp_path / "book.md"
    assert run_command("query", [table, "--cookbook", "--out", str(out)]) == ExitCode.OK
    text = out.read_text()
    assert text.count("```sql") == len(recipes()) and "exit fire" in text
    with pytest.raises(UsageError, match="no DIR"):
        run_command("query", [])


def test_the_documented_cookbook_is_of_today() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "cookbook.md").read_text()
    for recipe in recipes():
        assert recipe.sql in documented, "run textspot query DIR --cookbook --out docs/cookbook.md"


def test_the_example_notebook_runs(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="the extra [pandas] is not installed")
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), np.zeros((480, 640, 3), np.uint8))
    write_run(str(tmp_path / "out"), [str(folder)], lambda _: [word("exit", 20, 60)])
    notebook = json.loads((Path(__file__).parents[3] / "docs" / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert sum('TABLE = "demo-out"' in cell for cell in cells) == 1
    names: dict[str, object] = {}
    shown = []
    for cell in cells:
        body = ast.parse(cell.replace('"demo-out"', repr(str(tmp_path / "out"))))
        last = body.body.pop()
        if isinstance(last, ast.Expr):
            exec(compile(body, "cell", "exec"), names)
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        else:
            body.body.append(last)
            exec(compile(body, "cell", "exec"), names)
    assert "1 image, 1 word, 0 failed" in repr(shown[0])
    assert shown[1]["text"].tolist() == ["exit"]
    assert shown[2][0][0] == "exit"
    assert shown[3].size == (640, 480)
