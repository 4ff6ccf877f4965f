"""Images with their words, streamed in table order, for exports, HTML pages and comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import duckdb
import pyarrow as pa

from textspot_ray.errors import DamagedTableError
from textspot_ray.query.selection import source_condition
from textspot_ray.query.sql import BATCH_ROWS
from textspot_ray.query.views import TableViews, damaged
from textspot_ray.records import Word
from textspot_ray.tables.duck import arrow_reader, read_batches

_IMAGE_COLUMNS = (
    "image_id, source, member, page, width, height, status, content_tag, bytes, n_words, "
    "n_unread, saturated, damage"
)
_N_WORDS = 9  # its place in a row
_WORD_COLUMNS = (
    "image_id, word_index, text, text_confidence, char_confidences, detection_confidence, "
    "x_min, y_min, x_max, y_max, polygon, angle_deg, line_index"
)


@dataclass(frozen=True, slots=True)
class PageWord(Word):
    """A row of ``words``.

    Attributes:
        word_index: Its number within its image.
        line_index: Number of its line in reading order; None where the table has none.
    """

    word_index: int = 0
    line_index: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A row of ``images`` with its words. Width and height are None for failed images.

    ``below`` counts words of the image that were left out for their confidence; the rest is as in
    `tables.schema`.
    """

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
    below: int = 0
    n_unread: int = 0
    saturated: bool = False
    damage: str | None = None


def read_pages(
    tables: TableViews,
    *,
    source: str | None = None,
    min_confidence: float | None = None,
    max_confidence: float | None = None,
    limit: int | None = None,
) -> Iterator[Page]:
    """Every image with its words, in the order of the table's files.

    The two tables are read side by side, once. Words wait in memory only where their order differs
    from that of the images, which happens only within a shard.

    Args:
        tables: The opened table.
        source: Glob on the source, the image id or the file name (`selection`).
        min_confidence: Leave out words below; None: the table's text threshold.
        max_confidence: Leave out words above, to look only at unsure ones.
        limit: Maximal number of images.

    Raises:
        DamagedTableError: An image's words are missing, or a file cannot be read.
    """
    lowest = tables.min_confidence(min_confidence)
    where = ""
    parameters: dict[str, str] = {}
    if source is not None:
        condition, parameters = source_condition(source)
        where = f" WHERE {condition}"
    tail = f" LIMIT {int(limit)}" if limit is not None else ""
    ids = f"SELECT image_id FROM images{where}{tail}"
    images_sql = f"SELECT {_IMAGE_COLUMNS} FROM images{where}{tail}"
    words_sql = f"SELECT {_WORD_COLUMNS} FROM words"
    if where or tail:
        words_sql += f" WHERE image_id IN ({ids})"
    groups = itertools.groupby(_rows(tables, words_sql, parameters), key=itemgetter(0))
    waiting: dict[str, list[tuple[Any, ...]]] = {}
    for image in _rows(tables, images_sql, parameters):
        rows: list[tuple[Any, ...]] = []
        if image[_N_WORDS]:
            rows = _take(groups, waiting, image[0], tables.uri)
        sure = [row for row in rows if row[3] >= lowest]
        kept = [row for row in sure if max_confidence is None or row[3] <= max_confidence]
        yield _page(image, kept, len(rows) - len(sure))


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


def _rows(tables: TableViews, sql: str, parameters: dict[str, str]) -> Iterator[tuple[Any, ...]]:
    cursor = tables.cursor()  # one each: two results are read at once

    def start() -> pa.RecordBatchReader:
        return arrow_reader(cursor.sql(sql, params=parameters or None), BATCH_ROWS)

    try:
        for batch in read_batches(cursor, start):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        raise damaged(tables.uri, exc) from exc


def _take(
    groups: Iterator[tuple[str, Iterator[tuple[Any, ...]]]],
    waiting: dict[str, list[tuple[Any, ...]]],
    image_id: str,
    uri: str,
) -> list[tuple[Any, ...]]:
    while image_id not in waiting:
        found = next(groups, None)
        if found is None:
            raise DamagedTableError(
                f"{uri}: the words of {image_id} are missing; run textspot verify"
            )
        waiting.setdefault(found[0], []).extend(found[1])
    return waiting.pop(image_id)


def _page(image: tuple[Any, ...], rows: list[tuple[Any, ...]], below: int = 0) -> Page:
    image_id, source, member, page, width, height, status, tag, size, _, *notes = image
    n_unread, saturated, damage = notes
    return Page(
        image_id,
        source,
        member,
        page,
        width,
        height,
        status,
        tag,
        size,
        words=tuple(_word(row) for row in rows),
        below=below,
        n_unread=n_unread or 0,
        saturated=bool(saturated),
        damage=damage,
    )


def _word(row: tuple[Any, ...]) -> PageWord:
    _, index, text, confidence, letters, detection, x0, y0, x1, y1, polygon, angle, line = row
    return PageWord(
        text,
        confidence,
        tuple(letters),
        detection,
        (x0, y0, x1, y1),
        tuple(polygon),
        angle,
        word_index=index,
        line_index=line,
    )
