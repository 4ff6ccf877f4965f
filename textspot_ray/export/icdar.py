"""ICDAR robust reading results: ``res_<image>.txt`` with eight coordinates and the text a line.

A folder or zip of them is what the organisers' evaluation takes (task 4.4). With confidences each
line has the word's between the coordinates and the text, for evaluations that ask for it.
"""

from __future__ import annotations

from typing import ClassVar

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import PageWord


class Writer(TextWriter):
    """Writes one result file per image."""

    suffix: ClassVar[str] = ".txt"
    many: ClassVar[bool] = False

    def page(self, layout: PageLayout, number: int) -> str:
        """The image's words in table order; lines end as the organisers' samples do."""
        return "".join(self._line(word) for word in layout.page.words)

    def _line(self, word: PageWord) -> str:
        corners = ",".join(str(round(value)) for value in word.polygon)
        sure = f",{word.text_confidence:.4f}" if self.options.confidences else ""
        text = " ".join(word.text.splitlines())  # a line end would make two lines
        return f"{corners}{sure},{text}\r\n"
