"""Sorting words by text in bounded memory, however many there are.

A distribution sort: texts seen first give the bounds of ranges, rows go to the range of their text
as they come, and at the end one range after another is sorted. Ranges stay in memory as long as
they fit together, else they go to files and a file is sorted the same way. Every bound has a range
of its own, which needs no sorting: so a text that is half of all words costs no memory, and each
range of a file holds fewer rows than the file.

Texts are ordered by their UTF-8 bytes, as DuckDB and Parquet's statistics order them; null comes
last. Rows of one text stay in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError
from textspot_ray.tables.schema import WORDS_BY_TEXT

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_ROWS = 100_000  # encoded and distributed together
SAMPLE_BATCHES = 4  # seen before the bounds are chosen
BOUNDS = 12
_SAMPLE_ROWS = 16_384  # of a batch
_OUT_ROWS = 61_440
_NUMBERS = [name for name in WORDS_BY_TEXT.names if name not in ("text", "image_id")]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one batch. Texts and image ids repeat, so rows hold their numbers.

    Attributes:
        texts: Distinct texts.
        first: Number of the first of them.
        rows: Columns ``text`` (number, from ``first``), ``image_id`` (number among the sort's
            images) and those of `_NUMBERS`.
    """

    texts: pa.LargeStringArray
    first: int
    rows: pa.Table


@dataclass(slots=True)
class _Range:
    """Rows whose texts lie between two bounds, or are one bound."""

    one_text: bool
    pieces: list[_Piece] = field(default_factory=list)
    file: Path | None = None
    writer: pa.RecordBatchFileWriter | None = None


