"""ALTO 4: one file per image, as its description names one source image; polygons kept.

Corners and baselines have the hundredths that the schema allows; boxes are whole pixels, as most
readers take them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from markupsafe import Markup

from textspot_ray.export.layout import Box, PageLayout, TextLine
from textspot_ray.export.markup import MarkupWriter
from textspot_ray.query.pages import PageWord


class Writer(MarkupWriter):
    """Writes ALTO."""

    suffix: ClassVar[str] = ".xml"
    many: ClassVar[bool] = False
    template: ClassVar[str] = "alto.xml"

    def helpers(self) -> dict[str, Any]:
        """What only this template asks for."""
        return {"place": _place, "rotation": _rotation, "unsureness": _unsureness}


def _place(layout: PageLayout, box: Box) -> Markup:
    left, top, right, bottom = layout.clipped(box)
    return Markup(f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"')


def _rotation(line: TextLine) -> str:
    return f"{-round(line.angle_deg, 2) or 0.0:g}"  # counter-clockwise in ALTO


def _unsureness(word: PageWord) -> str:
    """ALTO's digit a character: 0 is sure, 9 unsure."""
    return " ".join(str(round(9 * (1 - value))) for value in word.char_confidences)
