"""The HTML page of an evaluation's worst images: words missed, misread and spurious."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textspot_ray.evaluation.evaluate import Evaluation
from textspot_ray.evaluation.matching import ImageScore
from textspot_ray.evaluation.report import evaluation_report, worst_first
from textspot_ray.query.pages import Page, read_some
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.views import TableViews
from textspot_ray.web import html
from textspot_ray.web.html import SHARED, Tab
from textspot_ray.web.image_data import described
from textspot_ray.web.view import write_page


def write_misses(
    tables: TableViews,
    evaluation: Evaluation,
    gt_size: tuple[int, int] | None,
    count: int,
    out: str,
    source_options: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of the worst images of word spotting.

    Args:
        tables: The evaluated table.
        evaluation: What was measured.
        gt_size: Size that the ground truth's coordinates belong to; None: the images'.
        count: Images on the page.
        out: File to write.
        source_options: fsspec options of the images' sources.
    """
    joined = evaluation.joined.image_ids
    worst = [image for image in worst_first(evaluation) if image.image in joined][:count]
    found = read_some(tables, [joined[image.image] for image in worst])
    pages = [found[joined[image.image]] for image in worst]
    images = []
    with Pictures(tables.files.store, source_options) as pictures:
        for score, (page, picture) in zip(worst, pictures.scaled(pages, 1280), strict=True):
            f = score.figures
            images.append(
                {
                    **described(page, picture),
                    "meta": f"{f.matched} of {f.wanted} found, {f.predicted} predicted",
                    "words": judged_words(score, page, gt_size),
                }
            )
    written = html.standalone(
        "misses.html",
        (*SHARED, "view.js"),
        {"images": images},
        title="textspot-ray: worst images",
        subtitle=f"{tables.uri}: {len(images)} images, most words missed, misread or made up first",
        note="",
        tabs=(Tab("images", "Images", len(images)), Tab("figures", "Figures")),
        opened="images",
        lines=evaluation_report(evaluation).splitlines(),
    )
    write_page(written, out)


def judged_words(
    score: ImageScore, page: Page, gt_size: tuple[int, int] | None
) -> list[dict[str, Any]]:
    """An image's words by result, in pixels of the image.

    Args:
        score: The image's result.
        page: Its row, for its size.
        gt_size: Width and height that the ground truth belongs to; None: the image's.
    """
    words, predictions = score.measured.words, score.measured.predictions

    def entry(kind: str, label: str, polygon: Sequence[float], sure: float) -> dict[str, Any]:
        scale = (1.0, 1.0)
        if gt_size is not None and page.width and page.height:
            scale = (page.width / gt_size[0], page.height / gt_size[1])
        return {
            "t": label.lower(),
            "label": label,
            "c": round(sure, 4),
            "p": [round(value * scale[n % 2], 1) for n, value in enumerate(polygon)],
            "kind": kind,
        }

    found = []
    for pair in score.pairs:
        word, read = words[pair.gt], predictions[pair.predicted]
        label = read.text if pair.right else f"{word.text} → {read.text}"
        kind = "same" if pair.right else "changed"
        found.append(entry(kind, label, read.polygon, read.text_confidence))
    found += [entry("lost", f"− {words[g].text}", words[g].polygon, 1.0) for g in score.missed]
    found += [
        entry(
            "gained",
            f"+ {predictions[p].text}",
            predictions[p].polygon,
            predictions[p].text_confidence,
        )
        for p in score.spurious
    ]
    return found
