"""Pages from templates: all values are escaped, a content policy forbids outside resources.

Templates are in ``web/templates``, scripts and style in ``web/assets``. A page is either live (the
server delivers its assets) or standalone (one file with all assets, allowed by hash in the policy).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from textspot_ray.errors import printable
from textspot_ray.query.charts import HEIGHT, WIDTH, short_number
from textspot_ray.query.stats import Stats, charts
from textspot_ray.wording import number

ZOOM = "openseadragon/openseadragon.min.js"  # unchanged from npm's openseadragon 6.1.1
SHARED = (ZOOM, "page.js", "cards.js", "viewer.js")  # scripts of every page with pictures


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab of a page: its name in the template, its caption, and a count."""

    name: str
    caption: str
    count: int | None = None


@functools.cache
def asset(name: str) -> str:
    """A file of the package's ``web/assets``."""
    return (resources.files("textspot_ray.web") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("textspot_ray.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters.update(short=short_number, grouped=number, cell=_cell)
    made.globals.update(chart_width=WIDTH, chart_height=HEIGHT, rows_of=_rows_of)
    return made


def live(template: str, **values: Any) -> str:
    """A page of the server, which delivers the assets.

    Args:
        template: File in ``web/templates``.
        values: What the template shows; text is escaped there.
    """
    return (
        _environment()
        .get_template(template)
        .render(values, policy=None, style=None, inline_scripts=(), data=None)
    )


def standalone(template: str, scripts: Sequence[str] = (), data: Any = None, **values: Any) -> str:
    """A page in one file that holds its style, scripts and data.

    The page's policy allows scripts and style by hash, so that injected markup would not run.

    Args:
        template: File in ``web/templates``.
        scripts: Assets to run, in this order.
        data: What the scripts find in the element ``data``, as JSON.
        values: What the template shows; text is escaped there.
    """
    style = asset("page.css")
    contents = [asset(name) for name in scripts]
    allowed = " ".join(f"'{_digest(content)}'" for content in contents) or "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            values,
            policy=policy,
            style=style,
            inline_scripts=contents,
            scripts=(),
            data=None if data is None else json_in_html(data),
        )
    )


def figures_svg(stats: Stats, uri: str) -> str:
    """The charts of a table as one SVG drawing."""
    template = _environment().get_template("plots.svg")
    return template.render(title=printable(uri), charts=charts(stats.figures))


def json_in_html(data: Any) -> str:
    """JSON that cannot close the HTML element around it."""
    dumped = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return dumped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def jpeg_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _shown(value: Any) -> Any:
    """Text with control characters shown as escapes; our own markup unchanged."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def _rows_of(records: Sequence[Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(record, name) for name in names) for record in records]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return short_number(value)
    if isinstance(value, int):
        return number(value)
    return str(value)


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
