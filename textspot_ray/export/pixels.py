"""Pictures of images that are exported, read again a few at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from textspot_ray.query.pages import Page
from textspot_ray.query.pictures import Pictures

if TYPE_CHECKING:
    from textspot_ray.export.files import ExportReport

_AT_A_TIME = 32  # images whose places in archives are looked up together


def with_pixels(
    pages: Iterable[Page], pictures: Pictures, report: ExportReport
) -> Iterator[tuple[Page, NDArray[np.uint8]]]:
    """Images with their pixels (H x W x 3, BGR, upright).

    Args:
        pages: Images with their words.
        pictures: Where pictures are read from.
        report: Counts what is given, and what is left out: failed images, and those whose picture
            cannot be read again.
    """
    waiting = _sound(pages, report)
    while some := list(itertools.islice(waiting, _AT_A_TIME)):
        for page, image, _ in pictures.decoded(some):
            if image is None:
                report.unread += 1
                continue
            report.count(page)
            yield page, image


def _sound(pages: Iterable[Page], report: ExportReport) -> Iterator[Page]:
    for page in pages:
        if page.status == "failed":
            report.failed += 1
        else:
            yield page
