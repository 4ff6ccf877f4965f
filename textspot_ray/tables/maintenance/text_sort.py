"""Sorting words by text in bounded memory, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textspot_ray.errors import AbortedError
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


BATCH_ROWS = 100_000  # encoded and distributed together
SAMPLE_BATCHES = 4  # seen before the bounds are chosen


@dataclass(slots=True)
class _Range:
    """Rows of a lane whose texts lie between two bounds, or are one bound."""

    pieces: list[Piece] = field(default_factory=list)
    file: Path | None = None
    writer: pa.RecordBatchFileWriter | None = None


class TextSort:
    """Takes rows of words in any order and gives them sorted by text, once.

    Args:
        memory_bytes: Roughly how much to use.
        folder: Where rows go that memory does not hold; whoever made it deletes it.
        stop: When set, the sort ends with `AbortedError`.
        lanes: How many threads may bring rows.
    """

    def __init__(
        self, memory_bytes: int, folder: str, stop: Event | None = None, lanes: int = 1
    ) -> None:
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._stop = stop or Event()
        self._bounds = _Bounds()
        self._lanes = [
            _Lane(memory_bytes // lanes, folder, self._bounds, self._stop) for _ in range(lanes)
        ]
        self._images: pa.LargeStringArray | None = None  # once there will be no more

    def add(self, rows: pa.Table, lane: int = 0) -> None:
        """Take rows with the columns of ``words_by_text``, and others or not.

        Raises:
            OSError: The scratch folder's disk is full or broken.
            AbortedError: The sort was stopped.
        """
        self._lanes[lane].add(rows)

    def close(self) -> None:
        """All rows are there; to be called before several threads take them.

        Raises:
            OSError: The scratch folder's disk is full or broken.
        """
        if self._images is not None:
            return
        for lane in self._lanes:
            lane.encode()
        for lane in self._lanes:
            lane.split()
        if any(lane.spilled for lane in self._lanes):  # what is read back needs the memory
            for lane in self._lanes:
                lane.spill()
        self._images = joined([images for lane in self._lanes for images in lane.take_images()])

    def sorted(self, part: int = 0, of: int = 1) -> Iterator[pa.Table]:
        """Rows in order, some ten thousand at a time, their texts as dictionaries.

        Args:
            part: Which part of them, from 0; each may be asked for once.
            of: How many parts there are; all rows of a part come before those of the next.

        Raises:
            OSError: The scratch folder's disk is full or broken.
            AbortedError: The sort was stopped.
        """
        self.close()
        assert self._images is not None
        ranges = range(len(self._bounds))
        for number in ranges[len(ranges) * part // of : len(ranges) * (part + 1) // of]:
            if any(lane.spilled for lane in self._lanes):
                yield from self._sorted_files(number, of)
            else:
                yield from self._sorted_range(number, self._images)

    def _sorted_range(self, number: int, images: pa.LargeStringArray) -> Iterator[pa.Table]:
        pieces, before = [], 0
        for lane in self._lanes:
            pieces += [with_images_from(piece, before) for piece in lane.take(number)]
            before += lane.n_images
        if self._bounds.one_text(number):
            for piece in pieces:
                if self._stop.is_set():
                    raise AbortedError("the sort was stopped")
                yield plain(piece.rows, piece.texts, piece.first, images)
        elif pieces:
            yield from sorted_pieces(pieces, images)

    def _sorted_files(self, number: int, readers: int) -> Iterator[pa.Table]:
        files = [file for lane in self._lanes if (file := lane.take_file(number)) is not None]
        if self._bounds.one_text(number):
            for file in files:
                yield from map(text_encoded, _batches(file))
        elif files:
            inner = TextSort(self._memory_bytes // readers, self._folder, self._stop)
            for file in files:
                for rows in _batches(file):
                    inner.add(rows)
            yield from inner.sorted()
        for file in files:
            file.unlink()


class _Bounds:
    """Texts that cut all rows into ranges; chosen once, by the lane that first has seen enough."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._texts: pa.LargeStringArray | None = None

    def __len__(self) -> int:
        """Number of ranges: below the first bound, it, between it and the second, ..., nulls."""
        return 0 if self._texts is None else 2 * len(self._texts) + 2

    @property
    def known(self) -> bool:
        return self._texts is not None

    def one_text(self, number: int) -> bool:
        return number % 2 == 1

    def texts(self, pieces: list[Piece]) -> pa.LargeStringArray:
        """The bounds; if nobody has chosen any, those of these pieces."""
        with self._lock:
            if self._texts is None:
                self._texts = choose_bounds(pieces)
            return self._texts


