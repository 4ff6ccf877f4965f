"""Statistics of a table: totals, distributions, throughput, slow images, copies.

DuckDB computes them and only small results come back; they are shown as text, JSON and charts.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from textspot_ray.query.charts import Bar, Chart, bar_chart, line_chart
from textspot_ray.query.output import text_table
from textspot_ray.query.similar import SimilarGroup
from textspot_ray.query.views import TableViews
from textspot_ray.records import TIMED_STAGES
from textspot_ray.wording import counted, number

_THROUGHPUT_BINS = 40


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of a table.

    Attributes:
        images: All of them; a page of a TIFF is one.
        with_words: Images with at least one word.
        empty: Images without a word.
        failed: Images that could not be read.
        words: All words, whatever their confidence.
        unread: Boxes in which no text was read.
        saturated: Images that met the box limit.
        damaged: Images that were read although their file is damaged.
        below: Words read with less confidence than the table's text threshold.
    """

    images: int
    with_words: int
    empty: int
    failed: int
    words: int
    unread: int
    saturated: int
    damaged: int = 0
    below: int = 0


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of a histogram: label and count."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class TableFigures:
    """All figures of a table.

    Attributes:
        totals: Counts.
        confidence: Words by text confidence, in twenty bins.
        word_length: Words by number of characters.
        words_per_image: Images that did not fail, by number of words.
        failures: Failed images by ``stage kind``, most first.
        stage_s: Mean seconds per image, by stage.
        throughput: Seconds since the first shard's start, images per second.
        runs: Rows of the view ``runs``.
    """

    totals: Totals
    confidence: tuple[Bin, ...]
    word_length: tuple[Bin, ...]
    words_per_image: tuple[Bin, ...]
    failures: tuple[Bin, ...]
    stage_s: tuple[tuple[str, float], ...]
    throughput: tuple[tuple[float, float], ...]
    runs: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Sums over one source: an archive, or a folder of files."""

    source: str
    images: int
    failed: int
    words: int


@dataclass(frozen=True, slots=True)
class SlowImage:
    """One of the images that took longest."""

    image_id: str
    seconds: float
    width: int | None
    height: int | None
    words: int


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Files with the same content: their number, and the first of them by id."""

    files: int
    image_id: str


