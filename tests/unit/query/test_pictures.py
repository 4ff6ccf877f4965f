"""Pictures are read as the run that made the table read them, and drawn with their words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from textspot_ray.query.overlay import draw_words
from textspot_ray.query.pages import Page, PageWord
from textspot_ray.query.pictures import Pictures
from textspot_ray.storage.stores import open_store
from textspot_ray.tables.commit.ledger import open_ledger


def page_of(path: Path, number: int) -> Page:
    source = f"file://{path}"
    image_id = source if not number else f"{source}#page={number}"
    return Page(image_id, source, None, number, None, None, "empty", None, None, ())


@pytest.mark.parametrize("levels", [False, True])
def test_levels_of_a_tiff_are_pages_where_they_were(tmp_path: Path, levels: bool) -> None:
    path = tmp_path / "a.tif"
    shades = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    with tifffile.TiffWriter(path) as file:
        file.write(shades, photometric="minisblack")
        file.write(shades[::2, ::2], photometric="minisblack", subfiletype=1)
        file.write(255 - shades[:40], photometric="minisblack")
    store = open_store(str(tmp_path / "out"), create=True)
    open_ledger(store, {"precision": "f32", **({"tiff_levels": "pages"} if levels else {})})
    with Pictures(store) as pictures:
        found = [image for _, image, _ in pictures.decoded([page_of(path, n) for n in range(3)])]
    heights = [None if image is None else image.shape[0] for image in found]
    assert heights == ([64, 32, 40] if levels else [64, 40, None])


@pytest.mark.parametrize("dpi", [72, 200])
def test_pdf_pages_are_drawn_as_large_as_they_were(tmp_path: Path, dpi: int) -> None:
    pdfium = pytest.importorskip("pypdfium2")
    document = pdfium.PdfDocument.new()
    document.new_page(144, 72)
    path = tmp_path / "a.pdf"
    document.save(str(path))
    store = open_store(str(tmp_path / "out"), create=True)
    open_ledger(store, {"precision": "f32", **({"pdf_dpi": str(dpi)} if dpi != 200 else {})})
    with Pictures(store) as pictures:
        ((_, image, note),) = pictures.decoded([page_of(path, 0)])
    assert image is not None and image.shape[:2] == (dpi, 2 * dpi), note


def test_labels_of_words_at_the_edge_stay_in_the_picture() -> None:
    corner = (170.0, 0.0, 199.0, 20.0)
    polygon = (170.0, 0.0, 199.0, 0.0, 199.0, 20.0, 170.0, 20.0)
    word = PageWord("corner", 0.9, (0.9,) * 6, 0.9, corner, polygon, 0.0)
    page = Page("i", "i", None, 0, 200, 100, "ok", None, None, (word,))
    drawn = np.asarray(draw_words(np.zeros((100, 200, 3), np.uint8), page, 0.0))
    orange = (drawn == (255, 90, 0)).all(axis=2)
    assert orange[2:6, 172:197].any(), "above the picture"
    assert orange[:14, :168].any(), "right of the picture"
