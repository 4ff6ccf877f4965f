"""Text made fit for XML: escaped, and free of the characters that XML 1.0 cannot hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def xml_text(text: str) -> str:
    """Text for element content and for attributes."""
    return escape(
        _FORBIDDEN.sub("\ufffd", text),
        {'"': "&quot;", "'": "&#39;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"},
    )


def points(
    polygon: Sequence[tuple[float, float]], comma: bool = False, digits: int | None = None
) -> str:
    """Corners as ``x y x y ...`` or ``x,y x,y ...``.

    Args:
        polygon: x, y of each corner, pixels.
        comma: What stands between x and y.
        digits: Decimals of a pixel, for formats that have them; None: whole pixels.
    """
    joint = "," if comma else " "
    return " ".join(f"{_shown(x, digits)}{joint}{_shown(y, digits)}" for x, y in polygon)


def _shown(value: float, digits: int | None) -> str:
    return str(round(value)) if digits is None else f"{round(value, digits) + 0.0:.15g}"
