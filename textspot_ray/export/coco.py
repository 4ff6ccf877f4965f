"""COCO JSON, one file for all images: boxes, quads as segmentation, texts and scores.

Texts and confidences are in each annotation's ``attributes``, where CVAT and Datumaro look, and
beside it under ``text``. Annotations follow the images in the file, so they wait in a temporary
file until all images are written: memory does not grow with the table.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from typing import ClassVar

from textspot_ray._version import __version__
from textspot_ray.export.formats import FormatOptions, TextWriter
from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import PageWord

_CHUNK = 2**20


class Writer(TextWriter):
    """Writes COCO; ``page`` returns the image's entry and stores its annotations."""

    suffix: ClassVar[str] = ".json"

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        self._annotations = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._images = 0
        self._count = 0

    def head(self) -> str:
        """Start of the object."""
        info = {"description": f"words found by textspot-ray {__version__}"}
        categories = [{"id": 1, "name": "text", "supercategory": "text"}]
        return (
            f'{{"info": {json.dumps(info)}, "licenses": [],\n'
            f'"categories": {json.dumps(categories)},\n"images": ['
        )

    def page(self, layout: PageLayout, number: int) -> str:
        """The image's entry."""
        for word in layout.page.words:
            self._add(layout, word, number)
        entry = {
            "id": number,
            "file_name": layout.name,
            "width": layout.width,
            "height": layout.height,
        }
        self._images += 1
        return (",\n" if self._images > 1 else "\n") + json.dumps(entry, ensure_ascii=False)

    def foot(self) -> Iterable[str]:
        """The annotations."""
        self._annotations.seek(0)
        yield '],\n"annotations": ['
        while text := self._annotations.read(_CHUNK):
            yield text
        self._annotations.close()
        yield "]}\n"

    def _add(self, layout: PageLayout, word: PageWord, number: int) -> None:
        polygon = layout.polygon(word)
        twice = sum(
            polygon[n - 1][0] * y - x * polygon[n - 1][1] for n, (x, y) in enumerate(polygon)
        )
        x0, y0, x1, y1 = (float(value) for value in word.box)
        self._count += 1
        entry = {
            "id": self._count,
            "image_id": number,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": round(abs(twice) / 2, 2),
            "segmentation": [[round(v, 2) for point in polygon for v in point]],
            "score": round(word.detection_confidence, 4),
            "text": word.text,
            "attributes": {
                "text": word.text,
                "text_confidence": round(word.text_confidence, 4),
                "angle_deg": round(word.angle_deg, 2),
            },
        }
        self._annotations.write(
            (",\n" if self._count > 1 else "\n") + json.dumps(entry, ensure_ascii=False)
        )
