"""The data of the live page, as plain values; safe to call from several threads."""

from __future__ import annotations

import csv
import io
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from textspot_ray.errors import UsageError
from textspot_ray.query.output import plain
from textspot_ray.query.pages import Page, read_page, read_some
from textspot_ray.query.pictures import Picture, Pictures, encode_jpeg
from textspot_ray.query.search import Hit, SearchQuery, search, words_by_image
from textspot_ray.query.source_roots import SourceRoots
from textspot_ray.query.sql import BATCH_ROWS, SqlError, run_query
from textspot_ray.query.stats import Stats, compute_stats
from textspot_ray.query.views import TableViews
from textspot_ray.tables.duck import arrow_reader
from textspot_ray.web.image_data import WRITING_SYSTEMS, image_data
from textspot_ray.web.tiles import cut_tile

K = TypeVar("K")
V = TypeVar("V")
MAX_ROWS = 500
MAX_HITS = 5000
MAX_COUNT = 200  # images in one answer
MAX_OFFSET = 2**40  # DuckDB counts rows in 64 bits
MAX_DOWNLOAD = 200_000  # hits of a search: they are sorted in memory
_FILTERED_HITS = 20_000  # hits looked at if a filter leaves out some of them
_SQL_TIMEOUT_S = 60.0
_KEPT_PICTURES = 200
_KEPT_BYTES = 400 << 20  # of decoded pictures
_KEPT_SEARCHES = 16
_SAFE_INTEGER = 2**53  # larger ones lose digits in a browser
_SOURCES = 100
_STATUSES: Mapping[str, str] = {
    "words": "status = 'words'",
    "empty": "status = 'empty'",
    "failed": "status = 'failed'",
    "saturated": "coalesce(saturated, false)",
    "damaged": "damage IS NOT NULL",
}
_HIT_COLUMNS = ("image_id", "text", "confidence", "x_min", "y_min", "x_max", "y_max", "words")


@dataclass(frozen=True, slots=True)
class Question:
    """A search of the live page.

    Attributes:
        words: Words to find; without a term, all images that match the filters. Its limit is not
            used.
        name: Part of the image's id, or a glob on all of it; plain, not percent-encoded.
        source: The same for the archive or file that an image comes from.
        status: A key of `_STATUSES`, or empty.
        script: A key of `WRITING_SYSTEMS`, or empty.
    """

    words: SearchQuery = field(default_factory=lambda: SearchQuery(min_confidence=0.0))
    name: str = ""
    source: str = ""
    status: str = ""
    script: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:  # NaN fails it, too
            raise UsageError("the confidence must be from 0 to 1")
        if self.status and self.status not in _STATUSES:
            raise UsageError(f"status is one of {', '.join(_STATUSES)}, not {self.status!r}")
        if self.script and self.script not in WRITING_SYSTEMS:
            raise UsageError(f"script is one of {', '.join(WRITING_SYSTEMS)}, not {self.script!r}")

    @property
    def min_confidence(self) -> float:
        """Minimal text confidence of a hit."""
        return self.words.min_confidence or 0.0

    @property
    def is_filtered(self) -> bool:
        """Whether some hits of the terms may be left out."""
        return bool(self.name or self.source or self.status or self.script)


@dataclass(frozen=True, slots=True)
class _Found:
    """Hits, best first, and whether there may be more."""

    hits: list[Hit]
    cut: bool


class Recent(Generic[K, V]):
    """A cache that drops the least recently used values beyond a limit, but keeps the newest.

    Args:
        limit: Of all values together.
        size_of: Of a value; default: each counts one.
    """

    def __init__(self, limit: int, size_of: Callable[[V], int] = lambda value: 1) -> None:
        self._limit = limit
        self._size_of = size_of
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """A value that is kept, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value."""
        self._kept[key] = value
        while len(self._kept) > 1 and sum(map(self._size_of, self._kept.values())) > self._limit:
            self._kept.popitem(last=False)


