"""ICDAR robust reading results: ``res_<image>.txt`` with eight coordinates and the text a line.

A folder or zip of them is what the organisers' evaluation takes (task 4.4, without confidences).
"""

from __future__ import annotations

from collections.abc import Iterable

from textspot_ray.query.pages import Page


class Writer:
    """Writes one result file an image."""

    suffix = ".txt"
    prefix = "res_"
    many = False

    def head(self) -> str:
        """Nothing."""
        return ""

    def page(self, page: Page, number: int) -> str:
        """The image's words in table order; lines end as the organisers' samples do."""
        return "".join(
            ",".join(str(round(value)) for value in word.polygon) + f",{word.text}\r\n"
            for word in page.words
        )

    def foot(self) -> Iterable[str]:
        """Nothing."""
        return ()
