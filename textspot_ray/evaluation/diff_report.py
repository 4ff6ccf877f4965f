"""A comparison of two tables as text, as rows of CSV, and as an HTML page."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from textspot_ray.evaluation.diff import Change, DiffSummary, PagePair, WordPair
from textspot_ray.query.charts import Bar, bar_chart
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.views import TableViews
from textspot_ray.web import html
from textspot_ray.web.html import SHARED, Tab
from textspot_ray.web.image_data import described

_COLUMNS = (
    "image_id",
    "change",
    "text_a",
    "text_b",
    "confidence_a",
    "confidence_b",
    "x_min",
    "y_min",
    "x_max",
    "y_max",
)
_NAMED_CHANGES = 15


def most_different(pairs: Iterable[PagePair], count: int) -> list[PagePair]:
    """The images with the most differences, of a streamed comparison."""
    differing = (pair for pair in pairs if pair.differences)
    return heapq.nlargest(count, differing, key=lambda pair: pair.differences)


def settings_differences(a: TableViews, b: TableViews) -> list[tuple[str, str, str]]:
    """Settings in which the two tables differ: name, value of A, value of B."""
    first, second = a.files.fingerprint, b.files.fingerprint
    return [
        (key, first.get(key, "-"), second.get(key, "-"))
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]


def diff_text(a: TableViews, b: TableViews, summary: DiffSummary) -> str:
    """The summary as text.

    Args:
        a: The one table.
        b: The other.
        summary: From `diff.compare_tables`.
    """
    words = summary.words
    in_a = words[Change.SAME] + words[Change.CHANGED] + words[Change.LOST]
    in_b = words[Change.SAME] + words[Change.CHANGED] + words[Change.GAINED]
    lines = [
        f"A {a.uri}",
        f"B {b.uri}",
        *(f"  {key}: {x} -> {y}" for key, x, y in settings_differences(a, b)),
        "",
        f"images   {summary.images} in both, {summary.differing} differ; "
        f"{summary.only_a} only in A, {summary.only_b} only in B",
        f"words    {in_a} in A, {in_b} in B",
    ]
    for change in Change:
        share = 100 * words[change] / in_a if in_a else 0.0
        lines.append(f"  {change:<8}{words[change]:>9}  {share:6.2f} % of A's")
    lines.append(f"confidence of same words: {summary.mean_shift:+.4f} on average")
    lines += [f"  {label:<16}{count:>9}" for label, count in summary.shifts() if count]
    for (old, new), count in summary.status.most_common():
        lines.append(f"images {old} -> {new}: {count}")
    if summary.changes:
        lines += ["", "most frequent changes:"]
        lines += [
            f"{count:>7}  {old} -> {new}"
            for (old, new), count in summary.changes.most_common(_NAMED_CHANGES)
        ]
    return "\n".join(lines) + "\n"


def diff_json(a: TableViews, b: TableViews, summary: DiffSummary) -> dict[str, Any]:
    """The summary as plain values for JSON.

    Args:
        a: The one table.
        b: The other.
        summary: From `diff.compare_tables`.
    """
    return {
        "a": a.uri,
        "b": b.uri,
        "settings": {key: [x, y] for key, x, y in settings_differences(a, b)},
        "images": summary.images,
        "images_differing": summary.differing,
        "images_only_a": summary.only_a,
        "images_only_b": summary.only_b,
        "words": {str(change): summary.words[change] for change in Change},
        "mean_confidence_shift": summary.mean_shift,
    }


def write_rows(pairs: Iterable[PagePair], file: IO[str]) -> Iterator[PagePair]:
    """Pass images on, and write each word that is not the same as a line of CSV."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for pair in pairs:
        changed = (word for word in pair.words if word.change is not Change.SAME)
        writer.writerows(_row(pair.a.image_id, word) for word in changed)
        yield pair


def page(
    a: TableViews,
    b: TableViews,
    summary: DiffSummary,
    worst: Iterable[PagePair],
    source_options: Mapping[str, Any] | None = None,
) -> str:
    """The comparison as a self-contained page.

    Args:
        a: The one table.
        b: The other.
        summary: From `diff.compare_tables`.
        worst: Images to show.
        source_options: fsspec options of the images' sources.
    """
    pairs = list(worst)
    with Pictures(a.files.store, source_options) as pictures:
        pages = [pair.a if pair.a.width else pair.b for pair in pairs]
        images = [
            {
                **described(shown, picture),
                "meta": f"{pair.differences} differences",
                "words": [_word_data(word) for word in pair.words],
            }
            for pair, (shown, picture) in zip(pairs, pictures.scaled(pages, 960), strict=True)
        ]
    words = summary.words
    return html.standalone(
        "diff.html",
        (*SHARED, "view.js"),
        {"images": images},
        title="textspot-ray: comparison",
        subtitle=f"A {a.uri} · B {b.uri}",
        note="",
        tabs=(Tab("summary", "Summary"), Tab("images", "Images that differ most", len(images))),
        opened="summary",
        counts=(
            ("images in both", summary.images),
            ("images that differ", summary.differing),
            ("only in A", summary.only_a),
            ("only in B", summary.only_b),
            *((f"words {change}", words[change]) for change in Change),
        ),
        charts=(
            bar_chart("Words", [Bar(str(change), words[change]) for change in Change]),
            bar_chart(
                "Confidence of same words, B - A",
                [Bar(label.split(" to ")[0], count, label) for label, count in summary.shifts()],
                x_title="from",
                y_title="words",
            ),
        ),
        settings=settings_differences(a, b),
        statuses=[(x, y, n) for (x, y), n in summary.status.most_common()],
        changes=[(old, new, n) for (old, new), n in summary.changes.most_common(50)],
    )


def _word_data(word: WordPair) -> dict[str, Any]:
    shown = word.b or word.a
    assert shown is not None
    texts = [item.text for item in (word.a, word.b) if item is not None]
    label = {
        Change.SAME: texts[0],
        Change.CHANGED: " → ".join(texts),
        Change.LOST: f"− {texts[0]}",
        Change.GAINED: f"+ {texts[0]}",
    }[word.change]
    return {
        "t": " ".join(texts),
        "label": label,
        "c": round(shown.text_confidence, 4),
        "p": [round(value, 1) for value in shown.polygon],
        "kind": str(word.change),
    }


def _row(image_id: str, word: WordPair) -> list[object]:
    shown = word.b or word.a
    assert shown is not None
    return [
        image_id,
        str(word.change),
        word.a.text if word.a else "",
        word.b.text if word.b else "",
        f"{word.a.text_confidence:.4f}" if word.a else "",
        f"{word.b.text_confidence:.4f}" if word.b else "",
        *(f"{value:.1f}" for value in shown.box),
    ]
