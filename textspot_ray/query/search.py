"""Word search: the query, its SQL over the view ``lookup``, and the distance of readings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import duckdb

from textspot_ray.errors import UsageError
from textspot_ray.query.phrase import phrase_sql
from textspot_ray.query.selection import source_condition
from textspot_ray.query.views import SLIM, TableViews, sql_reason
from textspot_ray.reading_order import Line
from textspot_ray.text_key import text_key

# each group's members look alike in print; a character is in one group only, so that folding
# every character to its group's first never makes two texts farther apart
CONFUSIONS = ("0oq", "1li", "2z", "5s", "8b", "9g", "uv")
CONFUSION_COST = 0.5
_GROUP = {character: group[0] for group in CONFUSIONS for character in group}
FOLD_FROM = "".join(group[1:] for group in CONFUSIONS)
FOLD_TO = "".join(group[0] * (len(group) - 1) for group in CONFUSIONS)


def fold_confusions(text: str) -> str:
    """Replace every character by the first of its group."""
    return "".join(_GROUP.get(character, character) for character in text)


def ocr_distance(a: str, b: str) -> float:
    """Edit distance in which swapping characters of one group costs `CONFUSION_COST`.

    >>> ocr_distance("r00m", "room"), ocr_distance("room", "roan")
    (1.0, 2.0)
    """
    previous = [float(n) for n in range(len(b) + 1)]
    for i, ca in enumerate(a, start=1):
        current = [float(i)]
        for j, cb in enumerate(b, start=1):
            current.append(
                min(
                    previous[j] + 1,
                    current[j - 1] + 1,
                    previous[j - 1] + _substitution(ca, cb),
                )
            )
        previous = current
    return previous[-1]


def _substitution(a: str, b: str) -> float:
    if a == b:
        return 0.0
    return CONFUSION_COST if _GROUP.get(a, a) == _GROUP.get(b, b) else 1.0


class Mode(StrEnum):
    """How a term is compared with a word."""

    EXACT = "exact"
    PREFIX = "prefix"
    CONTAINS = "contains"
    FUZZY = "fuzzy"
    REGEX = "regex"


class Combine(StrEnum):
    """What several terms mean."""

    PHRASE = "phrase"
    ALL = "all"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Region:
    """Where a word's centre must be: pixels, or fractions of the image if ``relative``."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    relative: bool


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to look for.

    Attributes:
        terms: Words; without any, all words that match the other conditions are listed. They are
            compared by `text_key`: without case, accents and punctuation.
        mode: How each term is compared.
        distance: Maximal edit distance, for fuzzy.
        ocr: Count typical OCR confusions (0/o, 1/l/i, 5/s, ...) as half an edit.
        combine: What several terms mean.
        line: When words are on one line, for phrases.
        region: Where in the image.
        min_confidence: Least text confidence; None: the table's text threshold.
        source: Glob on the source, the image id or the file name (`selection`).
        limit: Maximal number of hits; None: all.
        exact_case: Compare with the text as it was read, letter for letter.
    """

    terms: tuple[str, ...] = ()
    mode: Mode = Mode.EXACT
    distance: int = 1
    ocr: bool = False
    combine: Combine = Combine.PHRASE
    line: Line = field(default_factory=Line)
    region: Region | None = None
    min_confidence: float | None = None
    source: str | None = None
    limit: int | None = 100
    exact_case: bool = False

    def __post_init__(self) -> None:
        if any(not term for term in self.terms):
            raise UsageError("a search term must not be empty")
        if not 0 <= self.distance <= 5:
            raise UsageError(f"--fuzzy takes 0 to 5, not {self.distance}")


MAX_SPELLINGS = 20_000  # distinct texts that one fuzzy term may match
_STRUCT = (
    "{'i': word_index, 'text': text, 'conf': text_confidence, 'x0': x_min, 'y0': y_min, "
    "'x1': x_max, 'y1': y_max, 'angle': angle_deg}"
)
_SIZES = "(SELECT image_id, width, height FROM images) USING (image_id)"
_CANDIDATES = 20  # times the limit


@dataclass(frozen=True, slots=True)
class _Condition:
    """A term as SQL over a row of ``lookup``: the condition, and the distance of the text."""

    where: str
    cost: str


class _SearchSql:
    """The SQL of one query, with its parameters.

    Args:
        tables: The opened table.
        query: What is searched for.
        all_candidates: Look at every word instead of the best ones first.
    """

    def __init__(self, tables: TableViews, query: SearchQuery, all_candidates: bool) -> None:
        self._tables = tables
        self._query = query
        self._all_candidates = all_candidates
        self._preferred = False
        self.parameters: dict[str, Any] = {}
        self._with: list[str] = []
        self._filters = self._make_filters()
        self._conditions = [self._condition(term) for term in query.terms]

    def statement(self) -> str:
        """The statement of the query."""
        if not self._conditions:
            return self._one_word(_Condition("true", "0"))
        if len(self._conditions) == 1:
            return self._one_word(self._conditions[0])
        if self._query.combine is Combine.ANY:
            return self._any_term()
        if self._query.combine is Combine.ALL:
            return self._all_terms()
        return self._finish(phrase_sql(self._term_tables(), self._query.line))

    def _any_term(self) -> str:
        """Words that match one of the terms."""
        where = " OR ".join(f"({condition.where})" for condition in self._conditions)
        costs = ", ".join(
            f"CASE WHEN {condition.where} THEN {condition.cost} END"
            for condition in self._conditions
        )
        return self._one_word(_Condition(f"({where})", f"least({costs})"))

    def _all_terms(self) -> str:
        """For each image that has all terms, its best word of each."""
        names = self._term_tables()
        for n, name in enumerate(names):
            self._with.append(
                f"b{n} AS (SELECT image_id, arg_min(w, (cost, -conf, w.i)) AS w, "
                f"arg_min(cost, (cost, -conf, w.i)) AS cost, "
                f"arg_min(conf, (cost, -conf, w.i)) AS conf FROM {name} GROUP BY image_id)"
            )
        joins = " ".join(f"JOIN b{n} USING (image_id)" for n in range(1, len(names)))
        columns = ", ".join(f"b{n}.w" for n in range(len(names)))
        cost = " + ".join(f"b{n}.cost" for n in range(len(names)))
        conf = " * ".join(f"b{n}.conf" for n in range(len(names)))
        return self._finish(
            f"SELECT image_id, [{columns}] AS ws, {cost} AS cost, {conf} AS conf FROM b0 {joins}"
        )

    def _term_tables(self) -> list[str]:
        """Name a table for the words of each term."""
        names = []
        for n, condition in enumerate(self._conditions):
            rows = (
                f"SELECT image_id, {_STRUCT} AS w, {condition.cost} AS cost, "
                f"text_confidence AS conf {self._from_where(condition)}"
            )
            self._with.append(f"t{n} AS MATERIALIZED ({rows})")
            names.append(f"t{n}")
        return names

    def is_cut(self, found: int) -> bool:
        """Whether hits may be missing because only the best candidates were looked at."""
        limit = self._query.limit
        return self._preferred and limit is not None and found < limit

    def _from_where(self, condition: _Condition) -> str:
        """The words that a term and all other conditions leave."""
        if self._is_relative():
            return f"FROM lookup JOIN {_SIZES} WHERE {self._where(condition)} AND {_EXACT_REGION}"
        return f"FROM lookup WHERE {self._where(condition)}"

    def _where(self, condition: _Condition) -> str:
        return " AND ".join([f"({condition.where})", *self._filters])

    def _is_relative(self) -> bool:
        return self._query.region is not None and self._query.region.relative

    def _one_word(self, condition: _Condition) -> str:
        """Sort and limit plain columns first; build structs only of the rows that are left."""
        limit = self._query.limit
        if self._query.region is not None and condition.cost == "0" and limit is not None:
            self._raise_floor(condition)
        order = "ORDER BY cost, text_confidence DESC, image_id, word_index"
        tail = "" if limit is None else f" LIMIT {int(limit)}"
        columns = ", ".join(SLIM)
        if self._is_relative() and (take := self._candidates()) is not None:
            # joining every word of the corner with its image is what takes long: take the best
            # candidates by a bound that needs no join, and look at the images of these alone
            self._preferred = True
            rows = (
                f"SELECT {columns}, cost FROM (SELECT {columns}, {condition.cost} AS cost "
                f"FROM lookup WHERE {self._where(condition)} {order} LIMIT {take}) "
                f"JOIN {_SIZES} WHERE {_EXACT_REGION}"
            )
        else:
            rows = f"SELECT {columns}, {condition.cost} AS cost {self._from_where(condition)}"
        return self._finish(
            f"SELECT image_id, [{_STRUCT}] AS ws, cost, text_confidence AS conf "
            f"FROM ({rows} {order}{tail})"
        )

    def _raise_floor(self, condition: _Condition) -> None:
        """Leave out words less confident than the last one that can be a hit.

        A box may hold half of all words: texts and names are then read of few of them.
        """
        take = self._candidates()
        if take is None:
            return
        sql = (
            f"SELECT min(c) FROM (SELECT text_confidence AS c FROM lookup "
            f"WHERE {self._where(condition)} ORDER BY c DESC LIMIT {take})"
        )
        used = set(re.findall(r"\$(\w+)", sql))
        parameters = {name: value for name, value in self.parameters.items() if name in used}
        floor = self._tables.rows(sql, parameters)[0][0]
        if floor is not None:
            self._filters.append(f"text_confidence >= {self._value(floor)}::FLOAT")

    def _candidates(self) -> int | None:
        """How many of the most confident words are looked at; None for all."""
        limit = self._query.limit
        if limit is None or (self._is_relative() and self._all_candidates):
            return None
        return _CANDIDATES * limit if self._is_relative() else limit

    def _finish(self, sql: str) -> str:
        limit = "" if self._query.limit is None else f" LIMIT {int(self._query.limit)}"
        head = f"WITH {', '.join(self._with)} " if self._with else ""
        return (
            f"{head}SELECT image_id, ws, cost, conf FROM ({sql}) "
            f"ORDER BY cost, conf DESC, image_id, ws[1].i{limit}"
        )

    def _make_filters(self) -> list[str]:
        query = self._query
        filters = []
        lowest = self._tables.min_confidence(query.min_confidence)
        if lowest > 0:
            self.parameters["lowest"] = lowest
            filters.append("text_confidence >= $lowest")
        if query.region is not None:
            region = query.region
            names = ("bx0", "by0", "bx1", "by1")
            sides = (region.x_min, region.y_min, region.x_max, region.y_max)
            self.parameters.update(zip(names, sides, strict=True))
            scales: tuple[str, ...] = ("1",) * 4
            if region.relative:
                # the smallest and largest image drop most words before images are joined
                scales = self._size_range()
            filters.append(_inside(*scales))
        if query.source is not None:
            chosen, parameters = source_condition(query.source)
            self.parameters.update(parameters)
            filters.append(f"image_id IN (SELECT image_id FROM images WHERE {chosen})")
        return filters

    def _size_range(self) -> tuple[str, ...]:
        """The smallest and largest width and height of an image, as constants."""
        sql = "SELECT min(width), max(width), min(height), max(height) FROM images"
        return tuple(str(int(size or 0)) for size in self._tables.rows(sql)[0])

    def _condition(self, term: str) -> _Condition:
        mode = self._query.mode
        if mode is Mode.REGEX:
            _check_pattern(self._tables, term)
            return _Condition(f"regexp_matches(text, {self._value(term)})", "0")
        column, text = self._compared(term)
        if mode is Mode.FUZZY and (self._query.distance or self._query.ocr):
            return self._fuzzy(column, text)
        value = self._value(text)
        if mode is Mode.PREFIX:
            after = self._value(text + "\U0010ffff")  # the range prunes the sorted copy
            return _Condition(
                f"{column} BETWEEN {value} AND {after} AND starts_with({column}, {value})",
                f"len({column}) - {len(text)}",
            )
        if mode is Mode.CONTAINS:
            return _Condition(f"contains({column}, {value})", f"len({column}) - {len(text)}")
        return _Condition(f"{column} = {value}", "0")

    def _compared(self, term: str) -> tuple[str, str]:
        """The column and the value it is compared with; without a key it is the text."""
        key = "" if self._query.exact_case else text_key(term)
        return ("text_key", key) if key else ("text", term)

    def _fuzzy(self, column: str, term: str) -> _Condition:
        costs = self._spellings(column, term)
        if not costs:
            return _Condition("false", "0")
        where = f"{column} IN {_sql_list(list(costs))}"  # constants prune the sorted copy
        if not self._query.ocr:
            return _Condition(where, f"levenshtein({column}, {self._value(term)})")
        texts, values = self._value(list(costs)), self._value(list(costs.values()))
        return _Condition(where, f"list_extract({values}, list_position({texts}, {column}))")

    def _spellings(self, column: str, term: str) -> dict[str, float]:
        """Every text of the table within the distance, and how far it is."""
        distance = self._query.distance
        parameters = {"term": fold_confusions(term) if self._query.ocr else term, "n": distance}
        folded = f"translate({column}, '{FOLD_FROM}', '{FOLD_TO}')" if self._query.ocr else column
        rows = self._tables.rows(
            f"""
            SELECT {column}, edits FROM (
                SELECT {column}, levenshtein({folded}, $term) AS edits FROM (
                    SELECT DISTINCT {column} FROM lookup
                    WHERE len({column}) BETWEEN {len(term) - distance} AND {len(term) + distance}
                )
            ) WHERE edits <= $n
            """,
            parameters,
        )
        if self._query.ocr:
            rows = [(text, ocr_distance(term, text)) for text, _ in rows]
        costs = {text: float(cost) for text, cost in rows if cost <= distance}
        if len(costs) > MAX_SPELLINGS:
            raise UsageError(
                f"{term!r} with --fuzzy {distance} stands for {len(costs)} different words: "
                "lower the distance or search for more of the word"
            )
        return costs

    def _value(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


def _inside(low_x: str, high_x: str, low_y: str, high_y: str) -> str:
    """That a word's centre is in the region, whose sides are scaled by these."""
    return (
        f"(x_min + x_max) / 2 BETWEEN $bx0 * {low_x} AND $bx1 * {high_x}"
        f" AND (y_min + y_max) / 2 BETWEEN $by0 * {low_y} AND $by1 * {high_y}"
    )


