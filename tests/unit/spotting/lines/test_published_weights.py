"""PP-OCRv6 small as rapidocr ships it (extra ppocr): real text, rendered."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from textspot_ray.records import Word
from textspot_ray.spotting.bundle import write_spec
from textspot_ray.spotting.ppocr import installed_bundle
from textspot_ray.spotting.spotter import TextSpotter

pytestmark = pytest.mark.skipif(
    installed_bundle("ppocrv6-small") is None, reason="rapidocr is not installed (extra ppocr)"
)


@pytest.fixture(scope="module")
def spotter() -> TextSpotter:
    return TextSpotter.load("ppocrv6-small", precision="f32", threads=2)


def _font(language: str) -> Path:
    """A font of the system that has the language's letters."""
    if shutil.which("fc-match") is None:
        pytest.skip("fontconfig is not installed")
    command = ["fc-match", "--format=%{file} %{lang}", f"sans:lang={language}:style=Regular"]
    path, _, languages = subprocess.check_output(command, text=True).partition(" ")
    if language not in languages.split("|"):
        pytest.skip(f"no font for {language}")
    return Path(path)


def _page(lines: list[str], language: str, size: int = 36) -> NDArray[np.uint8]:
    font = ImageFont.truetype(str(_font(language)), size)
    page = Image.new("RGB", (1000, 80 + 90 * len(lines)), "white")
    for i, line in enumerate(lines):
        ImageDraw.Draw(page).text((60, 50 + 90 * i), line, "black", font=font)
    return np.asarray(page)[:, :, ::-1].copy()


def _lines(words: list[Word]) -> list[str]:
    found: dict[int | None, list[str]] = {}
    for word in words:
        found.setdefault(word.line, []).append(word.text)
    return [" ".join(texts) for texts in found.values()]


def test_case_punctuation_and_accents(spotter: TextSpotter) -> None:
    lines = ["Invoice No. 2026/117", "Total: $1,234.56", "Crème brûlée, größer & señor?"]
    words = spotter(_page(lines, "en"))
    assert _lines(words) == lines
    invoice = words[0]
    assert invoice.text == "Invoice" and invoice.text_confidence > 0.9
    assert invoice.box[0] == pytest.approx(60, abs=15)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh-cn", "北京市海淀区中关村大街"),
        ("zh-tw", "臺北車站請勿停車"),
        ("ja", "東京都渋谷区のカフェ"),
    ],
)
def test_scripts_without_spaces(spotter: TextSpotter, language: str, text: str) -> None:
    assert [word.text for word in spotter(_page([text], language))] == [text]


@pytest.mark.parametrize(
    ("language", "text"),
    [("pl", "Łódź żółć"), ("tr", "İstanbul Çağlayan"), ("cs", "Příliš černý kůň")],
)
def test_latin_letters_with_marks(spotter: TextSpotter, language: str, text: str) -> None:
    assert _lines(spotter(_page([text], language))) == [text]


@pytest.mark.parametrize("text", ["Добро пожаловать", "مرحبا بالعالم"])
def test_scripts_it_lacks_are_lines_unread(spotter: TextSpotter, text: str) -> None:
    """Cyrillic and Arabic have models of their own: no word is made up of them."""
    result = spotter.spot(_page([text], "ru" if "о" in text else "ar"))
    assert result.n_unread >= 1
    assert not [word for word in result.words if word.text_confidence > 0.5]


def test_upside_down_and_sideways(spotter: TextSpotter) -> None:
    page = _page(["Upside down it says"], "en")
    over = spotter(cv2.rotate(page, cv2.ROTATE_180))
    assert [word.text for word in over] == ["Upside", "down", "it", "says"]
    assert all(abs(word.angle_deg) > 179 for word in over)
    assert over[0].box[0] > over[-1].box[0]
    for way, angle in ((cv2.ROTATE_90_CLOCKWISE, 90), (cv2.ROTATE_90_COUNTERCLOCKWISE, -90)):
        words = spotter(cv2.rotate(page, way))
        assert [word.text for word in words] == ["Upside", "down", "it", "says"]
        assert all(word.angle_deg == pytest.approx(angle, abs=1) for word in words)


def test_latin_alone_reads_the_same_words(spotter: TextSpotter) -> None:
    page = _page(["The quick brown fox, 42 km"], "en")
    cut = TextSpotter.load("ppocrv6-small", precision="f32", alphabet="latin", threads=2)
    assert [w.text for w in cut(page)] == [w.text for w in spotter(page)]
    assert all(
        a.text_confidence >= b.text_confidence - 1e-4
        for a, b in zip(cut(page), spotter(page), strict=True)
    )


def test_the_dictionary_changes_nothing_that_is_surely_read(spotter: TextSpotter) -> None:
    page = _page(["Nunber 12 of the arivals", "Rechnung für Frühstück"], "en")
    plain = TextSpotter.load("ppocrv6-small", precision="f32", dictionary=False, threads=2)
    surely = [word for word in plain(page) if word.text_confidence >= 0.9]
    assert len(surely) >= 6
    weighed = {word.text: word for word in spotter(page)}
    for word in surely:
        assert weighed[word.text].text_confidence == pytest.approx(word.text_confidence, abs=1e-5)
        assert weighed[word.text].polygon == pytest.approx(word.polygon)


def test_each_letter_is_told_as_the_dictionary_needs_it(tmp_path: Path) -> None:
    """With every word weighed, listed ones become surer by Bayes' rule and the others do not."""
    bundle = installed_bundle("ppocrv6-small")
    assert bundle is not None
    for file in bundle.spec.precisions["f32"].files():
        (tmp_path / file.file).symlink_to(bundle.path(file))
    write_spec(tmp_path, replace(bundle.spec, dictionary_below=1.0, dictionary_odds=8.0))
    plain, weighed = (
        {w.text: w for w in TextSpotter.load(name, precision="f32", dictionary=on)(page)}
        for page in [_page(["Invoice, total zqjw", "receipt 117"], "en")]
        for name, on in (("ppocrv6-small", False), (str(tmp_path), True))
    )
    assert plain.keys() == weighed.keys() == {"Invoice,", "total", "zqjw", "receipt", "117"}
    for text, word in weighed.items():
        p = plain[text].text_confidence
        if text in ("total", "receipt"):
            p = p * 8 / (1 + 7 * p)
            assert word.text_confidence > plain[text].text_confidence
        if text != "Invoice,":  # its comma is not weighed
            assert word.text_confidence == pytest.approx(p, abs=1e-4)
        assert np.prod(word.char_confidences) == pytest.approx(word.text_confidence, abs=1e-5)
