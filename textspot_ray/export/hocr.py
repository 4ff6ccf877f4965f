"""hOCR 1.2: XHTML with boxes and confidences in titles; corners of words as ``poly``.

The direction of a line is told as Tesseract tells it, which is what readers know: up to 45 degrees
as the slope of its ``baseline`` (from the lower left corner of its box), beyond as a ``textangle``
(counter-clockwise) with the baseline in the frame that is turned by it. Readers that get both a
``textangle`` and a sloping baseline turn the text twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import quote

from textspot_ray._version import __version__
from textspot_ray.export.formats import TextWriter
from textspot_ray.export.layout import PageLayout, TextLine
from textspot_ray.export.xml_text import points, xml_text
from textspot_ray.query.pages import PageWord

_MAX_SKEW_DEG = 45.0
# readers cut titles at semicolons before they look for quotes
_UNQUOTABLE = re.compile(r"[;\"'\\\x00-\x1f]")


class Writer(TextWriter):
    """Writes hOCR."""

    suffix: ClassVar[str] = ".hocr"

    def head(self) -> str:
        """Declaration and capabilities."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"'
            ' "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
            '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="und" lang="und">\n<head>\n'
            "<title>textspot-ray</title>\n"
            '<meta http-equiv="Content-Type" content="text/html;charset=utf-8"/>\n'
            f'<meta name="ocr-system" content="textspot-ray {xml_text(__version__)}"/>\n'
            '<meta name="ocr-capabilities"'
            ' content="ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_poly ocrp_wconf"/>\n'
            "</head>\n<body>\n"
        )

    def page(self, layout: PageLayout, number: int) -> str:
        """One ``ocr_page``; each line is in an area of its own."""
        image = xml_text(_UNQUOTABLE.sub(lambda found: quote(found.group(), safe=""), layout.name))
        parts = [
            f'<div class="ocr_page" id="page_{number}"'
            f" title='image &quot;{image}&quot;; bbox 0 0 {layout.width} {layout.height};"
            f" ppageno {number - 1}'>\n"
        ]
        for n, line in enumerate(layout.lines, start=1):
            name = f"{number}_{n}"
            corners = layout.clipped(line.box)
            box = " ".join(map(str, corners))
            parts.append(
                f'<div class="ocr_carea" id="block_{name}" title="bbox {box}">\n'
                f'<p class="ocr_par" id="par_{name}" title="bbox {box}">\n'
                f'<span class="ocr_line" id="line_{name}"'
                f' title="bbox {box}; {_direction(line, corners)}">\n'
                + "".join(
                    _word(layout, word, f"{name}_{k}") for k, word in enumerate(line.words, start=1)
                )
                + "</span>\n</p>\n</div>\n"
            )
        parts.append("</div>\n")
        return "".join(parts)

    def foot(self) -> Iterable[str]:
        """End of the document."""
        return ("</body>\n</html>\n",)


def _word(layout: PageLayout, word: PageWord, name: str) -> str:
    title = (
        f"bbox {' '.join(map(str, layout.clipped(word.box)))};"
        f" poly {points(layout.polygon(word))};"
        f" x_wconf {round(100 * word.text_confidence)}"
    )
    text = xml_text(word.text)
    return f'<span class="ocrx_word" id="word_{name}" title="{title}">{text}</span>\n'


def _direction(line: TextLine, box: tuple[int, int, int, int]) -> str:
    """``baseline`` of a line that is level or skewed, ``textangle`` too of one that is turned."""
    left, top, right, bottom = box
    x, y = line.baseline[:2]
    if abs(line.angle_deg) <= _MAX_SKEW_DEG:
        slope = math.tan(math.radians(line.angle_deg))
        return f"baseline {_decimal(slope)} {round(y + slope * (left - x) - bottom)}"
    turn = math.radians(line.angle_deg)
    # how far below a point lies, in the line's frame; the frame's lower edge is the lowest corner
    across = (-math.sin(turn), math.cos(turn))
    lowest = max(cx * across[0] + cy * across[1] for cx in (left, right) for cy in (top, bottom))
    angle = _decimal(-line.angle_deg, 2)
    return f"textangle {angle}; baseline 0 {round(x * across[0] + y * across[1] - lowest)}"


def _decimal(value: float, digits: int = 4) -> str:
    """No exponent and no negative zero: readers look for digits and a point."""
    return f"{round(value, digits) + 0.0:.{digits}f}".rstrip("0").rstrip(".")
