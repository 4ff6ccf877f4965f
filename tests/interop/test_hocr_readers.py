"""hOCR, read by hocr-tools, hocr-spec and OCRmyPDF."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.interop.conftest import NAMES, WORDS
from textspot_ray.export.formats import FormatOptions
from textspot_ray.export.hocr import Writer
from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import Page, PageWord
from textspot_ray.records import Word

pytestmark = pytest.mark.interop
Export = Callable[..., object]


def program(name: str) -> list[str]:
    found = Path(sys.executable).with_name(name)
    if not found.is_file():
        pytest.skip(f"{name} is not installed")
    return [sys.executable, str(found)]


def test_hocr_tools_find_the_pictures_and_cut_out_the_lines(
    export: Export, pictures: Path, tmp_path: Path
) -> None:
    export("hocr", tmp_path / "hocr")
    files = sorted((tmp_path / "hocr").rglob("*.hocr"))
    names = [file.relative_to(tmp_path / "hocr").as_posix() for file in files]
    assert names == [str(Path(name).with_suffix(".hocr")) for name in sorted(NAMES)]
    for n, file in enumerate(files):
        done = subprocess.run(
            [*program("hocr-extract-images"), "-p", f"{tmp_path}/line{n}-%03d.png", str(file)],
            cwd=pictures, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 and "not found" not in done.stdout, done.stderr
        lines = sorted(tmp_path.glob(f"line{n}-*.txt"))
        said = " ".join(line.read_text().strip() for line in lines)
        assert sorted(said.split()) == sorted(word.text for word in WORDS)
        assert Image.open(lines[0].with_suffix(".png")).size == (170, 24)


def test_hocr_check_passes(export: Export, tmp_path: Path) -> None:
    export("hocr", tmp_path / "all.hocr")
    done = subprocess.run(
        [*program("hocr-check"), "-o", str(tmp_path / "all.hocr")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ok 1" in done.stderr and "not ok" not in done.stderr


def test_the_specification_is_met(export: Export, tmp_path: Path) -> None:
    validate = pytest.importorskip("hocr_spec.validate", reason="hocr-spec is not installed")
    export("hocr", tmp_path / "all.hocr")
    with (tmp_path / "all.hocr").open("rb") as file:
        report = validate.HocrValidator("standard").validate(file, parse_strict=True)
    assert report.is_valid(), report.format("text")


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.text)
def test_ocrmypdf_places_words_of_any_angle(tmp_path: Path, word: Word) -> None:
    """It sets letters as high as the line's upright box, so places agree only roughly.

    Without the baseline a word that rises by 20 degrees lay 50 pixels off.
    """
    pytest.importorskip("ocrmypdf.hocrtransform", reason="ocrmypdf is not installed")
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    placed = PageWord(word.text, 0.9, (), 0.9, word.box, word.polygon, word.angle_deg, line_index=0)
    page = Page("x", "x", None, 0, 640, 480, "words", None, None, (placed,))
    writer = Writer(FormatOptions())
    text = writer.head() + writer.page(PageLayout(page, "x.jpg"), 1) + "".join(writer.foot())
    (tmp_path / "x.hocr").write_text(text)
    subprocess.run(
        [sys.executable, "-m", "ocrmypdf.hocrtransform", "-r", "72", str(tmp_path / "x.hocr"),
         str(tmp_path / "x.pdf")], check=True,
    )  # fmt: skip
    said, box = letters(tmp_path / "x.pdf")
    assert sorted(said) == sorted(word.text)
    wanted = sum(word.polygon[0::2]) / 4, sum(word.polygon[1::2]) / 4
    off = 12 if abs(word.angle_deg) <= 45 else 25
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == pytest.approx(wanted, abs=off)


def letters(pdf: Path) -> tuple[str, tuple[float, float, float, float]]:
    """All letters on a page, and the box around them; pdftotext may cut turned words to pieces."""
    done = subprocess.run(
        ["pdftotext", "-bbox", str(pdf), "-"], capture_output=True, text=True, check=True
    )
    pattern = r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(\w+)<'
    found = re.findall(pattern, done.stdout)
    boxes = [[float(value) for value in place[:4]] for place in found]
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return "".join(place[4] for place in found), (min(x0), min(y0), max(x1), max(y1))
