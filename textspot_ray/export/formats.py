"""Export formats, one module each: ``Writer`` objects that turn pages into text."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Protocol, cast

from textspot_ray.query.pages import Page

FORMATS = ("tsv", "hocr", "alto", "jsonl", "txt", "icdar", "coco")


class Writer(Protocol):
    """What a format's module offers as ``Writer``, made anew for each file.

    Attributes:
        suffix: Of one image's file.
        prefix: Of one image's file, before the image's name.
        many: Whether one file can hold several images.
    """

    suffix: str
    prefix: str
    many: bool

    def head(self) -> str:
        """What the file starts with."""
        ...

    def page(self, page: Page, number: int) -> str:
        """One image; numbers count from 1."""
        ...

    def foot(self) -> Iterable[str]:
        """What the file ends with, in pieces."""
        ...


def make_writer(name: str) -> Writer:
    """A writer of a format."""
    module = importlib.import_module(f"textspot_ray.export.{name}")
    return cast(Writer, module.Writer())
