"""COCO JSON, one file for all images: boxes, quads as segmentation, texts and scores.

Annotations follow the images in the file, so they wait in a temporary file until all images are
written: memory does not grow with the table.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable

from textspot_ray._version import __version__
from textspot_ray.query.pages import Page, PageWord

_CHUNK = 2**20


class Writer:
    """Writes COCO; ``page`` gives the image's entry and keeps its annotations."""

    suffix = ".json"
    prefix = ""
    many = True

    def __init__(self) -> None:
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

    def page(self, page: Page, number: int) -> str:
        """The image's entry."""
        for word in page.words:
            self._add(word, number)
        entry = {
            "id": number,
            "file_name": page.image_id,
            "width": page.width or 0,
            "height": page.height or 0,
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

    def _add(self, word: PageWord, number: int) -> None:
        x0, y0, x1, y1 = (float(value) for value in word.box)
        xs, ys = word.polygon[0::2], word.polygon[1::2]
        twice = sum(xs[n - 1] * ys[n] - xs[n] * ys[n - 1] for n in range(len(xs)))
        self._count += 1
        entry = {
            "id": self._count,
            "image_id": number,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
            "area": round(abs(twice) / 2, 2),
            "segmentation": [[round(float(value), 2) for value in word.polygon]],
            "score": round(word.detection_confidence, 4),
            "text": word.text,
            "text_score": round(word.text_confidence, 4),
        }
        self._annotations.write(
            (",\n" if self._count > 1 else "\n") + json.dumps(entry, ensure_ascii=False)
        )
