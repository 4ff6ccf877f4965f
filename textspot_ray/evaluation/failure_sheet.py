"""A PNG of the words that were not read, with what was found and read instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import UsageError
from textspot_ray.evaluation.evaluate import Evaluation
from textspot_ray.evaluation.failures import Failure, FailureKind, WordOutcomes, word_outcomes
from textspot_ray.evaluation.rules import ScoringTask
from textspot_ray.query.destination import open_binary
from textspot_ray.query.pages import read_some
from textspot_ray.query.pictures import Pictures
from textspot_ray.query.views import TableViews

TILE_WIDTH, PICTURE_HEIGHT, CAPTION_HEIGHT = 320, 96, 24
COLUMNS = 4
MARGIN = 1.0  # around the word, in heights of the word
GREEN, RED, BLACK = (0, 170, 0), (0, 0, 255), (0, 0, 0)


def write_sheet(
    tables: TableViews,
    evaluation: Evaluation,
    gt_size: tuple[int, int] | None,
    out: str,
    source_options: Mapping[str, Any] | None = None,
) -> WordOutcomes:
    """Draw every word that word spotting wants and that was not read into one PNG.

    Args:
        tables: The evaluated table.
        evaluation: What was measured.
        gt_size: Size that the ground truth's coordinates belong to; None: the images'.
        out: PNG to write; path or fsspec URI.
        source_options: fsspec options of the images' sources and of ``out``.

    Returns:
        What was drawn.

    Raises:
        UsageError: The file cannot be written.
    """
    found = word_outcomes(evaluation.scores[ScoringTask.WORD_SPOTTING])
    ids = evaluation.joined.image_ids
    by_image: dict[str, list[Failure]] = {}
    for failure in found.failures:
        by_image.setdefault(failure.image, []).append(failure)
    keys = [key for key in by_image if key in ids]
    pages = read_some(tables, [ids[key] for key in keys])
    tiles: dict[FailureKind, list[NDArray[np.uint8]]] = {kind: [] for kind in FailureKind}
    with Pictures(tables.files.store, source_options) as pictures:
        shown = pictures.decoded([pages[ids[key]] for key in keys])
        for key, (_, image, note) in zip(keys, shown, strict=True):
            for failure in by_image[key]:
                tiles[failure.kind].append(tile(failure, image, gt_size, note))
    for key in by_image.keys() - ids.keys():
        for failure in by_image[key]:
            tiles[failure.kind].append(tile(failure, None, gt_size, "not in the table"))
    done, data = cv2.imencode(".png", sheet(tiles))
    if not done:
        raise UsageError(f"cannot write {out}: too many failures for one picture")
    with open_binary(out, source_options) as file:
        file.write(data.tobytes())
    return found


def tile(
    failure: Failure,
    image: NDArray[np.uint8] | None,
    gt_size: tuple[int, int] | None,
    note: str = "",
) -> NDArray[np.uint8]:
    """One failure: the image around it, the word's quad green, the found one red, the reading.

    Args:
        failure: The word.
        image: The upright picture (H x W x 3, BGR), or None.
        gt_size: Width and height that the quads belong to; None: the picture's.
        note: Why there is no picture.
    """
    drawn = np.full((PICTURE_HEIGHT + CAPTION_HEIGHT, TILE_WIDTH, 3), 255, np.uint8)
    if image is None:
        _write(drawn, note or "no picture", PICTURE_HEIGHT // 2)
    else:
        height, width = image.shape[:2]
        scale = np.array([width, height]) / np.array(gt_size or (width, height))
        quad = np.reshape(failure.quad, (4, 2)) * scale
        margin = MARGIN * max(float(np.hypot(*(quad[3] - quad[0]))), 8.0)
        x0, y0 = np.clip(np.floor(quad.min(0) - margin), 0, [width - 1, height - 1]).astype(int)
        x1, y1 = np.clip(np.ceil(quad.max(0) + margin), [x0 + 1, y0 + 1], [width, height])
        crop = image[y0 : int(y1), x0 : int(x1)]
        grown = min((TILE_WIDTH - 6) / crop.shape[1], (PICTURE_HEIGHT - 2) / crop.shape[0])
        size = tuple(max(1, round(n * grown)) for n in crop.shape[1::-1])
        mode = cv2.INTER_AREA if grown < 1 else cv2.INTER_LINEAR
        crop = np.ascontiguousarray(cv2.resize(crop, size, interpolation=mode))
        for polygon, colour in ((failure.found, RED), (failure.quad, GREEN)):
            if polygon is not None:
                points = (np.reshape(polygon, (4, 2)) * scale - [x0, y0]) * grown
                cv2.polylines(crop, [points.round().astype(np.int32)], True, colour, 1, cv2.LINE_AA)
        drawn[: crop.shape[0], : crop.shape[1]] = crop
    read = failure.read or "-"
    caption = f"{failure.text} > {read}  {failure.iou:.2f}  {failure.image}"
    _write(drawn, caption, PICTURE_HEIGHT + CAPTION_HEIGHT - 8)
    return drawn


def sheet(tiles: Mapping[FailureKind, Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Tiles under a heading for each kind."""
    rows: list[NDArray[np.uint8]] = []
    for kind, several in tiles.items():
        heading = np.full((CAPTION_HEIGHT + 8, COLUMNS * TILE_WIDTH, 3), 225, np.uint8)
        _write(heading, f"{kind}: {len(several)}", CAPTION_HEIGHT)
        rows.append(heading)
        for start in range(0, len(several), COLUMNS):
            row = list(several[start : start + COLUMNS])
            row += [np.full_like(row[0], 255)] * (COLUMNS - len(row))
            rows.append(np.hstack(row))
    return np.vstack(rows)


def _write(image: NDArray[np.uint8], text: str, y: int) -> None:
    # OpenCV draws ASCII only
    plain = text.encode("ascii", "replace").decode()[:60]
    cv2.putText(image, plain, (3, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)
