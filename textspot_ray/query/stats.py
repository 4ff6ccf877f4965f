"""Figures of a table as text and JSON; the pages draw them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from textspot_ray.query.figures import TableFigures, compute
from textspot_ray.query.output import text_table
from textspot_ray.query.similar import SimilarGroup
from textspot_ray.query.views import TableViews
from textspot_ray.wording import counted, number


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Sums over one source: an archive, or a folder of files."""

    source: str
    images: int
    failed: int
    words: int


@dataclass(frozen=True, slots=True)
class SlowImage:
    """An image that took long."""

    image_id: str
    seconds: float
    width: int | None
    height: int | None
    words: int


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Files of one content: how many, and the first of them by id."""

    files: int
    image_id: str


@dataclass(frozen=True, slots=True)
class Copies:
    """Files whose bytes are those of another file of the table.

    Attributes:
        contents: Contents that more than one file has.
        files: Files beyond the first of each of them.
        largest: The contents that most files have.
    """

    contents: int
    files: int
    largest: tuple[CopyGroup, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures, sources, the slowest images, copies and images that look alike.

    ``copies`` is None if the table keeps no hashes, ``similar`` if nobody asked.
    """

    figures: TableFigures
    sources: tuple[SourceRow, ...]
    slowest: tuple[SlowImage, ...]
    copies: Copies | None = None
    similar: tuple[SimilarGroup, ...] | None = None


def compute_stats(tables: TableViews, top: int = 10) -> Stats:
    """Compute everything that ``textspot stats`` shows."""
    sources = tables.rows(
        """
        SELECT CASE WHEN member IS NULL THEN regexp_replace(source, '[^/]*$', '') ELSE source END,
            count(*), count(*) FILTER (status = 'failed'), sum(n_words)::BIGINT
        FROM images GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $n
        """,
        {"n": top},
    )
    slowest = tables.rows(
        """
        SELECT image_id, coalesce(read_s, 0) + coalesce(decode_s, 0) + coalesce(detect_s, 0)
            + coalesce(recognise_s, 0) AS s, width, height, n_words
        FROM images ORDER BY s DESC, image_id LIMIT $n
        """,
        {"n": top},
    )
    return Stats(
        compute(tables),
        tuple(SourceRow(*row) for row in sources),
        tuple(SlowImage(*row) for row in slowest),
        _copies(tables, top),
    )


def _copies(tables: TableViews, top: int) -> Copies | None:
    """Files of the same bytes. The pages of one file share its hash and are one file here."""
    groups = """
        WITH groups AS (
            SELECT count(DISTINCT (source, member)) AS files, min(image_id) AS image_id
            FROM images WHERE content_sha256 IS NOT NULL GROUP BY content_sha256
        )
        """
    hashed, contents, files = tables.rows(
        groups + "SELECT count(*), count(*) FILTER (files > 1), "
        "coalesce(sum(files - 1), 0)::BIGINT FROM groups"
    )[0]
    if not hashed:
        return None
    largest = tables.rows(
        groups + "SELECT files, image_id FROM groups WHERE files > 1 "
        "ORDER BY files DESC, image_id LIMIT $n",
        {"n": top},
    )
    return Copies(int(contents), int(files), tuple(CopyGroup(*row) for row in largest))


def stats_text(stats: Stats) -> str:
    """All figures as text."""
    t = stats.figures.totals
    parts = [
        f"images  {number(t.images)}: {number(t.with_words)} with words, "
        f"{number(t.empty)} without, {number(t.failed)} failed, {number(t.damaged)} damaged\n"
        f"words   {number(t.words)}; {number(t.below)} below the text threshold; "
        f"{counted(t.unread, 'box', 'boxes')} without text; "
        f"{counted(t.saturated, 'image')} met the box limit\n"
    ]
    parts.append(
        _section(
            "by source",
            ("source", "images", "failed", "words"),
            [dataclasses.astuple(row) for row in stats.sources],
        )
    )
    if stats.copies is not None:
        parts[0] += (
            f"copies  {counted(stats.copies.files, 'file')} with the bytes of another "
            f"({counted(stats.copies.contents, 'content')})\n"
        )
        if stats.copies.largest:
            copies = [dataclasses.astuple(group) for group in stats.copies.largest]
            parts.append(_section("files of one content", ("files", "first of them"), copies))
    if stats.similar is not None:
        alike = [(len(group.image_ids), group.image_ids[0]) for group in stats.similar]
        parts.append(_section("images that look alike", ("images", "first of them"), alike))
    if stats.figures.failures:
        rows = [(bin.label, bin.count) for bin in stats.figures.failures]
        parts.append(_section("failures", ("stage and kind", "images"), rows))
    for title, bins in (
        ("text confidence", stats.figures.confidence),
        ("word length", stats.figures.word_length),
        ("words per image", stats.figures.words_per_image),
    ):
        most = max((bin.count for bin in bins), default=0) or 1
        rows_ = [(bin.label, bin.count, "█" * round(40 * bin.count / most)) for bin in bins]
        parts.append(_section(title, ("", "count", ""), [row for row in rows_ if row[1]]))
    stages = [(stage, round(1000 * seconds, 1)) for stage, seconds in stats.figures.stage_s]
    parts.append(_section("mean time of an image", ("stage", "ms"), stages))
    parts.append(
        _section(
            "runs",
            ("run", "images", "words", "failed", "seconds", "images/s"),
            [_rounded(row) for row in stats.figures.runs],
        )
    )
    parts.append(
        _section(
            "slowest images",
            ("image", "seconds", "width", "height", "words"),
            [_rounded(dataclasses.astuple(row)) for row in stats.slowest],
        )
    )
    return "\n".join(parts)


def stats_json(stats: Stats) -> dict[str, Any]:
    """All figures for programs."""
    return dataclasses.asdict(stats)


def _rounded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Times and rates to two digits behind the point: more are chance."""
    return tuple(round(value, 2) if isinstance(value, float) else value for value in row)


def _section(title: str, names: tuple[str, ...], rows: list[Any]) -> str:
    return f"{title}\n{text_table(names, rows)}" if rows else f"{title}\n(none)\n"
