"""What a search asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from textspot_ray.errors import UsageError
from textspot_ray.insight.phrase import Line


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
        terms: One or more; none at all lists every word that the other conditions leave.
        mode: How each term is compared.
        distance: Largest edit distance, for fuzzy.
        ocr: Count confusions of a reader (0/o, 1/l/i, 5/s, ...) as half an edit.
        combine: What several terms mean.
        line: When words are on one line, for phrases.
        region: Where in the image.
        min_confidence: Least text confidence; None: the table's text threshold.
        source: Glob on the source or the image id.
        limit: Most hits returned; None: all.
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

    def __post_init__(self) -> None:
        if any(not term for term in self.terms):
            raise UsageError("a search term must not be empty")
        if not 0 <= self.distance <= 5:
            raise UsageError(f"--fuzzy takes 0 to 5, not {self.distance}")
