"""Pictures of single words with their text: data for training and testing recognisers.

A folder opens as an image folder of Hugging Face's ``datasets`` (``metadata.csv`` beside the
pictures) and has PaddleOCR's recognition labels (``rec_gt.txt``); a ``.tar`` is a WebDataset of
``<key>.jpg``, ``<key>.txt`` and ``<key>.json``.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import UsageError
from textspot_ray.export.names import FileNames, is_folder
from textspot_ray.export.pixels import PixelExport
from textspot_ray.query.destination import Folder, open_binary, open_text
from textspot_ray.query.pages import Page, PageWord
from textspot_ray.query.pictures import jpeg_bytes

_JPEG_QUALITY = 95
_MAX_SIDE_PX = 4096
_COLUMNS = ("file_name", "text", "confidence", "image_id", "word_index")


def write(export: PixelExport) -> None:
    """Write each word's rectified picture with its text into a folder or a ``.tar``.

    Raises:
        UsageError: Nothing can be written there.
    """
    out, options, report = export.out, export.options, export.report
    found = _crops(export)
    if out.endswith(".tar"):
        with open_binary(out, options) as file, tarfile.open(fileobj=file, mode="w|") as archive:
            for stem, page, word, jpeg in found:
                key = stem.replace(".", "_")  # what follows the first dot is the field's name
                for field, data in (
                    ("jpg", jpeg),
                    ("txt", word.text.encode("utf-8", "replace")),
                    ("json", json.dumps(_facts(page, word), ensure_ascii=False).encode()),
                ):
                    info = tarfile.TarInfo(f"{key}.{field}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        report.files = 1
        return
    if not is_folder(out):
        raise UsageError(f"--out {out}: give a folder, or a file that ends in .tar")
    folder = Folder(out, options)
    root = out.rstrip("/")
    with (
        open_text(f"{root}/metadata.csv", options) as table,
        open_text(f"{root}/rec_gt.txt", options) as labels,
    ):
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for stem, page, word, jpeg in found:
            name = f"{stem}.jpg"
            folder.write(name, jpeg)
            writer.writerow(
                (name, word.text, f"{word.text_confidence:.4f}", page.image_id, word.word_index)
            )
            labels.write(f"{name}\t{' '.join(word.text.split())}\n")
            report.files += 1
    report.files += 2


def word_picture(image: NDArray[np.uint8], polygon: tuple[float, ...]) -> NDArray[np.uint8]:
    """A word's quadrilateral, rectified so that it reads from left to right.

    Args:
        image: H x W x 3 pixels.
        polygon: x0, y0, ... x3, y3, clockwise from the text's top left.

    Returns:
        The quad's pixels, as wide and high as its sides.
    """
    quad = np.reshape(np.asarray(polygon, np.float32), (4, 2))
    sides = np.hypot(*(np.roll(quad, -1, axis=0) - quad).T)
    width = int(np.clip(round(float(max(sides[0], sides[2]))), 1, _MAX_SIDE_PX))
    height = int(np.clip(round(float(max(sides[1], sides[3]))), 1, _MAX_SIDE_PX))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(quad, target)
    laid: NDArray[np.uint8] = cv2.warpPerspective(
        image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return laid


def _crops(export: PixelExport) -> Iterator[tuple[str, Page, PageWord, bytes]]:
    """Each word's file name without suffix, its page, and its picture as JPEG."""
    files = FileNames("crops", "", export.names)
    for page, _, decoded in export.files():
        stem = files.take(page)
        for word in page.words:
            data = jpeg_bytes(word_picture(decoded.image, word.polygon), _JPEG_QUALITY)
            if data is not None:
                yield f"{stem}/{word.word_index:04d}", page, word, data


def _facts(page: Page, word: PageWord) -> dict[str, Any]:
    return {
        "image_id": page.image_id,
        "word_index": word.word_index,
        "text": word.text,
        "confidence": round(word.text_confidence, 4),
        "polygon": [round(value, 2) for value in word.polygon],
    }
