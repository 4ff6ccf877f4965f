"""hOCR 1.2: XHTML with boxes and confidences in titles; corners of words as ``poly``.

The direction of a line is given as by Tesseract, which is what readers understand: up to 45 degrees
as the slope of its ``baseline`` (from the lower left corner of its box), beyond as a ``textangle``
(counter-clockwise) with the baseline in the rotated frame. Readers that get both a ``textangle``
and a sloping baseline rotate the text twice.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar
from urllib.parse import quote

from textspot_ray.export.layout import TextLine
from textspot_ray.export.markup import MarkupWriter
from textspot_ray.query.pages import PageWord

_MAX_SKEW_DEG = 45.0
# readers cut titles at semicolons before they look for quotes
_UNQUOTABLE = re.compile(r"[;\"'\\\x00-\x1f]")


class Writer(MarkupWriter):
    """Writes hOCR."""

    suffix: ClassVar[str] = ".hocr"
    template: ClassVar[str] = "hocr.html"

    def helpers(self) -> dict[str, Any]:
        """Functions for the template."""
        return {"direction": _direction, "quotable": _quotable, "percent": _percent}


def _quotable(name: str) -> str:
    """A name that is safe within the quotation marks of a title."""
    return _UNQUOTABLE.sub(lambda found: quote(found.group(), safe=""), name)


def _percent(word: PageWord) -> int:
    return round(100 * word.text_confidence)


def _direction(line: TextLine, box: tuple[int, int, int, int]) -> str:
    """``baseline`` of a level or skewed line, with ``textangle`` if the line is rotated."""
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