class BrowseData:
    """One table, its pictures, and small caches.

    Args:
        tables: The opened table.
        source_options: fsspec options of the images' sources.
        sql_timeout_s: Statements that take longer are interrupted.
        source_roots: Where the images have moved to since they were read.
    """

    def __init__(
        self,
        tables: TableViews,
        source_options: Mapping[str, Any] | None = None,
        sql_timeout_s: float = _SQL_TIMEOUT_S,
        source_roots: SourceRoots | None = None,
    ) -> None:
        self._tables = tables
        self._pictures = Pictures(tables.files.store, source_options, source_roots=source_roots)
        self._sql_timeout_s = sql_timeout_s
        self._reading = threading.Lock()
        self._asking = threading.Lock()
        self._kept: Recent[tuple[str, int], Picture] = Recent(_KEPT_PICTURES)
        self._decoded: Recent[str, NDArray[np.uint8]] = Recent(_KEPT_BYTES, lambda i: i.nbytes)
        self._found: Recent[Question, _Found] = Recent(_KEPT_SEARCHES)

    @property
    def uri(self) -> str:
        """The table's folder."""
        return self._tables.uri

    @property
    def tables(self) -> TableViews:
        """The opened table."""
        return self._tables

    @property
    def text_threshold(self) -> float:
        """Where the confidence slider starts."""
        return self._tables.files.text_threshold

    def close(self) -> None:
        """Close open archives."""
        self._pictures.close()

    def stats(self) -> Stats:
        """All statistics of the table."""
        with self._asking:
            return compute_stats(self._tables)

    def sources(self) -> list[str]:
        """The archives and folders with the most images, as suggestions of the filter."""
        with self._asking:
            rows = self._tables.rows(
                """
                SELECT CASE WHEN member IS NULL THEN regexp_replace(source, '[^/]*$', '')
                    ELSE source END AS place
                FROM images GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT $n
                """,
                {"n": _SOURCES},
            )
        return [unquote(place) for (place,) in rows if place]

    def images(self, question: Question, offset: int, count: int) -> dict[str, Any]:
        """One page of the images with hits, best first; of all images if there is no term.

        Args:
            question: What to look for.
            offset: Images to skip.
            count: Images to return, 1 to `MAX_COUNT`.

        Raises:
            UsageError: A value is out of its range.
        """
        if not (0 <= offset <= MAX_OFFSET and 1 <= count <= MAX_COUNT):
            raise UsageError(f"offset must be from 0 to {MAX_OFFSET}, count from 1 to {MAX_COUNT}")
        cut = False
        if question.words.terms:
            found = self._search(question)
            cut = found.cut
            images = words_by_image(found.hits)
            total, hits = len(images), len(found.hits)
            chosen = list(images.items())[offset : offset + count]
        else:
            total, ids = self._list(question, offset, count)
            hits, chosen = 0, [(image_id, []) for image_id in ids]
        return {
            "total": total,
            "hits": hits,
            "cut": cut,
            "images": self._described(chosen),
        }

    def image(self, image_id: str, question: Question) -> dict[str, Any] | None:
        """One image with the found words marked; None if unknown."""
        marked: list[int] = []
        if question.words.terms:
            marked = words_by_image(self._search(question).hits).get(image_id, [])
        found = self._described([(image_id, marked)])
        return found[0] if found else None

    def hits(self, question: Question, *, as_csv: bool) -> Iterator[str]:
        """Every hit as lines of CSV or JSON; without a term, every word that matches the filters.

        Args:
            question: What to look for.
            as_csv: CSV with a head, else one JSON object per line.
        """
        rows: Iterator[tuple[Any, ...]] = self._every_word(question)
        if question.words.terms:
            rows = (_hit_row(hit) for hit in self._find(question, MAX_DOWNLOAD).hits)
        if as_csv:
            yield _csv_line(_HIT_COLUMNS)
        for row in rows:
            if as_csv:
                yield _csv_line([*row[:-1], " ".join(str(index) for index in row[-1])])
            else:
                record = dict(zip(_HIT_COLUMNS, row, strict=True))
                yield json.dumps(record, ensure_ascii=False) + "\n"

    def errors(self, offset: int, count: int) -> dict[str, Any]:
        """One page of the failed images, and with the first page the damaged ones.

        Raises:
            UsageError: The offset is out of range.
        """
        if not 0 <= offset <= MAX_OFFSET:
            raise UsageError(f"offset must be from 0 to {MAX_OFFSET}")
        names = ("image_id", "stage", "kind", "message", "attempts")
        damaged: list[tuple[Any, ...]] = []
        with self._asking:
            total = self._tables.rows("SELECT count(*) FROM errors")[0][0]
            rows = self._tables.rows(
                f"SELECT {', '.join(names)} FROM errors ORDER BY stage, kind, image_id "
                "LIMIT $n OFFSET $o",
                {"n": max(1, min(count, MAX_ROWS)), "o": offset},
            )
            if offset == 0:
                damaged = self._tables.rows(
                    "SELECT image_id, damage FROM images WHERE damage IS NOT NULL "
                    f"ORDER BY image_id LIMIT {MAX_ROWS}"
                )
        return {
            "total": total,
            "names": names,
            "rows": [list(row) for row in rows],
            "damaged": [list(row) for row in damaged],
        }

    def picture(self, image_id: str, longest_px: int) -> Picture:
        """A scaled picture of an image of the table (and of no other file)."""
        key = (image_id, longest_px)
        with self._reading:
            if (kept := self._kept.get(key)) is not None:
                return kept
        page = self._page(image_id)
        if page is None:
            return Picture(None, 0, 0, "the table has no such image")
        with self._reading:  # a compressed tar is read sequentially: one at a time
            _, picture = next(self._pictures.scaled([page], longest_px))
            if picture.jpeg is not None:
                self._kept.put(key, picture)
        return picture

    def tile(self, image_id: str, level: int, column: int, row: int) -> Picture:
        """A tile of an image's own pixels, as `tiles.cut_tile` cuts them."""
        with self._reading:
            image = self._decoded.get(image_id)
        if image is None:
            page = self._page(image_id)
            if page is None:
                return Picture(None, 0, 0, "the table has no such image")
            with self._reading:
                image = self._decoded.get(image_id)  # another thread may have decoded it meanwhile
                if image is None:
                    _, image, note = next(self._pictures.decoded([page]))
                    if image is None:
                        return Picture(None, 0, 0, note)
                    self._decoded.put(image_id, image)
        part = cut_tile(image, level, column, row)
        if part is None:
            return Picture(None, 0, 0, "the image has no such tile")
        return encode_jpeg(part)

    def original(self, image_id: str) -> tuple[bytes | None, str]:
        """An image's unchanged file, or None and why it cannot be read."""
        page = self._page(image_id)
        if page is None:
            return None, "the table has no such image"
        with self._reading:
            return self._pictures.encoded(page)

    def sql(self, sql: str) -> dict[str, Any]:
        """The first rows of a reading statement.

        Raises:
            SqlError: It is refused, wrong, or takes too long.
        """
        connection = self._tables.cursor()
        rows: list[list[Any]] = []
        with self._time_limit(connection):
            result = run_query(self._tables, sql, MAX_ROWS + 1, connection=connection)
            for batch in result:
                columns = [_values(column) for column in batch.columns]
                rows += [
                    [_for_browser(value) for value in row] for row in zip(*columns, strict=True)
                ]
        names = list(result.schema.names)
        return {"names": names, "rows": rows[:MAX_ROWS], "more": len(rows) > MAX_ROWS}

    def _list(self, question: Question, offset: int, count: int) -> tuple[int, list[str]]:
        """The number of images that match the filters, and some of them; failed ones come last."""
        where, parameters = self._image_conditions(question)
        also = f"{where} AND" if where else " WHERE"
        ids: list[str] = []
        with self._asking:
            total, sound = self._tables.rows(
                f"SELECT count(*), count(*) FILTER (status <> 'failed') FROM images{where}",
                parameters,
            )[0]
            # two queries one after the other: sorting would read all names of a large table
            for condition, before, held in (("<>", 0, sound), ("=", sound, total - sound)):
                left, skip = count - len(ids), max(0, offset - before)
                if left and skip < held:
                    rows = self._tables.rows(
                        f"SELECT image_id FROM images{also} status {condition} 'failed' "
                        "LIMIT $n OFFSET $o",
                        {**parameters, "n": left, "o": skip},
                    )
                    ids += [image_id for (image_id,) in rows]
        return total, ids

    def _page(self, image_id: str) -> Page | None:
        with self._asking:
            return read_page(self._tables, image_id)

    def _described(self, chosen: Sequence[tuple[str, Sequence[int]]]) -> list[dict[str, Any]]:
        ids = [image_id for image_id, _ in chosen]
        with self._asking:
            pages = read_some(self._tables, ids)
        return [
            {
                **image_data(pages[image_id], marked=set(indexes)),
                "readable": pages[image_id].status != "failed",
                "note": "this image failed, see the errors",
            }
            for image_id, indexes in chosen
            if image_id in pages
        ]

    def _search(self, question: Question) -> _Found:
        """The hits of a question, cached for the last questions."""
        with self._asking:
            kept = self._found.get(question)
        if kept is None:
            kept = self._find(question, _FILTERED_HITS if question.is_filtered else MAX_HITS)
            with self._asking:
                self._found.put(question, kept)
        return kept

    def _find(self, question: Question, limit: int) -> _Found:
        with self._asking:
            found = search(self._tables, replace(question.words, limit=limit))
            cut = len(found) >= limit
            if not question.is_filtered or not found:
                return _Found(found, cut)
            where, parameters = self._image_conditions(question, of_words=False)
            ids = list({hit.image_id for hit in found})
            left = {
                image_id
                for (image_id,) in self._tables.rows(
                    f"SELECT image_id FROM (SELECT * FROM images WHERE image_id IN "
                    f"(SELECT unnest($ids))){where}",
                    {**parameters, "ids": ids},
                )
            }
            if question.script:
                texts = list({word.text for hit in found for word in hit.words})
                written = {
                    text
                    for (text,) in self._tables.rows(
                        "SELECT t FROM (SELECT unnest($texts) AS t) WHERE regexp_matches(t, $p)",
                        {"texts": texts, "p": WRITING_SYSTEMS[question.script]},
                    )
                }
                found = [hit for hit in found if any(word.text in written for word in hit.words)]
        return _Found([hit for hit in found if hit.image_id in left], cut)

    def _image_conditions(
        self, question: Question, *, of_words: bool = True
    ) -> tuple[str, dict[str, Any]]:
        """The filters as a WHERE over ``images``, and its parameters."""
        conditions: list[str] = []
        parameters: dict[str, Any] = {}
        for column, typed in (("image_id", question.name), ("source", question.source)):
            if typed:
                shown = f"lower(coalesce(TRY(url_decode({column})), {column}))"
                conditions.append(f"(contains({shown}, ${column}) OR {shown} GLOB ${column})")
                parameters[column] = typed.lower()
        if question.status:
            conditions.append(_STATUSES[question.status])
        if question.script and of_words:
            conditions.append(
                "image_id IN (SELECT image_id FROM words WHERE regexp_matches(text, $script) "
                "AND text_confidence >= $lowest)"
            )
            parameters |= {
                "script": WRITING_SYSTEMS[question.script],
                "lowest": question.min_confidence,
            }
        return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), parameters

    def _every_word(self, question: Question) -> Iterator[tuple[Any, ...]]:
        where, parameters = self._image_conditions(question, of_words=False)
        conditions = ["text_confidence >= $lowest"]
        parameters["lowest"] = question.min_confidence
        if question.script:
            conditions.append("regexp_matches(text, $script)")
            parameters["script"] = WRITING_SYSTEMS[question.script]
        if where:
            conditions.append(f"image_id IN (SELECT image_id FROM images{where})")
        sql = (
            "SELECT image_id, text, text_confidence, x_min, y_min, x_max, y_max, word_index "
            f"FROM words WHERE {' AND '.join(conditions)}"
        )
        for batch in arrow_reader(self._tables.cursor().sql(sql, params=parameters), BATCH_ROWS):
            for *row, index in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                image_id, text, confidence, *box = row
                yield _row(image_id, text, confidence, box, [index])

    @contextmanager
    def _time_limit(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        timer = threading.Timer(self._sql_timeout_s, connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        except SqlError as exc:
            if not timer.is_alive():
                raise SqlError(f"SQL: stopped after {self._sql_timeout_s:g} s") from exc
            raise
        finally:
            timer.cancel()


def _hit_row(hit: Hit) -> tuple[Any, ...]:
    indexes = [word.word_index for word in hit.words]
    return _row(hit.image_id, hit.text, hit.confidence, hit.box, indexes)


def _row(
    image_id: str, text: str, confidence: float, box: Sequence[float], indexes: list[int]
) -> tuple[Any, ...]:
    return (image_id, text, round(confidence, 4), *(round(side, 2) for side in box), indexes)


def _csv_line(values: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _values(column: pa.Array) -> list[Any]:
    """An Arrow column as Python values; as text if Python cannot represent one (year > 9999)."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(value) for value in column]


def _value(value: pa.Scalar) -> Any:
    if not value.is_valid:
        return None
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        try:
            return value.cast(pa.string()).as_py()
        except pa.ArrowException:
            return f"({value.type} that cannot be shown)"


def _for_browser(value: Any) -> Any:
    """A value for the browser: integers that would lose digits become text."""
    found = plain(value)
    if isinstance(found, bool):
        return found
    if isinstance(found, int) and abs(found) > _SAFE_INTEGER:
        return str(found)
    if isinstance(found, float) and not math.isfinite(found):
        return None
    if isinstance(found, list):
        return [_for_browser(child) for child in found]
    if isinstance(found, dict):
        return {key: _for_browser(child) for key, child in found.items()}
    return found
