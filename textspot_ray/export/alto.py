"""ALTO 4: one file an image, as its description names one source image; polygons kept."""

from __future__ import annotations

from collections.abc import Iterable

from textspot_ray._version import __version__
from textspot_ray.export.xml_text import points, xml_text
from textspot_ray.query.pages import Page, PageWord
from textspot_ray.reading_order import bounds, text_lines


class Writer:
    """Writes ALTO."""

    suffix = ".xml"
    prefix = ""
    many = False

    def head(self) -> str:
        """Declaration and root element."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"'
            ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            ' xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4#'
            ' http://www.loc.gov/standards/alto/v4/alto-4-2.xsd">\n'
        )

    def page(self, page: Page, number: int) -> str:
        """Description and layout of the image."""
        width, height = page.width or 0, page.height or 0
        lines = text_lines(page.words)
        return (
            "<Description>\n<MeasurementUnit>pixel</MeasurementUnit>\n"
            f"<sourceImageInformation><fileName>{xml_text(page.image_id)}</fileName>"
            "</sourceImageInformation>\n"
            '<Processing ID="spotting"><processingSoftware>'
            "<softwareName>textspot-ray</softwareName>"
            f"<softwareVersion>{xml_text(__version__)}</softwareVersion>"
            "</processingSoftware></Processing>\n</Description>\n<Layout>\n"
            f'<Page ID="page_{number}" PHYSICAL_IMG_NR="{number}" WIDTH="{width}"'
            f' HEIGHT="{height}">\n'
            f'<PrintSpace HPOS="0" VPOS="0" WIDTH="{width}" HEIGHT="{height}">\n'
            + "".join(_line(line, n) for n, line in enumerate(lines, start=1))
            + "</PrintSpace>\n</Page>\n</Layout>\n"
        )

    def foot(self) -> Iterable[str]:
        """End of the root element."""
        return ("</alto>\n",)


def _line(line: list[PageWord], number: int) -> str:
    place = _place(bounds(line))
    angle = f' ROTATION="{-round(line[0].angle_deg, 2) or 0.0:g}"'  # counter-clockwise in ALTO
    words = "".join(_word(word, f"{number}_{k}") for k, word in enumerate(line, start=1))
    return (
        f'<TextBlock ID="block_{number}" {place}{angle}>\n<TextLine ID="line_{number}" {place}>\n'
        f"{words}</TextLine>\n</TextBlock>\n"
    )


def _word(word: PageWord, name: str) -> str:
    return (
        f'<String ID="word_{name}" {_place(word.box)} WC="{word.text_confidence:.4f}"'
        f' CC="{_unsureness(word)}" CONTENT="{xml_text(word.text)}">'
        f'<Shape><Polygon POINTS="{points(word.polygon)}"/></Shape></String>\n'
    )


def _unsureness(word: PageWord) -> str:
    """ALTO's digit a character: 0 is sure, 9 unsure."""
    return " ".join(str(round(9 * (1 - value))) for value in word.char_confidences)


def _place(box: tuple[float, float, float, float]) -> str:
    left, top = round(box[0]), round(box[1])
    width, height = round(box[2]) - left, round(box[3]) - top
    return f'HPOS="{left}" VPOS="{top}" WIDTH="{width}" HEIGHT="{height}"'
