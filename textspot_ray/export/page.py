"""PAGE XML 2019-07-15: one file per image; a region, a line and its words, each with a polygon.

Schema: http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15/pagecontent.xsd
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import ClassVar

from textspot_ray._version import __version__
from textspot_ray.export.formats import FormatOptions, TextWriter
from textspot_ray.export.layout import PageLayout, TextLine
from textspot_ray.export.xml_text import points, xml_text
from textspot_ray.query.pages import PageWord

_SPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"


class Writer(TextWriter):
    """Writes PAGE XML."""

    suffix: ClassVar[str] = ".xml"
    many: ClassVar[bool] = False

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        self._now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def head(self) -> str:
        """Declaration, root element and metadata."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<PcGts xmlns="{_SPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            f' xsi:schemaLocation="{_SPACE} {_SPACE}/pagecontent.xsd">\n'
            f"<Metadata><Creator>textspot-ray {xml_text(__version__)}</Creator>"
            f"<Created>{self._now}</Created><LastChange>{self._now}</LastChange></Metadata>\n"
        )

    def page(self, layout: PageLayout, number: int) -> str:
        """Reading order and regions of the image; a line is a region of its own."""
        lines = layout.lines
        order = "".join(
            f'<RegionRefIndexed index="{n}" regionRef="region_{n}"/>' for n in range(len(lines))
        )
        ordered = f'<OrderedGroup id="order">{order}</OrderedGroup>'
        return (
            f'<Page imageFilename="{xml_text(layout.name)}" imageWidth="{layout.width}"'
            f' imageHeight="{layout.height}">\n'
            + (f"<ReadingOrder>{ordered}</ReadingOrder>\n" if lines else "")
            + "".join(_region(layout, line, n) for n, line in enumerate(lines))
            + "</Page>\n"
        )

    def foot(self) -> Iterable[str]:
        """End of the root element."""
        return ("</PcGts>\n",)


def _region(layout: PageLayout, line: TextLine, number: int) -> str:
    x0, y0, x1, y1 = layout.clipped(line.box)
    corners = _coords([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    base = points(layout.baseline(line), comma=True)
    words = "".join(_word(layout, word, f"{number}_{k}") for k, word in enumerate(line.words))
    text = _text(line.text)
    return (
        f'<TextRegion id="region_{number}" orientation="{-line.angle_deg + 0.0:.2f}">{corners}\n'
        f'<TextLine id="line_{number}">{corners}<Baseline points="{base}"/>\n'
        f"{words}{text}</TextLine>\n{text}</TextRegion>\n"
    )


def _word(layout: PageLayout, word: PageWord, name: str) -> str:
    return (
        f'<Word id="word_{name}">{_coords(layout.polygon(word))}'
        f"{_text(word.text, word.text_confidence)}</Word>\n"
    )


def _coords(polygon: Iterable[tuple[float, float]]) -> str:
    return f'<Coords points="{points(list(polygon), comma=True)}"/>'


def _text(text: str, confidence: float | None = None) -> str:
    sure = "" if confidence is None else f' conf="{confidence:.4f}"'
    return f"<TextEquiv{sure}><Unicode>{xml_text(text)}</Unicode></TextEquiv>"
