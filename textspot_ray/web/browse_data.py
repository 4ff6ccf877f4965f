"""What the live page asks for, as plain data; safe to call from several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from textspot_ray.errors import UsageError
from textspot_ray.query.figures import Figures, compute
from textspot_ray.query.output import plain
from textspot_ray.query.pages import read_page, read_some
from textspot_ray.query.pictures import Picture, Pictures
from textspot_ray.query.search import Combine, Mode, SearchQuery, search
from textspot_ray.query.sql import SqlError, batches, run_query
from textspot_ray.query.views import TableViews
from textspot_ray.web.view import image_meta, words_data

MAX_ROWS = 500
MAX_HITS = 5000
_SQL_TIMEOUT_S = 60.0
_KEPT_PICTURES = 200
_KEPT_SEARCHES = 16


class BrowseData:
    """One table, its pictures, and small caches.

    Args:
        tables: The opened table; as it was when opened.
        source_options: fsspec options of the images' sources.
        sql_timeout_s: Statements that take longer are stopped.
    """

    def __init__(
        self,
        tables: TableViews,
        source_options: Mapping[str, Any] | None = None,
        sql_timeout_s: float = _SQL_TIMEOUT_S,
    ) -> None:
        self._tables = tables
        self._pictures = Pictures(tables.files.store, source_options)
        self._sql_timeout_s = sql_timeout_s
        self._reading = threading.Lock()
        self._asking = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Picture] = OrderedDict()
        self._found: OrderedDict[tuple[Any, ...], list[tuple[str, list[int]]]] = OrderedDict()

    @property
    def uri(self) -> str:
        """The table's folder."""
        return self._tables.uri

    @property
    def text_threshold(self) -> float:
        """Where the confidence slider starts."""
        return self._tables.files.text_threshold

    def close(self) -> None:
        """Let go of open archives."""
        self._pictures.close()

    def figures(self) -> Figures:
        """All figures of the table."""
        with self._asking:
            return compute(self._tables)

    def images(
        self,
        *,
        terms: Sequence[str],
        mode: str,
        combine: str,
        distance: int,
        least: float,
        offset: int,
        count: int,
    ) -> dict[str, Any]:
        """One page of the images with hits, best first; of all images where there is no term."""
        if not (offset >= 0 and 1 <= count <= 200):
            raise UsageError("offset must be at least 0, count from 1 to 200")
        if terms:
            query = SearchQuery(
                terms=tuple(terms),
                mode=Mode(mode),
                combine=Combine(combine),
                distance=distance,
                min_confidence=least,
                limit=MAX_HITS,
            )
            found = self._search(query)
            total = len(found)
            chosen = found[offset : offset + count]
        else:
            with self._asking:
                total = self._tables.rows("SELECT count(*) FROM images")[0][0]
                rows = self._tables.rows(
                    "SELECT image_id FROM images LIMIT $n OFFSET $o", {"n": count, "o": offset}
                )
            chosen = [(image_id, []) for (image_id,) in rows]
        with self._asking:
            pages = read_some(self._tables, [image_id for image_id, _ in chosen])
        return {
            "total": total,
            "images": [
                {
                    "id": image_id,
                    "w": pages[image_id].width or 0,
                    "h": pages[image_id].height or 0,
                    "readable": pages[image_id].status != "failed",
                    "note": "this image failed, see the errors",
                    "meta": image_meta(pages[image_id]),
                    "words": words_data(pages[image_id], set(indexes)),
                }
                for image_id, indexes in chosen
            ],
        }

    def errors(self, offset: int, count: int) -> dict[str, Any]:
        """One page of the failed images."""
        names = ("image_id", "stage", "kind", "message", "attempts")
        with self._asking:
            total = self._tables.rows("SELECT count(*) FROM errors")[0][0]
            rows = self._tables.rows(
                f"SELECT {', '.join(names)} FROM errors ORDER BY stage, kind, image_id "
                "LIMIT $n OFFSET $o",
                {"n": max(1, min(count, MAX_ROWS)), "o": max(0, offset)},
            )
        return {"total": total, "names": names, "rows": [list(row) for row in rows]}

    def picture(self, image_id: str, longest_px: int) -> Picture:
        """A scaled picture of an image of the table (and of nothing else)."""
        key = (image_id, longest_px)
        with self._reading:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._asking:
            page = read_page(self._tables, image_id)
        if page is None:
            return Picture(None, 0, 0, "the table has no such image")
        with self._reading:  # a compressed tar is read in one pass: one at a time
            _, picture = next(self._pictures.scaled([page], longest_px))
            if picture.jpeg is not None:
                self._kept[key] = picture
                while len(self._kept) > _KEPT_PICTURES:
                    self._kept.popitem(last=False)
        return picture

    def sql(self, sql: str) -> dict[str, Any]:
        """The first rows of a reading statement.

        Raises:
            SqlError: It is refused, wrong, or took too long.
        """
        connection = self._tables.cursor()
        rows: list[list[Any]] = []
        with self._time_limit(connection):
            reader = run_query(self._tables, sql, MAX_ROWS + 1, connection=connection)
            for batch in batches(sql, reader):
                columns = [column.to_pylist() for column in batch.columns]
                rows += [[plain(value) for value in row] for row in zip(*columns, strict=True)]
        names = list(reader.schema.names)
        return {"names": names, "rows": rows[:MAX_ROWS], "more": len(rows) > MAX_ROWS}

    def _search(self, query: SearchQuery) -> list[tuple[str, list[int]]]:
        """Images with their hits' word indexes, in order of the best hit."""
        key = (query.terms, query.mode, query.combine, query.distance, query.min_confidence)
        with self._asking:
            if key not in self._found:
                images: dict[str, list[int]] = {}
                for hit in search(self._tables, query):
                    words = images.setdefault(hit.image_id, [])
                    words += [word.word_index for word in hit.words]
                self._found[key] = list(images.items())
                while len(self._found) > _KEPT_SEARCHES:
                    self._found.popitem(last=False)
            return self._found[key]

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
