"""Exports of a table of real pictures, opened by the programs they are for.

    TEXTSPOT_TABLE=tables python -m pytest -m interop tests/interop/test_a_real_table.py

The pictures must lie where the table says. A table of 173 photos, receipts and pages takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.export.test_export import schema
from tests.unit.export.test_round_trip import READERS, check
from textspot_ray.export.export import ExportSettings, export_table
from textspot_ray.query.pages import Page, read_pages
from textspot_ray.query.views import open_views

TABLE = os.environ.get("TEXTSPOT_TABLE", "")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not TABLE, reason="TEXTSPOT_TABLE names no table"),
]


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    """Every image that was read, with the words that exports have."""
    with open_views(TABLE) as tables:
        found = [page for page in read_pages(tables) if page.status != "failed"]
    assert found
    return found


def export(format: str, out: Path, limit: int | None = None) -> Path:
    with open_views(TABLE) as tables:
        export_table(tables, format, str(out), ExportSettings(limit=limit))
    return out


def test_hocr_meets_its_specification(pages: list[Page], tmp_path: Path) -> None:
    validate = pytest.importorskip("hocr_spec.validate")
    out = export("hocr", tmp_path / "all.hocr")
    words = out.read_text().count("class='ocrx_word'") + out.read_text().count('class="ocrx_word"')
    assert words == sum(len(page.words) for page in pages)
    some = export("hocr", tmp_path / "some.hocr", limit=20)  # the validator takes a minute for 600
    with some.open("rb") as file:
        report = validate.HocrValidator("standard").validate(file, parse_strict=True)
    assert report.is_valid(), report.format("text")[:2000]


@pytest.mark.parametrize(("format", "name"), [("alto", "alto4.xsd"), ("page", "page2019.xsd")])
def test_xml_is_valid(format: str, name: str, pages: list[Page], tmp_path: Path) -> None:
    etree = pytest.importorskip("lxml.etree")
    valid = schema(name)
    with zipfile.ZipFile(export(format, tmp_path / "all.zip")) as files:
        for file in files.namelist():
            assert valid.validate(etree.fromstring(files.read(file))), (file, valid.error_log)
        assert len(files.namelist()) == len(pages)


def test_coco_has_every_word_where_it_is(pages: list[Page], tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    found = coco.COCO(str(export("coco", tmp_path / "all.json")))
    assert len(found.imgs) == len(pages)
    assert len(found.anns) == sum(len(page.words) for page in pages)
    for annotation in list(found.anns.values())[::50]:
        x, y, width, height = annotation["bbox"]
        mask = found.annToMask(annotation)
        ys, xs = mask.nonzero()
        if len(xs):
            assert x - 2 <= xs.min() and xs.max() <= x + width + 2
            assert y - 2 <= ys.min() and ys.max() <= y + height + 2


def test_pandas_reads_the_words_of_tsv(pages: list[Page], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = pandas.read_csv(
        export("tsv", tmp_path / "all.tsv"), sep="\t", quoting=3, keep_default_na=False
    )
    said = Counter(rows[rows.level == 5].text.astype(str))
    assert said == Counter(word.text for page in pages for word in page.words)


@pytest.mark.parametrize("name", READERS)
def test_places_are_those_of_the_table(name: str, pages: list[Page], tmp_path: Path) -> None:
    assert check(TABLE, name, tmp_path) == sum(len(page.words) for page in pages)


def test_a_pdf_is_searched(pages: list[Page], tmp_path: Path) -> None:
    pytest.importorskip("pikepdf")
    if shutil.which("pdftotext") is None:
        pytest.skip("poppler-utils are not here")
    out = export("pdf", tmp_path / "all.pdf")
    said = subprocess.run(
        ["pdftotext", "-raw", str(out), "-"], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    read = Counter(re.findall(r"\S+", said.stdout))
    wanted = Counter(word.text for page in pages for word in page.words)
    found = sum((read & wanted).values())
    assert found >= 0.97 * sum(wanted.values()), f"{found} of {sum(wanted.values())}"
