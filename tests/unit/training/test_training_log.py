"""A training's log and curve."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.loop.log import Panel, append_row, draw_curve, read_rows


def test_log_keeps_old_rows_when_columns_join(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    append_row(log, {"step": 1, "a": 0.5})
    append_row(log, {"step": 2, "b": 0.25})
    assert log.read_text().splitlines() == ["step,a,b", "1,0.5,", "2,,0.25"]


def test_a_log_of_other_line_ends_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(b"step,f1\r\n10,\r\n")
    append_row(log, {"step": "20", "f1": "0.48"})
    assert [r["f1"] for r in read_rows(log)] == ["", "0.48"]


def test_the_curve_has_a_panel_beside_the_other(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.csv"
    append_row(log, {"minutes": "2.00", "loss": 3})
    append_row(log, {"minutes": "4.00", "loss": 2, "f1": 0.48})
    one = Panel("minutes", ("loss",), ("minutes", "loss"))
    draw_curve(log, tmp_path / "one.png", (one,))
    draw_curve(log, tmp_path / "two.png", (one, Panel("minutes", ("f1", "gone"), ("", ""), (0, 1))))
    shapes = [cv2.imread(str(tmp_path / f"{n}.png")).shape for n in ("one", "two")]
    assert shapes[1][1] == 1.5 * shapes[0][1]
