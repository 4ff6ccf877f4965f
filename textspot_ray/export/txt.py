"""Plain text: lines in reading order.

In a file of several images each starts with its name, as ``head`` and ``tail`` print it, after a
form feed, with which Tesseract separates pages.
"""

from __future__ import annotations

from typing import ClassVar

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout


class Writer(TextWriter):
    """Writes text."""

    suffix: ClassVar[str] = ".txt"

    def page(self, layout: PageLayout, number: int) -> str:
        """The image's lines."""
        head = ""
        if self.options.several:
            name = " ".join(layout.name.split())
            head = ("\f" if number > 1 else "") + f"==> {name} <==\n"
        return head + "".join(f"{line.text}\n" for line in layout.lines)
