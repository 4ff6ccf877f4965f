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


def points(polygon: Sequence[tuple[float, float]], comma: bool = False) -> str:
    """Corners as ``x y x y ...`` or ``x,y x,y ...`` in whole pixels."""
    joint = "," if comma else " "
    return " ".join(f"{round(x)}{joint}{round(y)}" for x, y in polygon)
