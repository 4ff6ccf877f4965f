"""Rows of words with numbers for their texts and image ids, and how such rows are put in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.tables.schema import WORDS_BY_TEXT

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUT_ROWS = 61_440
BOUNDS = 12
SAMPLE_ROWS = 16_384  # of a batch
GIVEN = WORDS_BY_TEXT.set(
    0, WORDS_BY_TEXT.field("text").with_type(pa.dictionary(pa.int32(), pa.string()))
)
NUMBERS = [name for name in WORDS_BY_TEXT.names if name not in ("text", "image_id")]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one batch. Texts and image ids repeat, so rows hold their numbers.

    Attributes:
        texts: Distinct texts.
        first: Number of the first of them.
        rows: Columns ``text`` (number, from ``first``), ``image_id`` (number among the sort's
            images) and those of `NUMBERS`.
    """

    texts: pa.LargeStringArray
    first: int
    rows: pa.Table


def choose_bounds(pieces: list[Piece]) -> pa.LargeStringArray:
    """Texts that cut the rows into parts of like size; a text that is very common is one."""
    samples = []
    for piece in pieces:
        codes = numpy(piece.rows.column("text"))
        step = max(1, len(codes) // SAMPLE_ROWS)
        samples.append(piece.texts.take(arrow(np.ascontiguousarray(codes[::step]))))
    sample = joined(samples).drop_null()
    if not len(sample):
        return sample
    in_order = sample.take(pc.array_sort_indices(sample))
    at = np.linspace(0, len(in_order) - 1, BOUNDS + 2)[1:-1].astype(np.int64)
    return pc.unique(in_order.take(arrow(at)))


def ranges_of(texts: pa.LargeStringArray, bounds: pa.LargeStringArray) -> NDArray[np.uint8]:
    """The range of each text: 2 k + 1 for bound k itself, 2 k below it, the last one for null."""
    if texts.null_count:
        found = np.full(len(texts), 2 * len(bounds) + 1, np.uint8)
        found[numpy(texts.is_valid().cast(pa.uint8())) == 1] = ranges_of(texts.drop_null(), bounds)
        return found
    found = np.zeros(len(texts), np.uint8)
    for bound in bounds:
        found += 2 * numpy(pc.greater_equal(texts, bound).cast(pa.uint8()))
    found -= numpy(pc.is_in(texts, bounds).cast(pa.uint8()))
    return found


def sorted_pieces(pieces: list[Piece], images: pa.LargeStringArray) -> Iterator[pa.Table]:
    """Rows of one range in order: each row is told by its text's place and its own, as one number.

    Sorting these numbers is many times faster than comparing texts, and keeps ties in order.
    """
    distinct = encoded(joined([piece.texts for piece in pieces]), "encode")
    in_order = pc.array_sort_indices(distinct.dictionary)
    texts = distinct.dictionary.take(in_order)
    place = np.empty(len(in_order), np.int64)
    place[numpy(in_order)] = np.arange(len(in_order))
    place = place[numpy(distinct.indices)] << 32
    keys, before = [], 0
    for piece in pieces:
        keys.append(place[numpy(piece.rows.column("text")) + np.int32(before - piece.first)])
        before += len(piece.texts)
    rows = pa.concat_tables([piece.rows for piece in pieces]).combine_chunks()
    key = np.concatenate(keys)
    key |= np.arange(len(key))
    key.sort()
    for start in range(0, len(key), OUT_ROWS):
        some = key[start : start + OUT_ROWS]
        chosen = rows.take(arrow(some & 0xFFFFFFFF))
        number = some >> 32
        first, last = int(number[0]), int(number[-1])
        codes = chosen.set_column(0, "text", arrow((number - first).astype(np.int32)))
        yield plain(codes, texts.slice(first, last + 1 - first), 0, images)


def plain(
    rows: pa.Table, texts: pa.LargeStringArray, first: int, images: pa.LargeStringArray
) -> pa.Table:
    """Rows with their image ids in full, and their texts as a dictionary that may hold null."""
    number = rows.column("text")
    if first:
        number = pc.subtract(number, scalar(first))
    text = pa.DictionaryArray.from_arrays(number.combine_chunks(), texts.cast(pa.string()))
    if texts.null_count:  # Parquet's writer takes a null among the numbers, not among the texts
        text = text.dictionary_decode().dictionary_encode()
    columns = {
        "text": text,
        "image_id": images.take(rows.column("image_id")).cast(pa.string()),
        **{name: rows.column(name) for name in NUMBERS},
    }
    return pa.Table.from_arrays([columns[f.name] for f in WORDS_BY_TEXT], schema=GIVEN)


def text_encoded(rows: pa.Table) -> pa.Table:
    """Rows with their texts as dictionaries, as `plain` gives them."""
    text = rows.column("text").dictionary_encode()
    return rows.set_column(0, GIVEN.field(0), text)


def with_images_from(piece: Piece, before: int) -> Piece:
    """The piece with image numbers among those of all lanes: so many come before its own."""
    if not before:
        return piece
    images = pc.add(piece.rows.column("image_id"), scalar(before))
    return replace(piece, rows=piece.rows.set_column(1, "image_id", images))


def encoded(strings: pa.Array | pa.ChunkedArray, null_encoding: str) -> pa.DictionaryArray:
    """Numbers of distinct strings; null is one of them (``encode``) or stays null (``mask``)."""
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    if pa.types.is_dictionary(strings.type):
        if not strings.null_count:
            return strings
        strings = strings.dictionary_decode()
    return pc.dictionary_encode(strings, null_encoding)


def joined(arrays: list[pa.Array]) -> pa.LargeStringArray:
    """Strings one after another. Together they may exceed the 2 GiB that plain arrays end at."""
    large = [array.cast(pa.large_string()) for array in arrays]
    return pa.concat_arrays(large) if large else pa.nulls(0, pa.large_string())


def numpy(numbers: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Numbers without nulls. Arrow's ``to_numpy`` would import pandas: 0.3 s."""
    if isinstance(numbers, pa.ChunkedArray):
        numbers = numbers.chunk(0) if numbers.num_chunks == 1 else numbers.combine_chunks()
    return np.from_dlpack(numbers)


def arrow(numbers: NDArray[Any]) -> pa.Array:
    """The inverse of `numpy`, likewise without pandas and without a copy."""
    kind = pa.from_numpy_dtype(numbers.dtype)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def scalar(number: int) -> pa.Int32Scalar:
    """A number that Arrow adds to a column without making it wider."""
    return arrow(np.array([number], np.int32))[0]
