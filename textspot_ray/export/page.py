"""PAGE XML 2019-07-15: one file per image; a region, a line and its words, each with a polygon.

Schema: http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15/pagecontent.xsd
"""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from textspot_ray.export.layout import PageLayout, Points, TextLine
from textspot_ray.export.markup import MarkupWriter


class Writer(MarkupWriter):
    """Writes PAGE XML."""

    suffix: ClassVar[str] = ".xml"
    many: ClassVar[bool] = False
    template: ClassVar[str] = "page.xml"

    def helpers(self) -> dict[str, Any]:
        """Values for the template."""
        return {"now": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "upright": _upright}


def _upright(layout: PageLayout, line: TextLine) -> Points:
    x0, y0, x1, y1 = layout.clipped(line.box)
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
