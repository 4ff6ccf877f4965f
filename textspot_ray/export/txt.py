"""Plain text: lines in reading order; in a file of several images each starts with a form feed."""

from __future__ import annotations

from collections.abc import Iterable

from textspot_ray.query.pages import Page
from textspot_ray.reading_order import text_lines


class Writer:
    """Writes text; a form feed parts images, as Tesseract does."""

    suffix = ".txt"
    prefix = ""
    many = True

    def head(self) -> str:
        """Nothing."""
        return ""

    def page(self, page: Page, number: int) -> str:
        """The image's lines."""
        lines = [" ".join(word.text for word in line) for line in text_lines(page.words)]
        return ("\f" if number > 1 else "") + "".join(f"{line}\n" for line in lines)

    def foot(self) -> Iterable[str]:
        """Nothing."""
        return ()