@dataclass(frozen=True, slots=True)
class Copies:
    """Files with the same bytes as another file of the table.

    Attributes:
        contents: Contents that several files share.
        files: Files beyond the first of each content.
        largest: The contents that most files share.
    """

    contents: int
    files: int
    largest: tuple[CopyGroup, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures, sources, the slowest images, copies and images that look alike.

    ``copies`` is None if the table has no hashes, ``similar`` if it was not asked for.
    """

    figures: TableFigures
    sources: tuple[SourceRow, ...]
    slowest: tuple[SlowImage, ...]
    copies: Copies | None = None
    similar: tuple[SimilarGroup, ...] | None = None


def compute_stats(tables: TableViews, top: int = 10) -> Stats:
    """Compute all statistics of ``textspot stats``."""
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
        _figures(tables),
        tuple(SourceRow(*row) for row in sources),
        tuple(SlowImage(*row) for row in slowest),
        _copies(tables, top),
    )


def _copies(tables: TableViews, top: int) -> Copies | None:
    """Files with the same bytes. The pages of a file share its hash and count as one."""
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
    """All statistics as text."""
    figures, t = stats.figures, stats.figures.totals
    head = (
        f"images  {number(t.images)}: {number(t.with_words)} with words, "
        f"{number(t.empty)} without, {number(t.failed)} failed, {number(t.damaged)} damaged\n"
        f"words   {number(t.words)}; {number(t.below)} below the text threshold; "
        f"{counted(t.unread, 'box', 'boxes')} without text; "
        f"{counted(t.saturated, 'image')} met the box limit\n"
    )
    sections: list[tuple[str, tuple[str, ...], list[Any]]] = [
        ("by source", ("source", "images", "failed", "words"), list(map(astuple, stats.sources)))
    ]
    if stats.copies is not None:
        head += (
            f"copies  {counted(stats.copies.files, 'file')} with the bytes of another "
            f"({counted(stats.copies.contents, 'content')})\n"
        )
        if largest := list(map(astuple, stats.copies.largest)):
            sections.append(("files of one content", ("files", "first of them"), largest))
    if stats.similar is not None:
        alike = [(len(group.image_ids), group.image_ids[0]) for group in stats.similar]
        sections.append(("images that look alike", ("images", "first of them"), alike))
    if failures := list(map(astuple, figures.failures)):
        sections.append(("failures", ("stage and kind", "images"), failures))
    sections += [
        ("text confidence", ("", "count", ""), _histogram(figures.confidence)),
        ("word length", ("", "count", ""), _histogram(figures.word_length)),
        ("words per image", ("", "count", ""), _histogram(figures.words_per_image)),
        (
            "mean time of an image",
            ("stage", "ms"),
            [(stage, round(1000 * seconds, 1)) for stage, seconds in figures.stage_s],
        ),
        (
            "runs",
            ("run", "images", "words", "failed", "seconds", "images/s"),
            list(map(_rounded, figures.runs)),
        ),
        (
            "slowest images",
            ("image", "seconds", "width", "height", "words"),
            [_rounded(astuple(row)) for row in stats.slowest],
        ),
    ]
    return "\n".join([head, *(_section(*section) for section in sections)])


def _histogram(bins: tuple[Bin, ...]) -> list[tuple[str, int, str]]:
    most = max((bin.count for bin in bins), default=0)
    return [(bin.label, bin.count, "█" * round(40 * bin.count / most)) for bin in bins if bin.count]


def _rounded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Round times and rates to two decimals: more are noise."""
    return tuple(round(value, 2) if isinstance(value, float) else value for value in row)


def _section(title: str, names: tuple[str, ...], rows: list[Any]) -> str:
    return f"{title}\n{text_table(names, rows)}" if rows else f"{title}\n(none)\n"


def _figures(tables: TableViews) -> TableFigures:
    tables.add_shards()
    return TableFigures(
        totals=_totals(tables),
        confidence=_confidence(tables),
        word_length=_lengths(tables),
        words_per_image=_words_per_image(tables),
        failures=tuple(
            Bin(f"{stage} {kind}", n)
            for stage, kind, n in tables.rows(
                "SELECT stage, kind, count(*) FROM errors GROUP BY ALL ORDER BY 3 DESC, 1, 2"
            )
        ),
        stage_s=_stages(tables),
        throughput=_throughput(tables),
        runs=tuple(
            tables.rows(
                "SELECT run_id, images, words, failed, elapsed_s, images_per_s FROM runs "
                "ORDER BY started"
            )
        ),
    )


def _totals(tables: TableViews) -> Totals:
    """Counts from the images table, and of the words below the threshold."""
    row = tables.rows(
        """
        SELECT count(*), count(*) FILTER (status = 'words'), count(*) FILTER (status = 'empty'),
            count(*) FILTER (status = 'failed'), coalesce(sum(n_words), 0)::BIGINT,
            coalesce(sum(n_unread), 0)::BIGINT, count(*) FILTER (saturated),
            count(damage)
        FROM images
        """
    )[0]
    threshold = tables.files.text_threshold
    below = words_below(tables, threshold) if threshold > 0 else 0
    return Totals(*(int(value) for value in (*row, below)))


def words_below(tables: TableViews, confidence: float) -> int:
    """The number of words with less text confidence."""
    sql = "SELECT count(*) FROM words WHERE text_confidence < ?"
    return int(tables.rows(sql, [confidence])[0][0])


def charts(figures: TableFigures) -> list[Chart]:
    """The statistics as charts."""
    return [
        line_chart(
            "Throughput",
            figures.throughput,
            x_title="seconds since the first shard",
            y_title="images/s",
        ),
        bar_chart(
            "Words per image", _bars(figures.words_per_image), x_title="words", y_title="images"
        ),
        bar_chart("Text confidence", _bars(figures.confidence), x_title="from", y_title="words"),
        bar_chart("Word length", _bars(figures.word_length), x_title="characters", y_title="words"),
        bar_chart(
            "Mean time of an image by stage",
            [Bar(stage, 1000 * s, f"{stage}: {1000 * s:.1f} ms") for stage, s in figures.stage_s],
            y_title="ms",
        ),
    ]


def _bars(bins: tuple[Bin, ...]) -> list[Bar]:
    return [Bar(bin.label, bin.count) for bin in bins]


def _confidence(tables: TableViews) -> tuple[Bin, ...]:
    found = dict(
        tables.rows(
            "SELECT least(floor(text_confidence * 20), 19)::INTEGER, count(*) FROM words GROUP BY 1"
        )
    )
    return tuple(Bin(f"{n / 20:g}", found.get(n, 0)) for n in range(20))


def _lengths(tables: TableViews) -> tuple[Bin, ...]:
    found = dict(
        tables.rows("SELECT least(len(text), 20)::INTEGER, count(*) FROM words GROUP BY 1")
    )
    last = max(found, default=0)
    return tuple(
        Bin(f"{n}+" if n == 20 else str(n), found.get(n, 0)) for n in range(1, int(last) + 1)
    )


def _words_per_image(tables: TableViews) -> tuple[Bin, ...]:
    edges = (0, 1, 2, 3, 4, 6, 11, 21, 51, 101)
    found = tables.rows("SELECT n_words, count(*) FROM images WHERE status <> 'failed' GROUP BY 1")
    bins = []
    for n, low in enumerate(edges):
        high = edges[n + 1] - 1 if n + 1 < len(edges) else None
        count = sum(c for value, c in found if value >= low and (high is None or value <= high))
        label = f"{low}+" if high is None else str(low) if high == low else f"{low}-{high}"
        bins.append(Bin(label, count))
    return tuple(bins)


def _stages(tables: TableViews) -> tuple[tuple[str, float], ...]:
    columns = ", ".join(f"avg({stage}_s)" for stage in TIMED_STAGES)
    row = tables.rows(f"SELECT {columns} FROM images WHERE status <> 'failed'")[0]
    return tuple((stage, float(value or 0)) for stage, value in zip(TIMED_STAGES, row, strict=True))


def _throughput(tables: TableViews) -> tuple[tuple[float, float], ...]:
    """Images per second; a shard's images are spread evenly over the time it took.

    Pauses between runs show as zeros.
    """
    spans = tables.rows(
        "SELECT epoch(started_at), epoch(finished_at), images FROM shards "
        "WHERE finished_at > started_at"
    )
    if not spans:
        return ()
    first, last = min(s for s, _, _ in spans), max(e for _, e, _ in spans)
    width = (last - first) / _THROUGHPUT_BINS
    sums = [0.0] * _THROUGHPUT_BINS
    for start, end, images in spans:
        rate = images / (end - start)
        for n in range(
            int((start - first) / width), min(_THROUGHPUT_BINS, int((end - first) / width) + 1)
        ):
            low, high = max(start, first + n * width), min(end, first + (n + 1) * width)
            sums[n] += rate * max(0.0, high - low)
    return tuple(((n + 0.5) * width, total / width) for n, total in enumerate(sums))
