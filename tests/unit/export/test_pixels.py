"""Formats that hold pixels, and pictures that have moved."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import run_command, word, write_run
from textspot_ray.errors import ExitCode, UsageError
from textspot_ray.export.crops import word_picture

WORDS = [word("exit", 20, 60, 90, 40), word("日本", 20, 120, 60, 30, confidence=0.4)]


@pytest.fixture
def table(tmp_path: Path) -> str:
    source = tmp_path / "old place"
    (source / "sub").mkdir(parents=True)
    image = np.full((240, 320, 3), 255, np.uint8)
    image[60:100, 20:110] = (0, 0, 255)
    data = cv2.imencode(".png", image)[1].tobytes()
    (source / "sub" / "a b.png").write_bytes(data)
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff no")
    with tarfile.open(source / "c.tar", "w") as tar:
        info = tarfile.TarInfo("x/in tar.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    write_run(str(tmp_path / "out"), [str(source)], lambda _: WORDS)
    return str(tmp_path / "out")


def test_crops_are_words_laid_upright_with_labels(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "crops"
    assert run_command("export", [table, "-f", "crops", "-o", str(out)]) == ExitCode.OK
    assert "left out 1 failed image (" in capsys.readouterr().err
    with (out / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["file_name"], row["text"]) for row in rows} == {
        (f"{folder}/000{n}.jpg", text)
        for folder in ("sub/a b", "c.tar/x/in tar")
        for n, text in enumerate(("exit", "日本"))
    }
    crop = cv2.imread(str(out / "sub" / "a b" / "0000.jpg"))
    assert crop is not None and crop.shape == (40, 90, 3)
    assert crop[:, :, 2].min() > 240 and crop[:, :, :2].max() < 15, "red all over"
    labels = (out / "rec_gt.txt").read_text().splitlines()
    assert "sub/a b/0001.jpg\t日本" in labels


def test_crops_go_into_a_webdataset(table: str, tmp_path: Path) -> None:
    out = tmp_path / "crops.tar"
    arguments = [table, "-f", "crops", "-o", str(out), "--max-confidence", "0.5"]
    assert run_command("export", arguments) == ExitCode.OK
    with tarfile.open(out) as tar:
        names = [member.name for member in tar]
        assert names[:3] == [f"c_tar/x/in tar/0001.{f}" for f in ("jpg", "txt", "json")]
        assert len(names) == 6, "the unsure word of both images alone"
        facts = json.loads(tar.extractfile(names[2]).read())  # type: ignore[union-attr]
    assert (facts["text"], facts["word_index"]) == ("日本", 1)


def test_a_turned_quad_is_laid_upright() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:80, 40:60] = 255  # a column
    image[20:30, 40:60] = (0, 255, 0)  # its upper end, where text that runs upwards ends
    laid = word_picture(image, (40, 80, 40, 20, 60, 20, 60, 80))
    assert laid.shape == (20, 60, 3)
    assert tuple(laid[10, 57]) == (0, 255, 0) and tuple(laid[10, 3]) == (255, 255, 255)


def test_a_pdf_holds_the_words_as_unseen_text(table: str, tmp_path: Path) -> None:
    pikepdf = pytest.importorskip("pikepdf", reason="the extra [pdf] is not installed")
    pytest.importorskip("fontTools", reason="the extra [pdf] is not installed")
    out = tmp_path / "all.pdf"
    assert run_command("export", [table, "-f", "pdf", "-o", str(out)]) == ExitCode.OK
    first = out.read_bytes()
    with pikepdf.open(out) as pdf:
        assert len(pdf.pages) == 2
        content = pdf.pages[0].Contents.read_bytes().decode()
        picture = pdf.pages[0].Resources.XObject.Picture
        assert (picture.Width, picture.Height) == (320, 240)
    assert "3 Tr" in content
    assert "exit".encode("utf-16-be").hex() in content
    assert "日本".encode("utf-16-be").hex() in content
    run_command("export", [table, "-f", "pdf", "-o", str(out)])
    assert out.read_bytes() == first
    with pytest.raises(UsageError, match=r"\.pdf"):
        run_command("export", [table, "-f", "pdf", "-o", str(tmp_path / "x.txt")])


def test_moved_pictures_are_found_also_in_archives(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old place").rename(tmp_path / "new")
    out = str(tmp_path / "crops")
    assert run_command("export", [table, "-f", "crops", "-o", out]) == ExitCode.NO_MATCH
    assert "left out 2 images whose picture cannot be read" in capsys.readouterr().err
    shutil.rmtree(out)
    moved = ["--source-root", f"{tmp_path / 'old place'}={tmp_path / 'new'}"]
    assert run_command("export", [table, "-f", "crops", "-o", out, *moved]) == ExitCode.OK
    assert len(list(Path(out).rglob("*.jpg"))) == 4
    html = tmp_path / "view.html"
    run_command("view", [table, "--out", str(html), *moved])
    assert html.read_text().count("data:image/jpeg") == 2
    with pytest.raises(UsageError, match="OLD=NEW"):
        run_command("export", [table, "-f", "crops", "-o", out, "--source-root", "x"])


def test_pages_are_local_files_or_refused(table: str) -> None:
    with pytest.raises(UsageError, match="on this machine only"):
        run_command("view", [table, "--out", "s3://bucket/page.html"])
    assert not Path("s3:").exists()