class _Lane:
    """The rows that one thread brings, in the ranges of their texts."""

    def __init__(self, memory_bytes: int, folder: str, bounds: _Bounds, stop: Event) -> None:
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._stop = stop
        self._bounds = bounds
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._unsplit: list[Piece] = []  # until there are bounds
        self._ranges: list[_Range] = []
        self._images: list[pa.LargeStringArray] = []
        self.n_images = 0
        self.held_bytes = 0
        self.spilled = False

    def add(self, rows: pa.Table) -> None:
        if self._stop.is_set():
            raise AbortedError("the sort was stopped")
        self._waiting.append(rows.select(WORDS_BY_TEXT.names))
        self._waiting_rows += rows.num_rows
        if self._waiting_rows >= BATCH_ROWS:
            self.encode()

    def encode(self) -> None:
        """Make a piece of the rows that wait."""
        if not self._waiting_rows:
            return
        rows = pa.concat_tables(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        text = encoded(rows.column("text"), "encode")
        image = encoded(rows.column("image_id"), "mask")
        columns = {
            "text": text.indices,
            "image_id": pc.add(image.indices, scalar(self.n_images)),
            **{name: rows.column(name) for name in NUMBERS},
        }
        self._images.append(image.dictionary)
        self.n_images += len(image.dictionary)
        piece = Piece(
            text.dictionary.cast(pa.large_string()),
            0,
            pa.Table.from_pydict(columns).combine_chunks(),
        )
        self.held_bytes += piece.rows.nbytes + piece.texts.nbytes + image.dictionary.nbytes
        self._unsplit.append(piece)
        full = self.held_bytes > self._memory_bytes // 2
        if full or self._bounds.known or len(self._unsplit) == SAMPLE_BATCHES:
            self.split()
        if full:
            self.spill()

    def split(self) -> None:
        """Send rows to the ranges of their texts."""
        bounds = self._bounds.texts(self._unsplit)
        if not self._ranges:
            self._ranges = [_Range() for _ in range(len(self._bounds))]
        for piece in self._unsplit:
            of_text = ranges_of(piece.texts, bounds)
            order = np.argsort(of_text, kind="stable")
            moved = np.empty(len(order), np.int32)
            moved[order] = np.arange(len(order), dtype=np.int32)
            codes = numpy(piece.rows.column("text"))
            of_row = of_text[codes]
            texts = piece.texts.take(arrow(order))
            rows = piece.rows.set_column(0, "text", arrow(moved[codes]))
            rows = rows.take(arrow(np.argsort(of_row, kind="stable")))
            n_texts = np.bincount(of_text, minlength=len(self._ranges)).tolist()
            n_rows = np.bincount(of_row, minlength=len(self._ranges)).tolist()
            text_at = row_at = 0
            for part, n_text, n_row in zip(self._ranges, n_texts, n_rows, strict=True):
                if n_row:
                    chosen = rows.slice(row_at, n_row)
                    part.pieces.append(Piece(texts.slice(text_at, n_text), text_at, chosen))
                text_at += n_text
                row_at += n_row
        self._unsplit = []

    def spill(self) -> None:
        """Move all rows to files."""
        images = joined(self._images)
        for part in self._ranges:
            for piece in part.pieces:
                if part.writer is None:
                    part.file = Path(self._folder) / f"{uuid4().hex}.arrow"
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    part.writer = pa.ipc.new_file(str(part.file), WORDS_BY_TEXT, options=options)
                rows = plain(piece.rows, piece.texts, piece.first, images).cast(WORDS_BY_TEXT)
                part.writer.write_table(rows, max_chunksize=OUT_ROWS)
            part.pieces = []
        self._images, self.n_images, self.held_bytes = [], 0, 0
        self.spilled = True

    def take_images(self) -> list[pa.LargeStringArray]:
        images, self._images = self._images, []
        return images

    def take(self, number: int) -> list[Piece]:
        pieces, self._ranges[number].pieces = self._ranges[number].pieces, []
        return pieces

    def take_file(self, number: int) -> Path | None:
        """The file of a range, complete; None if no row went there."""
        part = self._ranges[number]
        if part.writer is not None:
            part.writer.close()
        return part.file


def _batches(file: Path) -> Iterator[pa.Table]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_file(source) as batches:
        for k in range(batches.num_record_batches):
            yield pa.Table.from_batches([batches.get_batch(k)])
