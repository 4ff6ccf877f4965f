"""From finished images to rows: column buffers of the three tables, and their counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from textspot_ray.reading_order import line_indices
from textspot_ray.records import Counts, ErrorKind, ImageError, ImageResult, Stage, Status, Word
from textspot_ray.tables.schema import (
    SCHEMAS,
    TABLES,
    clean_extra,
    clean_message,
    clean_text,
    page_id,
)
from textspot_ray.text_key import text_key


class RowBuffer:
    """Rows of finished images, kept as columns until they are taken as Arrow tables.

    Args:
        run_id: The run that writes the rows.
        shard: Name of their shard.
    """

    def __init__(self, run_id: str, shard: str) -> None:
        self._run_id = run_id
        self._shard = shard
        self._columns = {table: _empty(table) for table in TABLES}
        self.n_rows = 0

    def add(self, result: ImageResult) -> None:
        """Append the rows of an image whose result is `sound`."""
        words = result.words
        image_id = clean_text(page_id(result.item.image_id, result.page))
        self._add_words(image_id, words)
        self._add_image(image_id, result, len(words))
        self.n_rows += len(words) + 1
        error = result.error
        if error is not None:
            columns = self._columns["errors"]
            columns["image_id"].append(image_id)
            columns["stage"].append(str(error.stage))
            columns["kind"].append(str(error.kind))
            columns["message"].append(clean_message(error.message))
            columns["attempts"].append(error.attempts)

    def take(self, table: str) -> pa.Table:
        """The rows of one table; they leave the buffer."""
        schema = SCHEMAS[table]
        columns, self._columns[table] = self._columns[table], _empty(table)
        self.n_rows -= len(columns["image_id"]) if table != "errors" else 0
        arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _add_words(self, image_id: str, words: Sequence[Word]) -> None:
        columns = self._columns["words"]
        for index, (word, line) in enumerate(zip(words, line_indices(words), strict=True)):
            columns["image_id"].append(image_id)
            columns["word_index"].append(index)
            columns["line_index"].append(line)
            columns["text"].append(word.text)
            columns["text_key"].append(text_key(word.text))
            columns["text_confidence"].append(word.text_confidence)
            columns["char_confidences"].append(word.char_confidences)
            columns["detection_confidence"].append(word.detection_confidence)
            for name, value in zip(("x_min", "y_min", "x_max", "y_max"), word.box, strict=True):
                columns[name].append(value)
            columns["polygon"].append(word.polygon)
            columns["angle_deg"].append(word.angle_deg)

    def _add_image(self, image_id: str, result: ImageResult, n_words: int) -> None:
        item, info = result.item, result.info
        row: dict[str, Any] = {
            "image_id": image_id,
            "source": clean_text(item.source),
            "member": None if item.member is None else clean_text(item.member),
            "page": result.page,
            "width": None if info is None else info.width,
            "height": None if info is None else info.height,
            "format": None if info is None else info.format,
            "bytes": item.size,
            "content_tag": None if item.content_tag is None else clean_text(item.content_tag),
            "exif_orientation": None if info is None else info.exif_orientation,
            "tiles": None if info is None else info.tiles,
            "n_words": n_words,
            "n_unread": result.n_unread,
            "saturated": False if info is None else info.saturated,
            "status": str(result.status),
            "read_s": result.read_s,
            "decode_s": result.decode_s,
            "detect_s": result.detect_s,
            "recognise_s": result.recognise_s,
            "extra": clean_extra(item.extra),
            "run_id": self._run_id,
            "shard": self._shard,
            "damage": None if info is None or not info.damage else clean_message(info.damage),
            "content_sha256": result.sha256,
        }
        columns = self._columns["images"]
        for name, value in row.items():
            columns[name].append(value)


def counts_of(result: ImageResult) -> Counts:
    """What a result that is `sound` adds to the counts."""
    kind = None if result.error is None else str(result.error.kind)
    damaged = result.info is not None and bool(result.info.damage)
    return page_counts(result.page, result.status, len(result.words), damaged, kind)


def page_counts(page: int, status: Status, n_words: int, damaged: bool, kind: str | None) -> Counts:
    """What a page adds to the counts.

    Args:
        page: Its number in its item, from 0; the first one counts the item.
        status: What became of it.
        n_words: Its words.
        damaged: Whether a decoder complained.
        kind: Why it failed, if it did.
    """
    return Counts(
        items=int(page == 0),
        images=1,
        with_words=int(status is Status.WORDS),
        empty=int(status is Status.EMPTY),
        failed=int(status is Status.FAILED),
        words=n_words,
        failures={} if kind is None else {kind: 1},
        damaged=int(damaged),
    )


def sound(result: ImageResult) -> ImageResult:
    """The result itself, or a failed image where it cannot be stored.

    That is a number that is not finite, or a word without text or without four corners: one bad
    image never stops a shard, and a table never holds a NaN.
    """
    if result.error is not None:
        return result if not result.words else replace(result, words=())
    for index, word in enumerate(result.words):
        fault = _word_fault(word)
        if fault:
            message = f"word {index} cannot be stored: {fault}"
            error = ImageError(Stage.WRITE, ErrorKind.INTERNAL, message)
            return replace(result, words=(), n_unread=0, error=error)
    return result


def _word_fault(word: Word) -> str | None:
    if not word.text:
        return "its text is empty"
    if len(word.polygon) != 8 or len(word.box) != 4:
        return f"its polygon has {len(word.polygon)} numbers, its box {len(word.box)}"
    scores = (word.text_confidence, word.detection_confidence, word.angle_deg)
    numbers = (*scores, *word.box, *word.polygon, *word.char_confidences)
    if not all(map(math.isfinite, numbers)):
        return "a number is not finite"
    return None


def _empty(table: str) -> dict[str, list[Any]]:
    return {field.name: [] for field in SCHEMAS[table]}
