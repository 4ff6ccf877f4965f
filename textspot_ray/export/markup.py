"""Formats whose pages are templates: what comes before, each page, and what comes after.

What a template shows is made fit for XML by itself (`xml_text`), unless it is `markupsafe.Markup`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from textspot_ray._version import __version__
from textspot_ray.export.formats import FormatOptions, TextWriter
from textspot_ray.export.layout import PageLayout
from textspot_ray.export.xml_text import points, xml_text


class MarkupWriter(TextWriter):
    """Writes by the macros ``head()``, ``page(layout, number)`` and ``foot()`` of a template."""

    template: ClassVar[str]

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options)
        given = {"version": __version__, "points": points, **self.helpers()}
        self._macros: Any = _environment().get_template(self.template).make_module(given)

    def helpers(self) -> dict[str, Any]:
        """What the template asks for besides ``version`` and ``points``, by name."""
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