_EXACT_REGION = _inside("width", "width", "height", "height")


def _sql_list(texts: Sequence[str]) -> str:
    return "(" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + ")"


def _check_pattern(tables: TableViews, pattern: str) -> None:
    """Check a pattern with RE2; Python's own syntax is larger and only gives a better message."""
    try:
        tables.execute("SELECT regexp_matches('', $pattern)", {"pattern": pattern}).fetchall()
    except duckdb.Error as exc:
        try:
            re.compile(pattern)
            why = sql_reason(exc)
        except re.error as wrong:
            why = str(wrong)
        raise UsageError(f"{pattern!r} is not a regular expression: {why}") from exc


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
        """The words, separated by spaces."""
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


def words_by_image(hits: Iterable[Hit]) -> dict[str, list[int]]:
    """Indexes of the words that were found, by image, in the order of the hits."""
    found: dict[str, list[int]] = {}
    for hit in hits:
        found.setdefault(hit.image_id, []).extend(word.word_index for word in hit.words)
    return found


def search(tables: TableViews, query: SearchQuery, *, _all_candidates: bool = False) -> list[Hit]:
    """Find hits, best first.

    Raises:
        UsageError: A pattern is not a regular expression, or a fuzzy term matches too many words.
    """
    builder = _SearchSql(tables, query, _all_candidates)
    rows = tables.rows(builder.statement(), builder.parameters)
    if builder.is_cut(len(rows)):  # too few of the best candidates were in the region
        return search(tables, query, _all_candidates=True)
    return [_hit(row) for row in rows]


