"""Label Studio: one JSON array of tasks with pre-annotations for its template of text regions.

Coordinates are per cent of the picture's sides. The labelling configuration needs controls called
``poly`` (Polygon), ``label`` (Labels with the value ``Text``) and ``transcription`` (TextArea,
perRegion) for an Image called ``image``, as in Label Studio's OCR template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, ClassVar

from textspot_ray._version import __version__
from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import PageWord

_DIGITS = 6  # of per cent: a thousandth of a pixel in 100,000


class Writer(TextWriter):
    """Writes tasks."""

    suffix: ClassVar[str] = ".json"

    def head(self) -> str:
        """Start of the array."""
        return "["

    def page(self, layout: PageLayout, number: int) -> str:
        """One task with one prediction."""
        words = layout.page.words
        mean = sum(word.text_confidence for word in words) / len(words) if words else 0.0
        task = {
            "data": {"image": layout.name, "image_id": layout.page.image_id},
            "predictions": [
                {
                    "model_version": f"textspot-ray {__version__}",
                    "score": round(mean, 4),
                    "result": [part for word in words for part in _regions(layout, word)],
                }
            ],
        }
        return (",\n" if number > 1 else "\n") + json.dumps(task, ensure_ascii=False)

    def foot(self) -> Iterable[str]:
        """End of the array."""
        return ("\n]\n",)


def _regions(layout: PageLayout, word: PageWord) -> list[dict[str, Any]]:
    """A polygon, its label and its transcription: three results of one id."""
    shape = {
        "points": [
            [
                round(100 * x / max(layout.width, 1), _DIGITS),
                round(100 * y / max(layout.height, 1), _DIGITS),
            ]
            for x, y in layout.polygon(word)
        ],
        "closed": True,
    }
    common = {
        "id": f"word{word.word_index}",
        "to_name": "image",
        "original_width": layout.width,
        "original_height": layout.height,
        "image_rotation": 0,
    }
    sure = round(word.text_confidence, 4)
    return [
        {**common, "from_name": "poly", "type": "polygon", "value": shape},
        {**common, "from_name": "label", "type": "labels", "value": {**shape, "labels": ["Text"]}},
        {
            **common,
            "from_name": "transcription",
            "type": "textarea",
            "value": {**shape, "text": [word.text]},
            "score": sure,
        },
    ]
