"""Export formats: one module each, whose ``Writer`` turns images into text, and this register.

To add one: write a module with a ``Writer`` (see the protocol), name it in `FORMATS`, and validate
what it writes with the format's own schema or reader in the tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

from textspot_ray.export.layout import PageLayout

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
    """What a writer may do differently.

    Attributes:
        several: The file may hold several images, so it says which words are of which.
        confidences: Results are written with confidences, where the format has that as a choice.
    """

    several: bool = False
    confidences: bool = False


class Writer(Protocol):
    """What a format's module offers as ``Writer``, made anew with options for each file.

    Attributes:
        suffix: Of one image's file.
        many: Whether one file can hold several images.
        failed: Whether images that failed are written too, as the format can say that they did.
    """

    suffix: ClassVar[str]
    many: ClassVar[bool]
    failed: ClassVar[bool]

    def __init__(self, options: FormatOptions) -> None: ...

    def head(self) -> str:
        """What the file starts with."""
        ...

    def page(self, layout: PageLayout, number: int) -> str:
        """One image; numbers count from 1."""
        ...

    def foot(self) -> Iterable[str]:
        """What the file ends with, in pieces."""
        ...


class TextWriter:
    """A writer of a format without head or foot, to inherit from."""

    many: ClassVar[bool] = True
    failed: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        self.options = options

    def head(self) -> str:
        """Nothing."""
        return ""

    def foot(self) -> Iterable[str]:
        """Nothing."""
        return ()


def writer_class(name: str) -> type[Writer]:
    """The class of a text format's writers."""
    module = importlib.import_module(f"textspot_ray.export.{name}")
    return cast("type[Writer]", module.Writer)


def make_writer(name: str, options: FormatOptions | None = None) -> Writer:
    """A writer of a text format, for one file."""
    return writer_class(name)(options or FormatOptions())
