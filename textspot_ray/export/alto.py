"""ALTO 4 with polygons: one file per image, as its description names one source image.

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
        """Functions for the template."""
        return {
            "place": _place,
            "rotation": _rotation,
            "character_confidences": _character_confidences,
        }


def _place(layout: PageLayout, box: Box) -> Markup:
    left, top, right, bottom = layout.clipped(box)
    return Markup(f'HPOS="{left}" VPOS="{top}" WIDTH="{right - left}" HEIGHT="{bottom - top}"')


def _rotation(line: TextLine) -> str:
    return f"{-round(line.angle_deg, 2) or 0.0:g}"  # counter-clockwise in ALTO


def _character_confidences(word: PageWord) -> str:
    """ALTO's digit per character: 0 is certain, 9 uncertain."""
    return " ".join(str(round(9 * (1 - value))) for value in word.char_confidences)
