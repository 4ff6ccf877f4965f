"""Export formats: one module each, whose ``Writer`` turns images into text, and this register.

To add one: write a module with a ``Writer`` (a `TextWriter`), name it in `FORMATS`, and validate
what it writes with the format's own schema or reader in the tests.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

from textspot_ray.export.layout import PageLayout
from textspot_ray.query.pages import Page

FORMATS = {
    "tsv": "Tesseract's TSV",
    "hocr": "hOCR 1.2",
    "alto": "ALTO 4",
    "page": "PAGE XML 2019",
    "jsonl": "JSON lines with all that the tables know",
    "txt": "plain text in reading order",
    "icdar": "ICDAR robust reading results",
    "coco": "COCO JSON",
    "labelstudio": "Label Studio tasks with pre-annotations",
    "paddleocr": "PaddleOCR's label file",
    "iiif": "W3C annotations in IIIF annotation pages",
    "pdf": "searchable PDF: pictures with invisible text",
    "crops": "pictures of single words with labels",
}
WITH_PIXELS = ("pdf", "crops")  # their modules have `write(PixelExport)` instead
TEXT_FORMATS = tuple(name for name in FORMATS if name not in WITH_PIXELS)


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Options of a writer.

    Attributes:
        several: The file may hold several images, so words are labelled with their image.
        confidences: Write confidences if the format has them as an option.
    """

    several: bool = False
    confidences: bool = False


@dataclass(slots=True)
class ExportReport:
    """What was written.

    Attributes:
        images: Written.
        words: Written.
        files: Written.
        failed: Images left out because they failed.
        below: Words of the written images left out because of their confidence.
        stale: Files in the folder that look like an earlier export's and were not written now.
        unread: Images left out because their pixels could not be read again.
    """

    images: int = 0
    words: int = 0
    files: int = 0
    failed: int = 0
    below: int = 0
    stale: int = 0
    unread: int = 0

    def count(self, page: Page) -> None:
        """Count an image that is written."""
        self.images += 1
        self.words += len(page.words)
        self.below += page.below


class TextWriter(abc.ABC):
    """Base class of each format's ``Writer``; one is made for each file.

    Attributes:
        suffix: Of one image's file.
        many: Whether one file can hold several images.
        failed: Whether failed images are written too, because the format can mark them.
    """

    suffix: ClassVar[str]
    many: ClassVar[bool] = True
    failed: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self.options = options

    def head(self) -> str:
        """What the file starts with."""
        return ""

    @abc.abstractmethod
    def page(self, layout: PageLayout, number: int) -> str:
        """One image; numbers count from 1."""

    def foot(self) -> Iterable[str]:
        """What the file ends with, in pieces."""
        return ()


def writer_class(name: str) -> type[TextWriter]:
    """The writer class of a text format."""
    module = importlib.import_module(f"textspot_ray.export.{name}")
    return cast("type[TextWriter]", module.Writer)