class TextSort:
    """Takes rows of words in any order and gives them sorted by text, once.

    Args:
        memory_bytes: Roughly how much to use.
        folder: Where rows go that memory does not hold; whoever made it deletes it.
        stop: When set, the sort ends with `AbortedError`.
    """

    def __init__(self, memory_bytes: int, folder: str, stop: Event | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._stop = stop or Event()
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._unsplit: list[_Piece] = []  # until there are bounds
        self._bounds: pa.LargeStringArray | None = None
        self._ranges: list[_Range] = []
        self._images: list[pa.LargeStringArray] = []
        self._n_images = 0
        self._held_bytes = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows with the columns of ``words_by_text``, and others or not.

        Raises:
            OSError: The scratch folder's disk is full or broken.
            AbortedError: The sort was stopped.
        """
        if self._stop.is_set():
            raise AbortedError("the sort was stopped")
        self._waiting.append(rows.select(WORDS_BY_TEXT.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= BATCH_ROWS:
            self._encode()

    def sorted(self) -> Iterator[pa.Table]:
        """All rows in order, some ten thousand at a time; may be called once.

        Raises:
            OSError: The scratch folder's disk is full or broken.
            AbortedError: The sort was stopped.
        """
        self._encode()
        self._split()
        if any(part.file for part in self._ranges):
            self._spill()  # what is read back needs the memory
        images = _joined(self._images)
        self._images = []
        for part in self._ranges:
            if part.file is not None:
                yield from self._sorted_file(part)
            elif part.one_text:
                for piece in part.pieces:
                    yield _plain(piece.rows, piece.texts, piece.first, images)
            elif part.pieces:
                yield from _sorted_pieces(part.pieces, images)
            part.pieces = []

    def _sorted_file(self, part: _Range) -> Iterator[pa.Table]:
        assert part.file is not None and part.writer is not None
        part.writer.close()
        with pa.OSFile(str(part.file)) as source, pa.ipc.open_file(source) as file:
            batches = (
                pa.Table.from_batches([file.get_batch(k)]) for k in range(file.num_record_batches)
            )
            if part.one_text:
                yield from batches
            else:
                inner = TextSort(self._memory_bytes, self._folder, self._stop)
                for rows in batches:
                    inner.add(rows)
                yield from inner.sorted()
        part.file.unlink()

    def _encode(self) -> None:
        """Make a piece of the rows that wait."""
        if not self._waiting_rows:
            return
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        text = _encoded(rows.column("text"), "encode")
        image = _encoded(rows.column("image_id"), "mask")
        columns = {
            "text": text.indices,
            "image_id": pc.add(image.indices, _scalar(self._n_images)),
            **{name: rows.column(name) for name in _NUMBERS},
        }
        self._images.append(image.dictionary)
        self._n_images += len(image.dictionary)
        piece = _Piece(
            text.dictionary.cast(pa.large_string()),
            0,
            pa.Table.from_pydict(columns).combine_chunks(),
        )
        self._held_bytes += piece.rows.nbytes + piece.texts.nbytes + image.dictionary.nbytes
        self._unsplit.append(piece)
        full = self._held_bytes > self._memory_bytes // 2
        if full or self._bounds is not None or len(self._unsplit) == SAMPLE_BATCHES:
            self._split()
        if full:
            self._spill()

    def _split(self) -> None:
        """Send rows to the ranges of their texts."""
        if self._bounds is None:
            self._bounds = _choose_bounds(self._unsplit)
            # below the first bound, it, between it and the second, ...; the last takes nulls
            self._ranges = [_Range(k % 2 == 1) for k in range(2 * len(self._bounds) + 2)]
        for piece in self._unsplit:
            of_text = _ranges_of(piece.texts, self._bounds)
            order = np.argsort(of_text, kind="stable")
            moved = np.empty(len(order), np.int32)
            moved[order] = np.arange(len(order), dtype=np.int32)
            codes = _numpy(piece.rows.column("text"))
            of_row = of_text[codes]
            texts = piece.texts.take(_arrow(order))
            rows = piece.rows.set_column(0, "text", _arrow(moved[codes]))
            rows = rows.take(_arrow(np.argsort(of_row, kind="stable")))
            n_texts = np.bincount(of_text, minlength=len(self._ranges)).tolist()
            n_rows = np.bincount(of_row, minlength=len(self._ranges)).tolist()
            text_at = row_at = 0
            for part, n_text, n_row in zip(self._ranges, n_texts, n_rows, strict=True):
                if n_row:
                    chosen = rows.slice(row_at, n_row)
                    part.pieces.append(_Piece(texts.slice(text_at, n_text), text_at, chosen))
                text_at += n_text
                row_at += n_row
        self._unsplit = []

    def _spill(self) -> None:
        """Move all rows to files."""
        images = _joined(self._images)
        for part in self._ranges:
            for piece in part.pieces:
                if part.writer is None:
                    part.file = Path(self._folder) / f"{uuid4().hex}.arrow"
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    part.writer = pa.ipc.new_file(str(part.file), WORDS_BY_TEXT, options=options)
                rows = _plain(piece.rows, piece.texts, piece.first, images)
                part.writer.write_table(rows, max_chunksize=_OUT_ROWS)
            part.pieces = []
        self._images, self._n_images, self._held_bytes = [], 0, 0


def _choose_bounds(pieces: list[_Piece]) -> pa.LargeStringArray:
    """Texts that cut the rows into parts of like size; a text that is very common is one."""
    samples = []
    for piece in pieces:
        codes = _numpy(piece.rows.column("text"))
        step = max(1, len(codes) // _SAMPLE_ROWS)
        samples.append(piece.texts.take(_arrow(np.ascontiguousarray(codes[::step]))))
    sample = _joined(samples).drop_null()
    if not len(sample):
        return sample
    in_order = sample.take(pc.array_sort_indices(sample))
    at = np.linspace(0, len(in_order) - 1, BOUNDS + 2)[1:-1].astype(np.int64)
    return pc.unique(in_order.take(_arrow(at)))


def _ranges_of(texts: pa.LargeStringArray, bounds: pa.LargeStringArray) -> NDArray[np.uint8]:
    """The range of each text: 2 k + 1 for bound k itself, 2 k below it, the last one for null."""
    if texts.null_count:
        found = np.full(len(texts), 2 * len(bounds) + 1, np.uint8)
        found[_numpy(texts.is_valid().cast(pa.uint8())) == 1] = _ranges_of(
            texts.drop_null(), bounds
        )
        return found
    found = np.zeros(len(texts), np.uint8)
    for bound in bounds:
        found += 2 * _numpy(pc.greater_equal(texts, bound).cast(pa.uint8()))
    found -= _numpy(pc.is_in(texts, bounds).cast(pa.uint8()))
    return found


def _sorted_pieces(pieces: list[_Piece], images: pa.LargeStringArray) -> Iterator[pa.Table]:
    """Rows of one range in order: each row is told by its text's place and its own, as one number.

    Sorting these numbers is many times faster than comparing texts, and keeps ties in order.
    """
    distinct = _encoded(_joined([piece.texts for piece in pieces]), "encode")
    in_order = pc.array_sort_indices(distinct.dictionary)
    texts = distinct.dictionary.take(in_order)
    place = np.empty(len(in_order), np.int64)
    place[_numpy(in_order)] = np.arange(len(in_order))
    place = place[_numpy(distinct.indices)] << 32
    keys, before = [], 0
    for piece in pieces:
        keys.append(place[_numpy(piece.rows.column("text")) + np.int32(before - piece.first)])
        before += len(piece.texts)
    rows = pa.concat_tables([piece.rows for piece in pieces]).combine_chunks()
    key = np.concatenate(keys)
    key |= np.arange(len(key))
    key.sort()
    for start in range(0, len(key), _OUT_ROWS):
        some = key[start : start + _OUT_ROWS]
        chosen = rows.take(_arrow(some & 0xFFFFFFFF))
        yield _plain(chosen.set_column(0, "text", _arrow(some >> 32)), texts, 0, images)


def _plain(
    rows: pa.Table, texts: pa.LargeStringArray, first: int, images: pa.LargeStringArray
) -> pa.Table:
    """Rows with their texts and image ids in full."""
    number = rows.column("text")
    if first:
        number = pc.subtract(number, _scalar(first))
    columns = {
        "text": texts.take(number).cast(pa.string()),
        "image_id": images.take(rows.column("image_id")).cast(pa.string()),
        **{name: rows.column(name) for name in _NUMBERS},
    }
    return pa.Table.from_arrays([columns[f.name] for f in WORDS_BY_TEXT], schema=WORDS_BY_TEXT)


def _encoded(strings: pa.Array | pa.ChunkedArray, null_encoding: str) -> pa.DictionaryArray:
    """Numbers of distinct strings; null is one of them (``encode``) or stays null (``mask``)."""
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    if pa.types.is_dictionary(strings.type):
        if not strings.null_count:
            return strings
        strings = strings.dictionary_decode()
    return pc.dictionary_encode(strings, null_encoding)


def _joined(arrays: list[pa.Array]) -> pa.LargeStringArray:
    # Together they may exceed the 2 GiB that plain string arrays end at.
    large = [array.cast(pa.large_string()) for array in arrays]
    return pa.concat_arrays(large) if large else pa.nulls(0, pa.large_string())


def _numpy(numbers: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Numbers without nulls. Arrow's ``to_numpy`` would import pandas: 0.3 s."""
    if isinstance(numbers, pa.ChunkedArray):
        numbers = numbers.chunk(0) if numbers.num_chunks == 1 else numbers.combine_chunks()
    return np.from_dlpack(numbers)


def _arrow(numbers: NDArray[Any]) -> pa.Array:
    """The inverse of `_numpy`, likewise without pandas and without a copy."""
    kind = pa.from_numpy_dtype(numbers.dtype)
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def _scalar(number: int) -> pa.Int32Scalar:
    return _arrow(np.array([number], np.int32))[0]
