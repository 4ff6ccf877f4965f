"""Images with their words, streamed in table order: what exports, pages and diffs walk over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from textspot_ray.errors import TableError
from textspot_ray.query.sql import arrow_reader
from textspot_ray.query.views import TableViews

_IMAGE_COLUMNS = (
    "image_id, source, member, page, width, height, status, content_tag, bytes, n_words"
)
_WORD_COLUMNS = (
    "image_id, word_index, text, text_confidence, char_confidences, detection_confidence, "
    "x_min, y_min, x_max, y_max, polygon, angle_deg"
)


@dataclass(frozen=True, slots=True)
class PageWord:
    """A row of ``words``; geometry in pixels of the upright image."""

    word_index: int
    text: str
    text_confidence: float
    char_confidences: tuple[float, ...]
    detection_confidence: float
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...]
    angle_deg: float


@dataclass(frozen=True, slots=True)
class Page:
    """A row of ``images`` with its words. Width and height are None for failed images."""

    image_id: str
    source: str
    member: str | None
    page: int
    width: int | None
    height: int | None
    status: str
    content_tag: str | None
    bytes: int | None
    words: tuple[PageWord, ...]


def read_pages(
    tables: TableViews,
    *,
    source: str | None = None,
    min_confidence: float | None = None,
    limit: int | None = None,
) -> Iterator[Page]:
    """Every image with its words, in the order of the table's files.

    The two tables are read side by side, once. Words wait in memory only where their order differs
    from the images', which is inside a shard at most.

    Args:
        tables: The opened table.
        source: Glob on the source or the image id.
        min_confidence: Leave out words below; None: the table's text threshold.
        limit: At most so many images.

    Raises:
        TableError: An image's words are missing.
    """
    least = tables.files.text_threshold if min_confidence is None else min_confidence
    where, parameters = "", []
    if source is not None:
        where = " WHERE source GLOB ? OR image_id GLOB ?"
        parameters = [source, source]
    tail = f" LIMIT {int(limit)}" if limit is not None else ""
    ids = f"SELECT image_id FROM images{where}{tail}"
    images_sql = f"SELECT {_IMAGE_COLUMNS} FROM images{where}{tail}"
    words_sql = f"SELECT {_WORD_COLUMNS} FROM words"
    if where or tail:
        words_sql += f" WHERE image_id IN ({ids})"
    groups = _groups(_rows(tables, words_sql, parameters))
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    for image in _rows(tables, images_sql, parameters):
        rows: list[tuple[Any, ...]] = []
        if image[-1]:
            rows = _take(groups, waiting, image[0], tables.uri)
        yield _page(image, [row for row in rows if row[3] >= least])


def read_page(tables: TableViews, image_id: str) -> Page | None:
    """One image with all its words, whatever their confidence, or None if there is none."""
    found = tables.rows(f"SELECT {_IMAGE_COLUMNS} FROM images WHERE image_id = ?", [image_id])
    if not found:
        return None
    rows = tables.rows(
        f"SELECT {_WORD_COLUMNS} FROM words WHERE image_id = ? ORDER BY word_index", [image_id]
    )
    return _page(found[0], rows)


def read_some(tables: TableViews, image_ids: list[str]) -> dict[str, Page]:
    """Those images with all their words; one scan of each table."""
    if not image_ids:
        return {}
    chosen = "image_id IN (SELECT unnest($ids))"
    words: dict[str, list[tuple[Any, ...]]] = {}
    for row in tables.rows(
        f"SELECT {_WORD_COLUMNS} FROM words WHERE {chosen} ORDER BY word_index", {"ids": image_ids}
    ):
        words.setdefault(row[0], []).append(row)
    return {
        image[0]: _page(image, words.get(image[0], []))
        for image in tables.rows(
            f"SELECT {_IMAGE_COLUMNS} FROM images WHERE {chosen}", {"ids": image_ids}
        )
    }


def _rows(tables: TableViews, sql: str, parameters: list[Any]) -> Iterator[tuple[Any, ...]]:
    # a cursor each: two results are read at once
    relation = (
        tables.cursor().sql(sql, params=parameters) if parameters else (tables.cursor().sql(sql))
    )
    try:
        for batch in arrow_reader(relation):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        raise TableError(f"{tables.uri}: cannot read on ({exc}); run textspot verify") from exc


def _groups(
    rows: Iterator[tuple[Any, ...]],
) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    group: list[tuple[Any, ...]] = []
    for row in rows:
        if group and row[0] != group[0][0]:
            yield group[0][0], group
            group = []
        group.append(row)
    if group:
        yield group[0][0], group


def _take(
    groups: Iterator[tuple[str, list[tuple[Any, ...]]]],
    waiting: dict[str, list[tuple[Any, ...]]],
    image_id: str,
    uri: str,
) -> list[tuple[Any, ...]]:
    while image_id not in waiting:
        found = next(groups, None)
        if found is None:
            raise TableError(f"{uri}: the words of {image_id} are missing; run textspot verify")
        waiting.setdefault(found[0], []).extend(found[1])
    return waiting.pop(image_id)


def _page(image: tuple[Any, ...], rows: list[tuple[Any, ...]]) -> Page:
    image_id, source, member, page, width, height, status, tag, size, _ = image
    words = tuple(_word(row) for row in rows)
    return Page(image_id, source, member, page, width, height, status, tag, size, words)


def _word(row: tuple[Any, ...]) -> PageWord:
    _, index, text, confidence, letters, detection, x0, y0, x1, y1, polygon, angle = row
    return PageWord(
        index,
        text,
        confidence,
        tuple(letters),
        detection,
        (x0, y0, x1, y1),
        tuple(polygon),
        angle,
    )
