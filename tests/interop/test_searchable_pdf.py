"""Searchable PDF, opened and searched by pdftotext."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.conftest import NAMES, WORDS

pytest.importorskip("pikepdf", reason="the extra [pdf] is not installed")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils are not here"),
]
Export = Callable[..., object]
POINTS_PER_PIXEL = 0.48


def words_at(pdf: Path, page: int) -> dict[str, tuple[float, ...]]:
    """Boxes in pixels of the words that pdftotext finds."""
    done = subprocess.run(
        ["pdftotext", "-bbox", "-f", str(page), "-l", str(page), str(pdf), "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    pattern = r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(\w+)<'
    return {
        text: tuple(float(value) / POINTS_PER_PIXEL for value in place)
        for *place, text in re.findall(pattern, done.stdout)
    }


def test_words_are_found_at_their_places(export: Export, tmp_path: Path) -> None:
    export("pdf", tmp_path / "all.pdf")
    for page in range(1, len(NAMES) + 1):
        found = words_at(tmp_path / "all.pdf", page)
        for word in WORDS:
            x0, y0, x1, y1 = found[word.text]
            centre = (word.box[0] + word.box[2]) / 2, (word.box[1] + word.box[3]) / 2
            assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx(centre, abs=1), word.text
            long = max(x1 - x0, y1 - y0)
            box = word.box
            assert long == pytest.approx(max(box[2] - box[0], box[3] - box[1]), abs=1)


def test_one_file_an_image_is_called_as_the_image(export: Export, tmp_path: Path) -> None:
    export("pdf", tmp_path / "pdf")
    files = sorted(path.relative_to(tmp_path / "pdf") for path in (tmp_path / "pdf").rglob("*.pdf"))
    assert files == sorted(Path(name).with_suffix(".pdf") for name in NAMES)
    text = subprocess.run(
        ["pdftotext", str(tmp_path / "pdf" / files[0]), "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "hello world" in text


def test_the_picture_is_whole_and_the_text_unseen(export: Export, tmp_path: Path) -> None:
    if shutil.which("pdftoppm") is None:
        pytest.skip("pdftoppm is not here")
    import cv2
    import numpy as np

    export("pdf", tmp_path / "all.pdf", limit=1)
    subprocess.run(
        ["pdftoppm", "-r", "150", "-png", str(tmp_path / "all.pdf"), str(tmp_path / "page")],
        check=True,
    )
    (shown,) = tmp_path.glob("page*.png")
    image = cv2.imread(str(shown), cv2.IMREAD_GRAYSCALE)
    assert image is not None and image.shape == (480, 640)
    # the pictures hold outlines of words alone: inside of them nothing is drawn
    for word in WORDS:
        middle = np.reshape(word.polygon, (4, 2)).mean(0).round().astype(int)
        assert image[middle[1] - 4 : middle[1] + 4, middle[0] - 4 : middle[0] + 4].min() > 240


def test_jpegs_are_in_the_file_as_they_were(export: Export, pictures: Path, tmp_path: Path) -> None:
    """Without loss and without size: only PNGs and turned pictures are encoded anew."""
    pikepdf = pytest.importorskip("pikepdf")
    export("pdf", tmp_path / "all.pdf")
    with pikepdf.open(tmp_path / "all.pdf") as pdf:
        streams = [page.Resources.XObject.Picture.read_raw_bytes() for page in pdf.pages]
    files = {name: (pictures / name).read_bytes() for name in NAMES}
    assert {name for name in NAMES if files[name] in streams} == {"a b.jpg", "sub/50%.jpg"}
