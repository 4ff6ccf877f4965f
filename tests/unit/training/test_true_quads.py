"""Reading at true quads tells the reader's faults from the detector's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training import oracle_boxes as true_quads
from jobs.training.refiner.rectification import Stem, text_features
from tests.support.insight_tables import word, write_run

# in pixels of an image of 640x384, half the detector's input
QUADS = {"Coffee": (40, 40, 300, 90), "Station": (60, 220, 390, 290)}


def photo() -> np.ndarray:
    image = np.full((384, 640, 3), 90, np.uint8)
    for text, (x0, y0, x1, y1) in QUADS.items():
        (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 2, 3)
        drawn = np.full((h + below, w + 8, 3), 90, np.uint8)
        cv2.putText(drawn, text, (4, h), cv2.FONT_HERSHEY_DUPLEX, 2, (250,) * 3, 3, cv2.LINE_AA)
        image[y0:y1, x0:x1] = cv2.resize(drawn, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return image


def corners(box: tuple[int, int, int, int]) -> list[int]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def test_features_are_those_of_the_graph() -> None:
    image = cv2.GaussianBlur(photo(), (0, 0), 2)
    quads = np.array([corners(box) for box in QUADS.values()], np.float32).reshape(-1, 4, 2)
    ours = true_quads.quad_features(image, quads)
    stretched = torch.from_numpy(cv2.resize(image, (1280, 768))).permute(2, 0, 1)[None].float()
    theirs = text_features(Stem()(stretched), torch.from_numpy(quads * 2), torch.zeros(2).long())
    assert ours.shape == (2, 64, 28, 28)
    assert np.abs(ours - theirs.numpy()).mean() < 1.0


def test_the_command_tells_reader_from_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "img_801.png"), photo())
    table = str(tmp_path / "table")
    # one word cut, the other not found at all
    write_run(table, [str(tmp_path / "photos")], lambda _: [word("cof", 40, 40, 160, 50)])
    gt = tmp_path / "gt"
    gt.mkdir()
    # the ground truth refers to twice the size; another photo is not in the table
    lines = [",".join(str(2 * n) for n in corners(b)) + f",{t}" for t, b in QUADS.items()]
    (gt / "gt_img_801.txt").write_text("\n".join([*lines, "0,0,9,0,9,9,0,9,###"]))
    (gt / "gt_img_1.txt").write_text("0,0,90,0,90,20,0,20,Other\n")
    out = tmp_path / "failures.png"
    command = [table, "--gt", str(gt), "--gt-size", "1280x768", "--out", str(out)]
    assert true_quads.main(command) == 0
    printed = {
        line[:30].strip(): line[30:].split() for line in capsys.readouterr().out.splitlines()
    }
    counts = {name: int(cells[0]) for name, cells in printed.items() if cells}
    assert counts["found (IoU > 0.5)"] == 1
    assert counts["read right at found quads"] == 0
    assert counts["not found"] == 1
    assert counts["ends cut"] == 1
    assert counts["read right at true quads"] == 2
    by_length = [(name, *cells) for name, cells in printed.items() if " to " in name]
    each = ("1", "100.00", "%", "of", "1")
    assert by_length == [("4 to 6 letters", *each), ("7 to 8 letters", *each)]
    assert cv2.imread(str(out)) is not None
