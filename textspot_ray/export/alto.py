"""ALTO 4: one file per image, as its description names one source image; polygons kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textspot_ray._version import __version__
from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import Box, PageLayout, TextLine
from textspot_ray.export.xml_text import points, xml_text
from textspot_ray.query.pages import PageWord


class Writer(TextWriter):
    """Writes ALTO."""

    suffix: ClassVar[str] = ".xml"
    many: ClassVar[bool] = False

    def head(self) -> str:
        """Declaration and root element."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"'
            ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            ' xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4#'
            ' http://www.loc.gov/standards/alto/v4/alto-4-2.xsd">\n'
        )

    def page(self, layout: PageLayout, number: int) -> str:
        """Description and layout of the image."""
        width, height = layout.width, layout.height
        return (
            "<Description>\n<MeasurementUnit>pixel</MeasurementUnit>\n"
            f"<sourceImageInformation><fileName>{xml_text(layout.name)}</fileName>"
            "</sourceImageInformation>\n"
            '<Processing ID="spotting"><processingSoftware>'
            "<softwareName>textspot-ray</softwareName>"
            f"<softwareVersion>{xml_text(__version__)}</softwareVersion>"
            "</processingSoftware></Processing>\n</Description>\n<Layout>\n"
            f'<Page ID="page_{number}" PHYSICAL_IMG_NR="{layout.page.page + 1}" WIDTH="{width}"'
            f' HEIGHT="{height}">\n'
            f'<PrintSpace HPOS="0" VPOS="0" WIDTH="{width}" HEIGHT="{height}">\n'
            + "".join(_line(layout, line, n) for n, line in enumerate(layout.lines, start=1))
            + "</PrintSpace>\n</Page>\n</Layout>\n"
        )

    def foot(self) -> Iterable[str]:
        """End of the root element."""
        return ("</alto>\n",)


def _line(layout: PageLayout, line: TextLine, number: int) -> str:
    place = _place(layout, line.box)
    angle = f' ROTATION="{-round(line.angle_deg, 2) or 0.0:g}"'  # counter-clockwise in ALTO
    base = points(layout.baseline(line), comma=True)
    words = "".join(
        _word(layout, word, f"{number}_{k}") for k, word in enumerate(line.words, start=1)
    )
    return (
        f'<TextBlock ID="block_{number}" {place}{angle}>\n'
        f'<TextLine ID="line_{number}" BASELINE="{base}" {place}>\n'
        f"{words}</TextLine>\n</TextBlock>\n"
    )


def _word(layout: PageLayout, word: PageWord, name: str) -> str:
    return (
        f'<String ID="word_{name}" {_place(layout, word.box)} WC="{word.text_confidence:.4f}"'
        f' CC="{_unsureness(word)}" CONTENT="{xml_text(word.text)}">'
        f'<Shape><Polygon POINTS="{points(layout.polygon(word))}"/></Shape></String>\n'
    )


def _unsureness(word: PageWord) -> str:
    """ALTO's digit a character: 0 is sure, 9 unsure."""
    return " ".join(str(round(9 * (1 - value))) for value in word.char_confidences)


def _place(layout: PageLayout, box: Box) -> str:
    left, top, right, bottom = layout.clipped(box)
    return f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"'