@dataclass(frozen=True, slots=True)
class ImageHits:
    """An image with hits: how many, and the best one's distance and confidence."""

    image_id: str
    hits: int
    cost: float
    confidence: float


def search_images(tables: TableViews, query: SearchQuery) -> list[ImageHits]:
    """The images that have hits, those with the best hits first; the limit counts images.

    Raises:
        UsageError: As `search`.
    """
    builder = _SearchSql(tables, dataclasses.replace(query, limit=None), True)
    limit = "" if query.limit is None else f" LIMIT {int(query.limit)}"
    rows = tables.rows(
        f"SELECT image_id, count(*), min(cost), max(conf) FROM ({builder.statement()}) "
        f"GROUP BY image_id ORDER BY 3, 4 DESC, image_id{limit}",
        builder.parameters,
    )
    return [ImageHits(row[0], row[1], float(row[2]), float(row[3])) for row in rows]


def count_hits(tables: TableViews, query: SearchQuery) -> tuple[int, int]:
    """All hits of a query, whatever its limit, and the images that they are in.

    Raises:
        UsageError: As `search`.
    """
    builder = _SearchSql(tables, dataclasses.replace(query, limit=None), True)
    hits, images = tables.rows(
        f"SELECT count(*), count(DISTINCT image_id) FROM ({builder.statement()})",
        builder.parameters,
    )[0]
    return int(hits), int(images)


def impossible_terms(tables: TableViews, query: SearchQuery) -> dict[str, str]:
    """Terms that cannot occur, with those of their characters that the table's model never outputs.

    Empty if the table does not record its model's alphabet.
    """
    alphabet = tables.files.alphabet
    if alphabet is None or query.mode in (Mode.REGEX, Mode.FUZZY):
        return {}
    known = set(alphabet)
    if not query.exact_case:
        known |= {character for letter in alphabet for character in text_key(letter)}
    found = {}
    for term in query.terms:
        compared = term if query.exact_case else text_key(term) or term
        missing = "".join(dict.fromkeys(c for c in compared if c not in known))
        if missing:
            found[term] = missing
    return found


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
