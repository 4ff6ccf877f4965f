"""Formats written by templates: a head, the pages, and a foot.

Values in a template are made safe for XML (`xml_text`) unless they are `markupsafe.Markup`: they
are escaped, and characters that XML 1.0 does not allow are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar
from xml.sax.saxutils import escape

from jinja2 import Environment, PackageLoader, StrictUndefined

from textspot_ray._version import __version__
from textspot_ray.export.formats import FormatOptions, TextWriter
from textspot_ray.export.layout import PageLayout

_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class MarkupWriter(TextWriter):
    """Writes by the macros ``head()``, ``page(layout, number)`` and ``foot()`` of a template."""

    template: ClassVar[str]

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        given = {"version": __version__, "points": points, **self.helpers()}
        self._macros: Any = _environment().get_template(self.template).make_module(given)

    def helpers(self) -> dict[str, Any]:
        """What the template needs besides ``version`` and ``points``, by name."""
        return {}

    def head(self) -> str:
        """What comes before the first page."""
        return str(self._macros.head())

    def page(self, layout: PageLayout, number: int) -> str:
        """One image; numbers begin at 1."""
        return str(self._macros.page(layout, number))

    def foot(self) -> Iterable[str]:
        """What comes after the last page."""
        return (str(self._macros.foot()),)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("textspot_ray.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    return value if hasattr(value, "__html__") or not isinstance(value, str) else xml_text(value)


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
    return " ".join(f"{_number(x, digits)}{joint}{_number(y, digits)}" for x, y in polygon)


def _number(value: float, digits: int | None) -> str:
    return str(round(value)) if digits is None else f"{round(value, digits) + 0.0:.15g}"
