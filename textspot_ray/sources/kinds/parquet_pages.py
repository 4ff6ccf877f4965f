"""Pages of a Parquet column chunk: how large they are, and values of large ones by way of disk.

Arrow and every other reader decompress a page whole. Writers look at a page's size only after every
1,024 rows, so that one page may be a thousand images (`findings/parquet-page-size.sh`). Here a page
of byte arrays is unpacked to disk piece by piece, and its values are read from there one by one.
Formats: https://parquet.apache.org/docs/file-format/data-pages/ with ``parquet.thrift``, Thrift's
compact protocol, and https://github.com/google/snappy/blob/main/format_description.txt.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import numpy as np
import pyarrow as pa

from textspot_ray.sources.kinds.base import ContainerError
from textspot_ray.sources.kinds.file_part import FilePart, read_through

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # parquet.thrift's PageType
_PLAIN, _DICTIONARIES = 0, (2, 8)  # its Encoding: PLAIN_DICTIONARY, RLE_DICTIONARY
_ENCODINGS: Final = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_CODECS: Final = {"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI"}
_MAX_VALUES: Final = 1 << 20  # of a page that is unpacked to disk: where they are is kept
_MAX_PAGE_HEADER: Final = 64 << 10  # bytes; statistics in it hold values
_PIECE: Final = 1 << 20
_WINDOW: Final = 64 << 10  # how far back Snappy's compressors look: they work by such blocks


@dataclass(frozen=True, slots=True)
class PageHeader:
    """A page's header.

    Attributes:
        kind: ``DATA``, ``DICTIONARY`` or ``DATA_V2``.
        at: Where its data begin.
        stored: Bytes of them in the file.
        size: Bytes unpacked.
        values: How many, nulls included.
        encoding: Of them.
        levels: Of version 2: bytes before the values that say which are null, never compressed.
        is_compressed: Of version 2: whether the values are.
    """

    kind: int
    at: int
    stored: int
    size: int
    values: int
    encoding: int
    levels: int = 0
    is_compressed: bool = True

    @property
    def in_memory(self) -> int:
        """Bytes that Arrow takes for it: as stored, unpacked, and a dictionary copied."""
        return self.stored + self.size * (2 if self.kind == DICTIONARY else 1)


def pages(file: IO[bytes], chunk: Any) -> Iterator[PageHeader]:
    """The pages of a column chunk (of pyarrow's metadata); ends at a damaged header."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    stop = at + chunk.total_compressed_size
    while at < stop:
        file.seek(at)
        header = _Header(file.read(_MAX_PAGE_HEADER))
        if header.length <= 0 or header.of(3) < 0 or header.of(2) < 0:
            return  # damaged: reported when the data are read
        kind, at = header.of(1), at + header.length
        place = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0)
        is_v2 = kind == DATA_V2
        yield PageHeader(
            kind, at, header.of(3), header.of(2), header.of(place, 1),
            header.of(place, 4 if is_v2 else 2),
            max(0, header.of(8, 5)) + max(0, header.of(8, 6)) if is_v2 else 0,
            header.of(8, 7) != 0,
        )  # fmt: skip
        at += header.of(3)


@dataclass(frozen=True, slots=True)
class Oversized:
    """Stands for a value that is too large to be read."""

    size: int


Value = bytes | Oversized


