"""Exports of formats that hold pixels: images are read again, a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textspot_ray.export.formats import ExportReport
from textspot_ray.export.names import ImageNames
from textspot_ray.query.pages import Page
from textspot_ray.query.pictures import Pictures

if TYPE_CHECKING:
    from textspot_ray.images.decode import Decoded

_AT_A_TIME = 32  # images whose places in archives are looked up together


@dataclass(frozen=True, slots=True)
class PixelExport:
    """The argument of ``write`` in a module of a format with pixels.

    Attributes:
        pages: The images with their words.
        pictures: Where their pixels are read from.
        out: A folder, or a file; any fsspec URI.
        names: How images are called.
        report: Counts are added to it.
        options: fsspec options by protocol.
    """

    pages: Iterable[Page]
    pictures: Pictures
    out: str
    names: ImageNames
    report: ExportReport
    options: Mapping[str, Any] | None = None

    def files(self) -> Iterator[tuple[Page, bytes, Decoded]]:
        """Images with their file and what it decodes to (H x W x 3, BGR, upright).

        Failed images, and those whose picture cannot be read again, are counted and left out.
        """
        waiting = self._sound()
        while some := list(itertools.islice(waiting, _AT_A_TIME)):
            for page, data, decoded, _ in self.pictures.opened(some):
                if decoded is None:
                    self.report.unread += 1
                    continue
                self.report.count(page)
                yield page, data, decoded

    def _sound(self) -> Iterator[Page]:
        for page in self.pages:
            if page.status == "failed":
                self.report.failed += 1
            else:
                yield page
