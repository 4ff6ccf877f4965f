"""JSON lines: one object per image, with all columns of its words."""

from __future__ import annotations

import json
import math
from typing import ClassVar

from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout


class Writer(TextWriter):
    """Writes JSON lines; failed images and images without words are there too."""

    suffix: ClassVar[str] = ".json"
    failed: ClassVar[bool] = True

    def page(self, layout: PageLayout, number: int) -> str:
        """One line; ``line`` counts the lines of text in reading order."""
        page = layout.page
        words = [
            {
                "text": word.text,
                "confidence": _number(word.text_confidence),
                "char_confidences": [_number(value) for value in word.char_confidences],
                "detection_confidence": _number(word.detection_confidence),
                "box": [_number(value) for value in word.box],
                "polygon": [_number(value) for value in word.polygon],
                "angle_deg": _number(word.angle_deg),
                "word_index": word.word_index,
                "line": n,
            }
            for n, line in enumerate(layout.lines)
            for word in line.words
        ]
        data = {
            "image_id": page.image_id,
            "name": layout.name,
            "source": page.source,
            "member": page.member,
            "page": page.page,
            "width": page.width,
            "height": page.height,
            "status": page.status,
            "words": words,
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None  # the tables hold 32 bits
