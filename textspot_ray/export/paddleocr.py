"""PaddleOCR's label file: a line per image, its path, a tab, and its words as JSON.

As PPOCRLabel writes ``Label.txt`` and as PaddleOCR's ``SimpleDataSet`` reads it for detection:
corners clockwise from the text's top left, in whole pixels.
"""

from __future__ import annotations

import json
from typing import ClassVar

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout


class Writer(TextWriter):
    """Writes label lines."""

    suffix: ClassVar[str] = ".txt"

    def page(self, layout: PageLayout, number: int) -> str:
        """One line."""
        words = [
            {
                "transcription": word.text,
                "points": [
                    [round(x), round(y)]
                    for x, y in zip(word.polygon[0::2], word.polygon[1::2], strict=True)
                ],
                "difficult": False,
            }
            for line in layout.lines
            for word in line.words
        ]
        name = " ".join(layout.name.split("\t"))
        return f"{name}\t{json.dumps(words, ensure_ascii=False)}\n"
