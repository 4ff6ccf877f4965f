from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.support.insight_tables import MakeTable, Page, run_command, word, write_run
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.evaluation.diff import Change, DiffSummary, PagePair, compare_tables
from textspot_ray.evaluation.diff_report import most_different
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.records import ErrorKind


def compared(a: str, b: str) -> tuple[list[PagePair], DiffSummary]:
    summary = DiffSummary()
    with open_views(a) as first, open_views(b) as second:
        return list(compare_tables(first, second, None, summary)), summary


def changes(pair: PagePair) -> list[tuple[str, str | None, str | None]]:
    return [(str(w.change), w.a and w.a.text, w.b and w.b.text) for w in pair.words]


def test_words_are_paired_by_place(make_table: MakeTable) -> None:
    a = make_table(
        [Page("x.jpg", [word("same", 10), word("old", 100), word("gone", 200)])], name="a"
    )
    b = make_table(
        [Page("x.jpg", [word("new", 101), word("here", 300), word("same", 12, confidence=0.95)])],
        name="b",
    )
    pairs, summary = compared(a, b)
    assert changes(pairs[0]) == [
        ("changed", "old", "new"),
        ("same", "same", "same"),
        ("lost", "gone", None),
        ("gained", None, "here"),
    ]
    assert summary.words == {c: 1 for c in Change}
    assert summary.changes == {("old", "new"): 1}
    assert summary.mean_shift == pytest.approx(0.05)
    assert dict(summary.shifts())["+0.03 to +0.1"] == 1


def test_of_equal_overlaps_the_equal_text_wins(make_table: MakeTable) -> None:
    a = make_table([Page("x.jpg", [word("one"), word("two")])], name="a")
    b = make_table([Page("x.jpg", [word("two"), word("one")])], name="b")
    pairs, _ = compared(a, b)
    assert {change for change, _, _ in changes(pairs[0])} == {"same"}


def test_a_table_does_not_differ_from_itself(make_table: MakeTable) -> None:
    pages = [Page(f"{n}.jpg", [word("a"), word("b", 60)]) for n in range(5)]
    uri = make_table(pages, [Page("e.jpg", error=ErrorKind.CORRUPT)])
    _, summary = compared(uri, uri)
    assert (summary.images, summary.differing, summary.only_a, summary.only_b) == (6, 0, 0, 0)
    assert set(summary.words) == {Change.SAME} and not summary.status


def test_order_of_shards_does_not_matter(make_table: MakeTable) -> None:
    pages = [Page(f"{n}.jpg", [word(f"w{n}")]) for n in range(6)]
    a = make_table(pages[:3], pages[3:], name="a")
    b = make_table(pages[::-1], name="b")
    _, summary = compared(a, b)
    assert (summary.images, summary.differing) == (6, 0)


def test_images_of_one_table_and_new_failures_are_counted(make_table: MakeTable) -> None:
    a = make_table([Page("x.jpg", [word("one")]), Page("a.jpg")], name="a")
    b = make_table([Page("x.jpg", error=ErrorKind.CORRUPT), Page("b.jpg")], name="b")
    _, summary = compared(a, b)
    assert (summary.images, summary.only_a, summary.only_b) == (1, 1, 1)
    assert summary.status == {("words", "failed"): 1} and summary.words == {Change.LOST: 1}


def test_tables_of_other_images_are_refused(make_table: MakeTable) -> None:
    a, b = make_table([Page("a.jpg")], name="a"), make_table([Page("b.jpg")], name="b")
    with pytest.raises(UsageError, match="no image in common"):
        compared(a, b)


def test_the_worst_are_kept_in_order(make_table: MakeTable) -> None:
    a = make_table([Page(f"{n}.jpg", [word("x")] * n) for n in range(1, 6)], name="a")
    b = make_table([Page(f"{n}.jpg") for n in range(1, 6)], name="b")
    worst = most_different(compared(a, b)[0], 2)
    assert [pair.a.image_id for pair in worst] == ["5.jpg", "4.jpg"]


def test_command_writes_summary_rows_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2
    import numpy as np

    (tmp_path / "src").mkdir()
    for n in range(3):
        cv2.imwrite(str(tmp_path / "src" / f"{n}.jpg"), np.zeros((90, 120, 3), np.uint8))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    write_run(a, [str(tmp_path / "src")], lambda _: [word("<b>old")])
    write_run(
        b,
        [str(tmp_path / "src")],
        lambda i: [word("new" if i.image_id.endswith("1.jpg") else "<b>old")],
    )
    out = [f"{tmp_path}/d.csv", f"{tmp_path}/d.html"]
    assert run_command("diff", [a, b, "--words", out[0], "--html", out[1]]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "3 in both, 1 differ" in shown and "<b>old -> new" in shown
    with Path(out[0]).open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["change"], r["text_a"], r["text_b"]) for r in rows] == [("changed", "<b>old", "new")]
    page = Path(out[1]).read_text()
    assert "data:image/jpeg" in page and "<b>old" not in page
    run_command("diff", [a, b, "--json"])
    assert json.loads(capsys.readouterr().out)["words"]["changed"] == 1


def test_settings_that_differ_are_named(make_table: MakeTable) -> None:
    import dataclasses

    from textspot_ray.evaluation.diff_report import diff_text

    uri = make_table([Page("x.jpg")])
    with open_views(uri) as a:
        files = dataclasses.replace(
            a.files, fingerprint={"precision": "int8", "detector": "0123abcd"}
        )
        with TableViews(files) as b:
            assert "precision: f32 -> int8" in diff_text(a, b, DiffSummary())
            assert "detector" not in diff_text(a, b, DiffSummary())
