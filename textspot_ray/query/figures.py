"""Figures of a table: totals, distributions, throughput; computed by DuckDB, small results only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textspot_ray.query.charts import Bar, Chart, bar_chart, line_chart
from textspot_ray.query.views import TableViews
from textspot_ray.records import TIMED_STAGES

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
    """A class of a distribution: label and count."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class TableFigures:
    """All figures of a table.

    Attributes:
        totals: Counts.
        confidence: Words by text confidence, in twenty classes.
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


def compute(tables: TableViews) -> TableFigures:
    """Compute all figures; a few scans of the tables."""
    tables.add_shards()
    return TableFigures(
        totals=totals(tables),
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


def totals(tables: TableViews) -> Totals:
    """Counts of images from the images table alone, and of the words below the threshold."""
    row = tables.rows(
        """
        SELECT count(*), count(*) FILTER (status = 'words'), count(*) FILTER (status = 'empty'),
            count(*) FILTER (status = 'failed'), coalesce(sum(n_words), 0)::BIGINT,
            coalesce(sum(n_unread), 0)::BIGINT, count(*) FILTER (saturated),
            count(damage)
        FROM images
        """
    )[0]
    least = tables.files.text_threshold
    below = 0
    if least > 0:
        (below,) = tables.rows("SELECT count(*) FROM words WHERE text_confidence < ?", [least])[0]
    return Totals(*(int(value) for value in (*row, below)))


def charts(figures: TableFigures) -> list[Chart]:
    """The figures as plots."""
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
