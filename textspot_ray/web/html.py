"""Self-contained HTML: everything from tables escaped, a content policy, no outside resource."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from textspot_ray.query.charts import number
from textspot_ray.query.figures import Figures, charts
from textspot_ray.query.output import printable


def asset(name: str) -> str:
    """A file of the package's ``insight/assets``."""
    return (resources.files("textspot_ray.web") / "assets" / name).read_text(encoding="utf-8")


def document(title: str, body: str, scripts: Sequence[str], data: Any = None) -> str:
    """A whole page that holds its style, scripts and data.

    Scripts and style are named by hash in the page's policy, so that markup which slipped into it
    would still not run.
    """
    style = asset("page.css")
    script = "\n".join(scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    holder = ""
    if data is not None:
        holder = f'<script type="application/json" id="data">{json_in_html(data)}</script>\n'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"{holder}<script>{script}</script>\n</body>\n</html>\n"
    )


def json_in_html(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    dumped = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return dumped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def text(value: object) -> str:
    """Text for HTML content and attributes; control characters are shown, not sent."""
    return escape(printable(str(value)))


def table(
    names: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()
) -> str:
    """An HTML table; the columns named in ``numbers`` go to the right."""
    kinds = [' class="number"' if name in numbers else "" for name in names]
    head = "".join(f"<th{kind}>{text(name)}</th>" for name, kind in zip(names, kinds, strict=True))
    lines = [
        "<tr>"
        + "".join(f"<td{kind}>{_cell(v)}</td>" for v, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    ]
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def tiles(values: Iterable[tuple[str, float]]) -> str:
    """Large numbers with captions."""
    parts = (
        f'<div class="tile"><b>{_grouped(value)}</b><span>{text(name)}</span></div>'
        for name, value in values
    )
    return f'<div class="tiles">{"".join(parts)}</div>'


def figures_section(figures: Figures) -> str:
    """Totals, plots and runs."""
    t = figures.totals
    parts = [
        tiles(
            [
                ("images", t.images),
                ("with words", t.with_words),
                ("without words", t.empty),
                ("failed", t.failed),
                ("words", t.words),
                ("boxes without text", t.unread),
            ]
        ),
        f'<div class="charts">{"".join(charts(figures))}</div>',
        "<h2>Runs</h2>",
        table(
            ("run", "images", "words", "failed", "seconds", "images/s"),
            figures.runs,
            ("images", "words", "failed", "seconds", "images/s"),
        ),
    ]
    if figures.failures:
        parts += [
            "<h2>Failures</h2>",
            table(
                ("stage and kind", "images"),
                [(bin.label, bin.count) for bin in figures.failures],
                ("images",),
            ),
        ]
    return "".join(parts)


def jpeg_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return _grouped(value)
    return text(value)


def _grouped(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
