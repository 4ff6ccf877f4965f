"""Tesseract's TSV: a row for each page, block, paragraph, line and word; levels 1 to 5.

Columns and levels as `tesseract image out tsv` writes them: the confidence is -1 but for words,
which have 0 to 100. There is no column for the image: in a file of several, ``page_num`` counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from textspot_ray.query.pages import Page
from textspot_ray.reading_order import bounds, text_lines

_COLUMNS = "level page_num block_num par_num line_num word_num left top width height conf text"


class Writer:
    """Writes Tesseract TSV."""

    suffix = ".tsv"
    prefix = ""
    many = True

    def head(self) -> str:
        """The column names."""
        return _COLUMNS.replace(" ", "\t") + "\n"

    def page(self, page: Page, number: int) -> str:
        """Rows of one image; each line is a block of its own, as scene text has no paragraphs."""
        rows = [_row(1, number, (0, 0, 0, 0), (0, 0, page.width or 0, page.height or 0))]
        for block, line in enumerate(text_lines(page.words), start=1):
            box = bounds(line)
            rows.append(_row(2, number, (block, 0, 0, 0), box))
            rows.append(_row(3, number, (block, 1, 0, 0), box))
            rows.append(_row(4, number, (block, 1, 1, 0), box))
            for n, word in enumerate(line, start=1):
                confidence = f"{100 * word.text_confidence:.6f}"
                rows.append(_row(5, number, (block, 1, 1, n), word.box, confidence, word.text))
        return "".join(rows)

    def foot(self) -> Iterable[str]:
        """Nothing."""
        return ()


def _row(
    level: int,
    page: int,
    place: tuple[int, int, int, int],
    box: tuple[float, float, float, float],
    confidence: str = "-1",
    text: str = "",
) -> str:
    left, top = round(box[0]), round(box[1])
    size = (round(box[2]) - left, round(box[3]) - top)
    clean = " ".join(text.split())  # a tab or line end would break the table
    cells = (level, page, *place, left, top, *size, confidence, clean)
    return "\t".join(str(cell) for cell in cells) + "\n"
