"""JSON lines: one object an image, with everything the tables know of its words."""

from __future__ import annotations

import json
from collections.abc import Iterable

from textspot_ray.query.pages import Page
from textspot_ray.reading_order import text_lines


class Writer:
    """Writes JSON lines; failed images and images without words are there too."""

    suffix = ".json"
    prefix = ""
    many = True

    def head(self) -> str:
        """Nothing."""
        return ""

    def page(self, page: Page, number: int) -> str:
        """One line; ``line`` counts the lines of text in reading order."""
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
            for n, line in enumerate(text_lines(page.words))
            for word in line
        ]
        data = {
            "image_id": page.image_id,
            "source": page.source,
            "member": page.member,
            "page": page.page,
            "width": page.width,
            "height": page.height,
            "status": page.status,
            "words": words,
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"

    def foot(self) -> Iterable[str]:
        """Nothing."""
        return ()


def _number(value: float) -> float:
    return round(float(value), 4)  # the tables hold 32-bit numbers
