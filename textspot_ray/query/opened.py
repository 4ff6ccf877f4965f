"""A table in Python and in notebooks: overview, SQL, search, pictures.

tables = open_tables("out")
tables                              # counts, what made it, the first words
tables.sql("SELECT text, count(*) FROM words GROUP BY text").df()
tables.search("exit", mode="fuzzy")
tables.show(image_id)               # the picture with its words
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from textspot_ray.errors import UsageError, did_you_mean
from textspot_ray.query.output import text_table
from textspot_ray.query.search import Combine, Hit, Mode, SearchQuery, search
from textspot_ray.query.source_roots import parse_roots
from textspot_ray.query.sql import query_relation
from textspot_ray.query.views import TableViews, open_views
from textspot_ray.storage.stores import Store
from textspot_ray.tables.open import Tables
from textspot_ray.tables.open import open_tables as open_files
from textspot_ray.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

_Choice = TypeVar("_Choice", bound=StrEnum)
_PREVIEW_ROWS = 5
_LONGEST_PX = 1280


class OpenedTables(Tables):
    """An opened table: the Arrow datasets of `Tables`, with SQL, search and pictures.

    It shows the table as it was when opened; open it again to see newer rows.
    """

    @functools.cached_property
    def views(self) -> TableViews:
        """The locked DuckDB connection, made when it is first used."""
        return open_views(self.store, self.storage_options)

    def sql(self, statement: str) -> duckdb.DuckDBPyRelation:
        """Run one reading statement over words, images, errors, shards and runs.

        Args:
            statement: One statement that reads.

        Returns:
            The result: ``.df()`` for pandas, ``.pl()`` for polars, ``.to_arrow_table()``,
            ``.fetchall()``; a notebook shows it as a table.

        Raises:
            SqlError: Not one statement, not a reading one, or DuckDB refuses it.
        """
        return query_relation(self.views, statement)

    def search(
        self,
        *terms: str,
        mode: str = "exact",
        distance: int = 1,
        combine: str = "phrase",
        min_confidence: float | None = None,
        source: str | None = None,
        limit: int | None = 100,
    ) -> list[Hit]:
        """Find words, best first; as ``textspot search``.

        Args:
            terms: Words; several are a phrase on one line, or as ``combine`` says.
            mode: exact, prefix, contains, fuzzy or regex.
            distance: Maximal edit distance, for fuzzy.
            combine: phrase, all or any.
            min_confidence: Least text confidence; None: the table's text threshold.
            source: Glob on the source, the image id or the file name.
            limit: Maximal number of hits; None: all.

        Raises:
            UsageError: An unknown mode or combination, or an invalid pattern.
        """
        query = SearchQuery(
            terms=terms,
            mode=_one_of(Mode, "mode", mode),
            distance=distance,
            combine=_one_of(Combine, "combine", combine),
            min_confidence=min_confidence,
            source=source,
            limit=limit,
        )
        return search(self.views, query)

    def show(
        self,
        image_id: str,
        *,
        min_confidence: float | None = None,
        longest_px: int = _LONGEST_PX,
        source_root: Sequence[str] = (),
    ) -> Image:
        """The picture with its words drawn in; a notebook displays what is returned.

        Args:
            image_id: As in the table, or a glob that matches one image.
            min_confidence: Words below are not drawn; None: the table's text threshold.
            longest_px: Longer side of the result; smaller pictures keep their size.
            source_root: ``OLD=NEW`` where pictures have moved.

        Raises:
            UsageError: There is no such image, or its picture cannot be read now.
        """
        from textspot_ray.query.overlay import draw_words
        from textspot_ray.query.pages import read_page
        from textspot_ray.query.pictures import Pictures

        page = read_page(self.views, image_id)
        if page is None:
            page = read_page(self.views, self._only(image_id))
        assert page is not None  # `_only` takes ids from the table
        with Pictures(
            self.store, self.storage_options, source_roots=parse_roots(source_root)
        ) as pictures:
            ((_, image, note),) = pictures.decoded([page], longest_px)
        if image is None:
            raise UsageError(f"{page.image_id}: {note}")
        return draw_words(image, page, self.views.min_confidence(min_confidence))

    def _only(self, glob: str) -> str:
        from textspot_ray.query.selection import source_condition

        condition, parameters = source_condition(glob)
        found = self.views.rows(
            f"SELECT image_id FROM images WHERE {condition} LIMIT 2", parameters
        )
        if len(found) != 1:
            many = "more than one image" if found else "no image"
            raise UsageError(f"{many} of {self.store.uri} is called {glob}")
        return str(found[0][0])

    def __repr__(self) -> str:
        counts = {table: sum(f.rows for f in files) for table, files in self.data_files.items()}
        lines = [
            f"{self.store.uri}: {counted(counts['images'], 'image')}, "
            f"{counted(counts['words'], 'word')}, {counts['errors']:,} failed"
        ]
        made = self.fingerprint
        kept = {key: made[key] for key in ("bundle", "model", "precision") if key in made}
        if kept:
            lines.append(", ".join(f"{key} {_short(value)}" for key, value in kept.items()))
        preview = self.views.rows(
            "SELECT text, round(text_confidence, 3), image_id FROM words "
            f"WHERE text_confidence >= {self.text_threshold} LIMIT {_PREVIEW_ROWS}"
        )
        if preview:
            lines += ["", text_table(("text", "confidence", "image"), preview).rstrip()]
        return "\n".join(lines)


def open_tables(
    where: str | Store, storage_options: Mapping[str, Any] | None = None
) -> OpenedTables:
    """Open an output folder for reading.

    Args:
        where: Path or URI of the folder, or its store.
        storage_options: fsspec options by protocol.

    Raises:
        TableError: It is not a table, or one of a newer version.
    """
    found = open_files(where, storage_options)
    fields = {name: getattr(found, name) for name in Tables.__dataclass_fields__}
    return OpenedTables(**fields)


def _one_of(kind: type[_Choice], name: str, value: str) -> _Choice:
    """The member of an enumeration with that name."""
    choices = [str(member) for member in kind]
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}{hint}")
    return kind(value)


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:39]}…"