class LargeColumn:
    """Byte arrays of a column chunk, whose pages are unpacked to disk.

    Args:
        file: The Parquet file.
        chunk: Metadata of the chunk.
        column: Its column in the file's schema.
        max_bytes: Of one value.
    """

    def __init__(self, file: IO[bytes], chunk: Any, column: Any, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._file = file
        self._chunk = chunk
        self._max_level = column.max_definition_level
        self._is_flat = column.max_repetition_level == 0

    def can_read(self) -> bool:
        """Whether it is of a kind that is known here."""
        return (
            self._is_flat
            and self._chunk.physical_type == "BYTE_ARRAY"
            and self._chunk.compression in _CODECS
            and _ENCODINGS.issuperset(self._chunk.encodings)
            and all(0 <= page.values <= _MAX_VALUES for page in pages(self._file, self._chunk))
        )

    def values(self, start: int) -> Iterator[Value | None]:
        """The values from a row on, None for a null.

        Raises:
            ContainerError: The data are damaged.
        """
        row = 0
        with ExitStack() as stack:
            dictionary: _Values | None = None
            for page in pages(self._file, self._chunk):
                if page.kind == DICTIONARY:
                    unpacked = self._unpacked(page, stack)
                    dictionary = _Values(unpacked, 0, page.size, page.values, self._max_bytes)
                elif page.kind in (DATA, DATA_V2):
                    if row + page.values > start:
                        yield from self._page(page, dictionary, max(0, start - row))
                    row += page.values
            if row != self._chunk.num_values:
                raise ContainerError("Parquet data cannot be read: a page is damaged or missing")

    def _page(
        self, page: PageHeader, dictionary: _Values | None, start: int
    ) -> Iterator[Value | None]:
        with ExitStack() as stack:
            data = self._unpacked(page, stack)
            at, size = page.levels, page.levels
            if page.kind == DATA and self._max_level:
                size = int.from_bytes(_at(data, 0, 4), "little")
                at = 4 + size
            if max(page.levels, size) > _max_number_bytes(page):
                raise ContainerError("Parquet data cannot be read: a damaged page")
            valid = np.ones(page.values, bool)
            if self._max_level:
                levels = _at(data, at - size, size)
                width = self._max_level.bit_length()
                valid = _numbers(levels, width, page.values) == self._max_level
            n_valid = int(valid.sum())
            if page.encoding == _PLAIN:
                found = _Values(data, at, page.size, n_valid, self._max_bytes)
                order = np.arange(n_valid)
            elif page.encoding in _DICTIONARIES and dictionary is not None:
                packed = _at(data, at, min(page.size - at, _max_number_bytes(page)))
                if not packed and n_valid:
                    raise ContainerError("Parquet data cannot be read: a page ends too soon")
                width = packed[0] if packed else 0
                found, order = dictionary, _numbers(packed[1:], width, n_valid)
            else:
                raise ContainerError("Parquet data cannot be read: a page has no dictionary")
            place = int(valid[:start].sum())
            for is_valid in valid[start:]:
                yield found[int(order[place])] if is_valid else None
                place += bool(is_valid)

    def _unpacked(self, page: PageHeader, stack: ExitStack) -> IO[bytes]:
        """The data of a page as a file, levels of version 2 before the values."""
        codec = self._chunk.compression if page.is_compressed else "UNCOMPRESSED"
        part = FilePart(self._file, page.at, page.stored)
        if codec == "UNCOMPRESSED":
            return cast("IO[bytes]", part)
        if page.levels > _max_number_bytes(page):
            raise ContainerError("Parquet data cannot be read: a damaged page")
        unpacked = stack.enter_context(tempfile.TemporaryFile(prefix="textspot-"))  # noqa: SIM115
        unpacked.write(part.read(page.levels))
        packed = cast(
            "IO[bytes]",
            FilePart(self._file, page.at + page.levels, page.stored - page.levels),
        )
        left = page.size - page.levels
        try:
            for piece in _unsnapped(packed) if codec == "SNAPPY" else _inflated(packed, codec):
                left -= len(piece)
                if left < 0:
                    break
                unpacked.write(piece)
        except pa.ArrowException as exc:
            raise ContainerError(f"Parquet data cannot be read: {exc}") from exc
        if left:
            raise ContainerError("Parquet data cannot be read: a page has not the size it says")
        return unpacked


class _Values:
    """Byte arrays one behind the other, each with its length before it."""

    def __init__(self, file: IO[bytes], at: int, stop: int, count: int, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._places = np.empty((count, 2), np.int64)
        for n in range(count):
            size = int.from_bytes(_at(file, at, 4), "little")
            self._places[n] = at + 4, size
            at += 4 + size
            if at > stop:
                raise ContainerError("Parquet data cannot be read: a value leads out of its page")

    def __getitem__(self, number: int) -> Value:
        if not 0 <= number < len(self._places):
            raise ContainerError("Parquet data cannot be read: a value that no dictionary has")
        at, size = map(int, self._places[number])
        return _at(self._file, at, size) if size <= self._max_bytes else Oversized(size)


def _max_number_bytes(page: PageHeader) -> int:
    """Most bytes that levels, or numbers in a dictionary, take: four each, and run lengths."""
    return 8 * page.values + 64


def _at(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise ContainerError("Parquet data cannot be read: a page ends too soon")
    return data


def _numbers(data: bytes, width: int, count: int) -> Any:
    """Numbers of ``width`` bits in Parquet's mix of runs and bit-packed groups of eight."""
    found = np.zeros(count, np.int64)
    if width == 0:
        return found
    n = at = 0
    try:
        while n < count:
            head, at = _varint(data, at)
            if head & 1:
                size = (head >> 1) * width
                bits = np.unpackbits(
                    np.frombuffer(data[at : at + size], np.uint8), bitorder="little"
                )
                bits = bits[: len(bits) // width * width].reshape(-1, width)[: count - n]
                if not len(bits):
                    break
                found[n : n + len(bits)] = bits @ (1 << np.arange(width))
                n, at = n + len(bits), at + size
            else:
                size = -(-width // 8)
                found[n : n + (head >> 1)] = int.from_bytes(data[at : at + size], "little")
                n, at = n + (head >> 1), at + size
    except IndexError:
        n = -1
    if n < count:
        raise ContainerError("Parquet data cannot be read: a page ends too soon")
    return found


def _inflated(packed: IO[bytes], codec: str) -> Iterator[bytes]:
    with pa.CompressedInputStream(read_through(packed), codec.lower()) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _unsnapped(packed: IO[bytes]) -> Iterator[bytes]:
    """Unpack one Snappy block in pieces.

    Elements that make a piece are looked for; Snappy itself unpacks them, as a block that begins
    with the end of the piece before, for that is what they refer to.
    """
    codec, window = pa.Codec("snappy"), b""
    source = _Pieces(packed)
    source.skip_varint()
    while source.more():
        elements, size = bytearray(), 0
        while size < _PIECE and source.more():
            size += source.element(elements)
        before = _literal(window)
        whole = len(window) + size
        piece = codec.decompress(_as_varint(whole) + before + elements, whole, asbytes=True)[
            len(window) :
        ]
        window = (window + piece)[-_WINDOW:]
        yield piece


class _Pieces:
    """Elements of a Snappy block, read from a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._data = b""
        self._at = 0

    def more(self) -> bool:
        """Whether there is another."""
        return self._at < len(self._data) or self._fill(1)

    def skip_varint(self) -> None:
        while self.more():
            self._at += 1
            if self._data[self._at - 1] < 128:
                return

    def element(self, into: bytearray) -> int:
        """Move an element; how many bytes it unpacks to."""
        self._fill(5)
        at = self._at
        tag = self._data[at]
        kind, number = tag & 3, tag >> 2
        if kind:
            length = 1 + (1, 2, 4)[kind - 1]
            size = (number & 7) + 4 if kind == 1 else number + 1
        else:
            extra = max(0, number - 59)
            if extra:
                number = int.from_bytes(self._data[at + 1 : at + 1 + extra], "little")
            size = number + 1
            length = 1 + extra + size
        if size > 16 * _PIECE:
            raise ContainerError("Parquet data cannot be read: no Snappy block")
        if length > len(self._data) - at:
            self._fill(length)
            at = self._at
        into += self._data[at : at + length]
        self._at += length
        return size

    def _fill(self, size: int) -> bool:
        """Buffer ``size`` bytes, or what the file has; False if there are none."""
        if len(self._data) - self._at < size:
            more = self._file.read(max(size, _PIECE))
            self._data, self._at = self._data[self._at :] + more, 0
        return self._at < len(self._data)


def _literal(data: bytes) -> bytes:
    """Up to 65,536 bytes as a Snappy literal, whose tag has two bytes of length less one."""
    return struct.pack("<BH", 61 << 2, len(data) - 1) + data if data else b""


def _as_varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


class _Header:
    """A PageHeader, in Thrift's compact protocol: its whole numbers, and those of structs in it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._numbers: dict[tuple[int, ...], int] = {}
        try:
            self._struct(())
        except (IndexError, RecursionError):
            self._at = -1
        self.length = self._at

    def of(self, *path: int) -> int:
        """The number at a path of field ids, -1 where there is none."""
        return self._numbers.get(path, -1)

    def _struct(self, path: tuple[int, ...]) -> None:
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            self._value(head & 15, (*path, field))

    def _value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind in (1, 2):  # true and false have no value
            self._numbers[path] = 2 - kind
        elif kind == 3:
            self._at += 1
        elif kind in (4, 5, 6):
            self._numbers[path] = self._zigzag()
        elif kind == 7:
            self._at += 8
        elif kind == 8:
            size, self._at = _varint(self._data, self._at)
            self._at += size
        elif kind == 12:
            self._struct(path)
        else:  # lists, sets and maps: a page's header has none
            raise IndexError

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _zigzag(self) -> int:
        value, self._at = _varint(self._data, self._at)
        return (value >> 1) ^ -(value & 1)
