"""One self-contained HTML file of a table: pictures with words, errors, statistics."""

from __future__ import annotations

import contextlib
import tempfile
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from textspot_ray.errors import UsageError
from textspot_ray.query.destination import local_path
from textspot_ray.query.pages import read_some
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.source_roots import SourceRoots
from textspot_ray.query.stats import Stats, charts, compute_stats, words_below
from textspot_ray.query.views import TableViews
from textspot_ray.web import html
from textspot_ray.web.html import SHARED, Tab
from textspot_ray.web.image_data import WRITING_SYSTEMS, image_data, shown_name
from textspot_ray.wording import counted, number

_MAX_ERRORS = 1000


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """What the page shows.

    Attributes:
        title: Heading.
        min_confidence: Where the confidence slider starts; None: the table's text threshold.
        thumb_px: Longer side of the pictures; None: full size, for zooming in.
        errors_first: Whether the page opens on its errors.
        source_options: fsspec options for the images' sources.
        source_roots: Where the images have moved to since they were read.
    """

    title: str = "textspot-ray"
    min_confidence: float | None = None
    thumb_px: int | None = 960
    errors_first: bool = False
    source_options: Mapping[str, Any] | None = None
    source_roots: SourceRoots = field(default_factory=SourceRoots)


def sample_ids(tables: TableViews, count: int) -> list[str]:
    """A sample of images, chosen by a hash and so always the same; those with words first."""
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
    with Pictures(
        tables.files.store, settings.source_options, source_roots=settings.source_roots
    ) as pictures:
        images = [
            image_data(
                replace(page, source=settings.source_roots.move(page.source)),
                marked=marked.get(page.image_id, ()),
                picture=picture,
            )
            for page, picture in pictures.scaled(pages, settings.thumb_px)
        ]
    stats = compute_stats(tables)
    failed, damaged = stats.figures.totals.failed, shown_damage(tables)
    min_confidence = tables.min_confidence(settings.min_confidence)
    errors_first = settings.errors_first or (not images and bool(failed or damaged))
    return html.standalone(
        "view.html",
        (*SHARED, "view.js"),
        {"images": images},
        title=settings.title,
        subtitle=f"{tables.uri}: {len(pages)} of {counted(stats.figures.totals.images, 'image')}",
        note=threshold_note(tables, stats, min_confidence),
        tabs=(
            Tab("images", "Images", len(images)),
            Tab("errors", "Errors", failed + len(damaged)),
            Tab("figures", "Figures"),
        ),
        opened="errors" if errors_first else "images",
        least=f"{min_confidence:g}",
        writing_systems=tuple(WRITING_SYSTEMS),
        failed=failed,
        errors=shown_errors(tables) if failed else [],
        damaged=damaged,
        stats=stats,
        charts=charts(stats.figures),
    )


def figures_page(stats: Stats, uri: str) -> str:
    """A page of the statistics only."""
    return html.standalone(
        "figures.html",
        ("page.js", "figures.js"),
        title="textspot-ray: figures",
        subtitle=f"{uri}: {counted(stats.figures.totals.images, 'image')}",
        note="",
        tabs=(Tab("figures", "Figures"),),
        opened="figures",
        stats=stats,
        charts=charts(stats.figures),
    )


def threshold_note(tables: TableViews, stats: Stats, min_confidence: float) -> str:
    """A note how many words the page hides at first; may be empty.

    Args:
        tables: The opened table.
        stats: Its statistics.
        min_confidence: Where the confidence slider starts.
    """
    below = stats.figures.totals.below
    if min_confidence != tables.files.text_threshold:
        below = words_below(tables, min_confidence)
    if not below:
        return ""
    return (
        f"{number(below)} of {number(stats.figures.totals.words)} words were read with less "
        f"confidence than {min_confidence:g} and are hidden until you lower the slider"
    )


def shown_errors(tables: TableViews) -> list[tuple[Any, ...]]:
    """The first failed images: file name, kind, message, stage, attempts, folder."""
    rows = []
    for image_id, *facts in tables.rows(
        "SELECT image_id, kind, message, stage, attempts FROM errors "
        f"ORDER BY stage, kind, image_id LIMIT {_MAX_ERRORS}"
    ):
        folder, name = shown_name(image_id)
        rows.append((name, *facts, folder))
    return rows


def shown_damage(tables: TableViews) -> list[tuple[str, str, str]]:
    """The first images that were read from damaged files: file name, damage, folder."""
    rows = []
    for image_id, damage in tables.rows(
        "SELECT image_id, damage FROM images WHERE damage IS NOT NULL "
        f"ORDER BY image_id LIMIT {_MAX_ERRORS}"
    ):
        folder, name = shown_name(image_id)
        rows.append((name, damage, folder))
    return rows


def write_page(page: str, out: str | None, show: bool = False) -> Path:
    """Write a page to a file (a temporary one for None).

    Args:
        page: The page.
        out: The file.
        show: Whether to open it in the browser.

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
            path = local_path(out)
            path.write_bytes(page.encode("utf-8", "replace"))
    except OSError as exc:
        raise UsageError(f"cannot write {out}: {exc.strerror or exc}") from exc
    if show:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(path.resolve().as_uri())
    return path
