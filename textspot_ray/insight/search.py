"""Search of words: exact, by prefix, part, edit distance or pattern; one term or several.

Terms are compared in lower case, as the tables hold text. Several terms are a phrase (next to each
other on one line), or with ``all``/``any`` words of one image. Hits are ranked: closest text first,
then the surest reading, then image order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from textspot_ray.errors import UsageError
from textspot_ray.insight.relations import TableViews, one_line
from textspot_ray.insight.search_query import Combine, Mode, Region, SearchQuery
from textspot_ray.insight.search_sql import SearchSql

__all__ = ["Combine", "Hit", "HitWord", "Mode", "Region", "SearchQuery", "search"]


@dataclass(frozen=True, slots=True)
class HitWord:
    """A word that was found, with its box in pixels of the upright image."""

    word_index: int
    text: str
    confidence: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Hit:
    """One place: a word, or the words of a phrase or of an image, in the order of the terms.

    Attributes:
        image_id: The image.
        words: What was found there.
        cost: Distance from the terms, 0 for equal ones.
        confidence: The product of the words' confidences.
    """

    image_id: str
    words: tuple[HitWord, ...]
    cost: float
    confidence: float

    @property
    def text(self) -> str:
        """The words in a row."""
        return " ".join(word.text for word in self.words)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The box around all words."""
        boxes = [word.box for word in self.words]
        return (
            min(box[0] for box in boxes),
            min(box[1] for box in boxes),
            max(box[2] for box in boxes),
            max(box[3] for box in boxes),
        )


def search(tables: TableViews, query: SearchQuery, *, _all_candidates: bool = False) -> list[Hit]:
    """Find hits, best first.

    Raises:
        UsageError: A pattern is no regular expression, or a fuzzy term stands for too many words.
    """
    builder = SearchSql(tables, query, _all_candidates)
    if len(query.terms) < 2:
        sql = builder.single()
    elif query.combine is Combine.ANY:
        sql = builder.any_term()
    elif query.combine is Combine.ALL:
        sql = builder.all_terms()
    else:
        sql = builder.phrase()
    try:
        rows = tables.rows(sql, builder.parameters)
        if builder.is_cut(len(rows)):  # too few of the best candidates were in the region
            return search(tables, query, _all_candidates=True)
    except duckdb.InvalidInputException as exc:
        raise UsageError(f"cannot search for {' '.join(query.terms)!r}: {one_line(exc)}") from exc
    return [_hit(row) for row in rows]


def _hit(row: tuple[Any, ...]) -> Hit:
    image_id, words, cost, confidence = row
    return Hit(
        image_id,
        tuple(
            HitWord(w["i"], w["text"], w["conf"], (w["x0"], w["y0"], w["x1"], w["y1"]))
            for w in words
        ),
        float(cost),
        float(confidence),
    )
