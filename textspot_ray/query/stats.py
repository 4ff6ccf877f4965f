"""Figures of a table as text, JSON and a PNG of plots."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.query.figures import Figures, compute
from textspot_ray.query.output import text_table
from textspot_ray.query.views import TableViews


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
class Stats:
    """Figures, sources and the slowest images."""

    figures: Figures
    sources: tuple[SourceRow, ...]
    slowest: tuple[SlowImage, ...]


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
    )


def report(stats: Stats) -> str:
    """All figures as text."""
    t = stats.figures.totals
    parts = [
        f"images  {t.images}: {t.with_words} with words, {t.empty} without, {t.failed} failed\n"
        f"words   {t.words}; {t.unread} boxes without text; "
        f"{t.saturated} images met the box limit\n"
    ]
    parts.append(
        _section(
            "by source",
            ("source", "images", "failed", "words"),
            [dataclasses.astuple(row) for row in stats.sources],
        )
    )
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
    stages = [(stage, 1000 * seconds) for stage, seconds in stats.figures.stage_s]
    parts.append(_section("mean time of an image", ("stage", "ms"), stages))
    parts.append(
        _section(
            "runs",
            ("run", "images", "words", "failed", "seconds", "images/s"),
            list(stats.figures.runs),
        )
    )
    parts.append(
        _section(
            "slowest images",
            ("image", "seconds", "width", "height", "words"),
            [dataclasses.astuple(row) for row in stats.slowest],
        )
    )
    return "\n".join(parts)


def as_json(stats: Stats) -> dict[str, Any]:
    """All figures for programs."""
    return dataclasses.asdict(stats)


def plot(stats: Stats, out: str) -> None:
    """Write a PNG of plots.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: The file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtraError("stats --plot", "plot") from exc
    figures = stats.figures
    figure = Figure(figsize=(13, 11), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 2)
    _line(axes[0][0], figures.throughput)
    for axis, title, bins in (
        (axes[0][1], "Words per image", figures.words_per_image),
        (axes[1][0], "Text confidence", figures.confidence),
        (axes[1][1], "Word length", figures.word_length),
    ):
        axis.bar([bin.label for bin in bins], [bin.count for bin in bins], color="#2257c4")
        axis.set_title(title)
        axis.tick_params(axis="x", labelrotation=60 if len(bins) > 12 else 0)
    axes[2][0].bar(
        [stage for stage, _ in figures.stage_s],
        [1000 * s for _, s in figures.stage_s],
        color="#2257c4",
    )
    axes[2][0].set_title("Mean time of an image by stage (ms)")
    _sources(axes[2][1], stats.sources)
    try:
        figure.savefig(Path(out), dpi=110, format="png")
    except OSError as exc:
        raise UsageError(f"cannot write {out}: {exc.strerror or exc}") from exc


def _line(axis: Any, points: tuple[tuple[float, float], ...]) -> None:
    axis.plot([x for x, _ in points], [y for _, y in points], color="#2257c4")
    axis.set_title("Throughput")
    axis.set_xlabel("seconds since the first shard")
    axis.set_ylabel("images/s")
    axis.set_ylim(bottom=0)


def _sources(axis: Any, sources: tuple[SourceRow, ...]) -> None:
    names = [_short(row.source) for row in sources][::-1]
    places = list(range(len(names)))
    axis.barh(places, [row.images for row in sources][::-1], color="#2257c4", label="images")
    axis.barh(places, [row.failed for row in sources][::-1], color="#b3261e", label="failed")
    axis.set_yticks(places, names)
    axis.set_title("Images by source")
    if names:
        axis.legend(loc="lower right")


def _short(source: str) -> str:
    # matplotlib reads $...$ as a formula
    name = source if len(source) <= 32 else f"…{source[-31:]}"
    return name.replace("$", r"\$")


def _section(title: str, names: tuple[str, ...], rows: list[Any]) -> str:
    return f"{title}\n{text_table(names, rows)}" if rows else f"{title}\n(none)\n"
