"""Tesseract's TSV: a row for each page, block, paragraph, line and word; levels 1 to 5.

Columns and levels as `tesseract image out tsv` writes them: the confidence is -1 but for words,
which have 0 to 100. A file of several images has a further column at the end, the image's name.
"""

from __future__ import annotations

from typing import ClassVar

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout

_COLUMNS = "level page_num block_num par_num line_num word_num left top width height conf text"


class Writer(TextWriter):
    """Writes Tesseract TSV."""

    suffix: ClassVar[str] = ".tsv"

    def head(self) -> str:
        """The column names."""
        columns = _COLUMNS.split(" ") + (["image"] if self.options.several else [])
        return "\t".join(columns) + "\n"

    def page(self, layout: PageLayout, number: int) -> str:
        """Rows of one image; each line is a block, as scene text has no paragraphs."""
        tail = f"\t{_cell(layout.name)}\n" if self.options.several else "\n"
        whole = (0, 0, layout.width, layout.height)
        rows = [_row(1, number, (0, 0, 0, 0), whole)]
        for block, line in enumerate(layout.lines, start=1):
            box = layout.clipped(line.box)
            rows.append(_row(2, number, (block, 0, 0, 0), box))
            rows.append(_row(3, number, (block, 1, 0, 0), box))
            rows.append(_row(4, number, (block, 1, 1, 0), box))
            for n, word in enumerate(line.words, start=1):
                confidence = f"{100 * word.text_confidence:.6f}"
                place = layout.clipped(word.box)
                rows.append(_row(5, number, (block, 1, 1, n), place, confidence, word.text))
        return "".join(row + tail for row in rows)


def _row(
    level: int,
    page: int,
    place: tuple[int, int, int, int],
    box: tuple[int, int, int, int],
    confidence: str = "-1",
    text: str = "",
) -> str:
    left, top, right, bottom = box
    cells = (level, page, *place, left, top, right - left, bottom - top, confidence, _cell(text))
    return "\t".join(str(cell) for cell in cells)


def _cell(text: str) -> str:
    return " ".join(text.split())  # a tab or line end would break the table
