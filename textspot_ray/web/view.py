"""One self-contained HTML file of a table: pictures with words, errors, figures."""

from __future__ import annotations

import contextlib
import tempfile
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textspot_ray.errors import UsageError
from textspot_ray.query.figures import compute
from textspot_ray.query.pages import Page, read_some
from textspot_ray.query.pictures import Picture, Pictures
from textspot_ray.query.search import Hit
from textspot_ray.query.views import TableViews
from textspot_ray.web import html as markup

_MAX_ERRORS = 1000

_BODY = """\
<header><h1>{title}</h1><p class="sub">{subtitle}</p></header>
<nav role="tablist">
<button type="button" role="tab" data-tab="images" aria-selected="{images_first}">Images</button>
<button type="button" role="tab" data-tab="errors" aria-selected="{errors_first}">
Errors ({failed})</button>
<button type="button" role="tab" data-tab="figures">Figures</button>
</nav>
<main>
<section id="images">
<div class="tools">
<label>Filter <input id="filter" type="search" placeholder="word or file name"></label>
<label>Confidence from <input id="least" type="range" min="0" max="1" step="0.01" value="{least}">
<output id="least-value"></output></label>
<span id="shown" role="status"></span>
</div>
<div id="cards" class="cards"></div>
</section>
<section id="errors" hidden>{errors}</section>
<section id="figures" hidden>{figures}</section>
</main>"""


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """What the page shows.

    Attributes:
        title: Heading.
        least: Where the confidence slider starts; None: the table's text threshold.
        thumb_px: Longer side of the pictures.
        errors_first: Whether the page opens on its errors.
        source_options: fsspec options for the images' sources.
    """

    title: str = "textspot-ray"
    least: float | None = None
    thumb_px: int = 960
    errors_first: bool = False
    source_options: Mapping[str, Any] | None = None


def sample_ids(tables: TableViews, count: int) -> list[str]:
    """Images to look at: chosen by a hash, so the same ones each time; those with words first."""
    return [
        image_id
        for (image_id,) in tables.rows(
            "SELECT image_id FROM images WHERE status <> 'failed' "
            "ORDER BY n_words = 0, hash(image_id) LIMIT $n",
            {"n": count},
        )
    ]


def render(
    tables: TableViews,
    image_ids: Sequence[str],
    settings: ViewSettings,
    hits: Mapping[str, Iterable[int]] | None = None,
) -> str:
    """The page.

    Args:
        tables: The opened table.
        image_ids: Images to show, in this order.
        settings: What else.
        hits: Word indexes to mark, by image.
    """
    found = read_some(tables, list(image_ids))
    pages = [found[image_id] for image_id in image_ids if image_id in found]
    marked = {image_id: set(indexes) for image_id, indexes in (hits or {}).items()}
    with Pictures(tables.files.store, settings.source_options) as pictures:
        images = [
            image_data(page, picture, marked.get(page.image_id, set()))
            for page, picture in pictures.scaled(pages, settings.thumb_px)
        ]
    figures = compute(tables)
    least = tables.files.text_threshold if settings.least is None else settings.least
    body = _BODY.format(
        title=markup.text(settings.title),
        subtitle=markup.text(f"{tables.uri}: {len(pages)} of {figures.totals.images} images"),
        failed=figures.totals.failed,
        images_first=str(not settings.errors_first).lower(),
        errors_first=str(settings.errors_first).lower(),
        least=f"{least:g}",
        errors=errors_section(tables, figures.totals.failed),
        figures=markup.figures_section(figures),
    )
    scripts = (markup.asset("cards.js"), markup.asset("view.js"))
    return markup.document(settings.title, body, scripts, {"images": images})


def image_data(page: Page, picture: Picture, marked: set[int]) -> dict[str, Any]:
    """An image as the pages' scripts take it."""
    return {
        "id": page.image_id,
        "w": page.width or 0,
        "h": page.height or 0,
        "src": markup.jpeg_uri(picture.jpeg) if picture.jpeg else None,
        "note": picture.note,
        "meta": image_meta(page),
        "words": words_data(page, marked),
    }


def image_meta(page: Page) -> str:
    """What a card says of its image besides its words."""
    return f"{page.width} x {page.height}" if page.width else page.status


def words_data(page: Page, marked: set[int]) -> list[dict[str, Any]]:
    """An image's words as the pages' scripts take them."""
    return [
        {
            "t": word.text,
            "c": round(word.text_confidence, 4),
            "p": [round(value, 1) for value in word.polygon],
            "hit": word.word_index in marked,
        }
        for word in page.words
    ]


def errors_section(tables: TableViews, failed: int) -> str:
    """The failed images as a table."""
    if not failed:
        return '<p class="message">No image failed.</p>'
    rows = tables.rows(
        "SELECT image_id, stage, kind, message, attempts FROM errors "
        f"ORDER BY stage, kind, image_id LIMIT {_MAX_ERRORS}"
    )
    more = ""
    if failed > len(rows):
        more = f'<p class="message">The first {len(rows)} of {failed}; textspot errors has all.</p>'
    names = ("image", "stage", "kind", "message", "attempts")
    return more + markup.table(names, rows, ("attempts",))


def show_hits(
    tables: TableViews,
    hits: Sequence[Hit],
    terms: str,
    *,
    out: str | None = None,
    show: bool = False,
    source_options: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a search's hits, and open it in the browser if asked to."""
    marked: dict[str, list[int]] = {}
    for hit in hits:
        marked.setdefault(hit.image_id, []).extend(word.word_index for word in hit.words)
    settings = ViewSettings(
        title=f"textspot-ray: {terms}" if terms else "textspot-ray", source_options=source_options
    )
    return write_page(render(tables, list(marked), settings, marked), out, show)


def write_page(page: str, out: str | None, show: bool = False) -> Path:
    """Write a page to a file (a temporary one for None).

    Raises:
        UsageError: It cannot be written.
    """
    try:
        if out is None:
            with tempfile.NamedTemporaryFile(
                "wb", prefix="textspot-", suffix=".html", delete=False
            ) as file:
                file.write(page.encode("utf-8", "replace"))
                path = Path(file.name)
        else:
            path = Path(out)
            path.write_bytes(page.encode("utf-8", "replace"))
    except OSError as exc:
        raise UsageError(f"cannot write {out}: {exc.strerror or exc}") from exc
    if show:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(path.resolve().as_uri())
    return path
