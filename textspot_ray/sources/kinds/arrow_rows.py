"""Some rows of a record batch, read without the rest of it.

A batch's buffers lie one behind the other, uncompressed or each compressed by itself. Of the first
only the bytes of the rows wanted are read; the others are unpacked to disk, then treated alike.
Layout: https://arrow.apache.org/docs/format/Columnar.html#physical-memory-layout.
"""

from __future__ import annotations

import tempfile
from typing import IO, Any, Final, cast

import numpy as np
import pyarrow as pa

from textspot_ray.records import ErrorKind
from textspot_ray.sources.kinds.arrow_messages import Message
from textspot_ray.sources.kinds.base import ContainerError
from textspot_ray.sources.kinds.file_part import FilePart, read_through

_PREFIX: Final = 8  # bytes before a compressed buffer: its length unpacked; -1: it is not packed
_MAX_UNPACKED: Final = 8 << 30  # bytes on disk; more is no batch that anyone wrote
_PIECE: Final = 4 << 20


class OversizedRows(Exception):
    """The rows take more bytes than was allowed."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Layout:
    """Where the columns of a schema are among a batch's nodes and buffers."""

    def __init__(self, schema: Any) -> None:
        self._places: dict[str, tuple[Any, int, int]] = {}  # field, its first node and buffer
        nodes = buffers = 0
        known = True
        for field in schema:
            count = _count(field.type)
            if count is None:
                known = False  # nor can be said where those behind it lie
            elif known:
                if _can_take(field.type) and schema.names.count(field.name) == 1:
                    self._places[field.name] = (field, nodes, buffers)
                nodes, buffers = nodes + count[0], buffers + count[1]
        self.has_dictionaries = any(_has_dictionary(field.type) for field in schema)

    def can_take(self, columns: list[str]) -> bool:
        """Whether rows of all these columns can be taken."""
        return all(column in self._places for column in columns)

    def place(self, column: str) -> tuple[Any, int, int] | None:
        """A column's field, first node and first buffer; None if rows of it cannot be taken."""
        return self._places.get(column)


class BatchRows:
    """A batch whose rows are taken a few at a time.

    Args:
        file: Where the message is.
        message: A record batch, or a dictionary.
        layout: Of its schema.
    """

    def __init__(self, file: IO[bytes], message: Message, layout: Layout) -> None:
        self._file = file
        self._message = message
        self._layout = layout
        self._unpacked: dict[int, IO[bytes]] = {}
        self._lengths = [self._length(i) for i in range(len(message.buffers))]

    @property
    def n_bytes(self) -> int:
        """Bytes that the whole batch takes in memory: those unpacked, and as they are stored."""
        stored = self._message.stop - self._message.body
        return stored if self._message.codec is None else stored + sum(self._lengths)

    def take(self, columns: list[str], start: int, stop: int, limit: int, bare: bool) -> Any:
        """Rows ``start`` to ``stop`` as a batch of these columns.

        Args:
            columns: Which; the layout knows all of them.
            start: First row.
            stop: The one behind the last.
            limit: Bytes that may be read for it.
            bare: Lists keep their lengths only; what is in them is null.

        Raises:
            OversizedRows: They take more.
            ContainerError: The batch is damaged.
        """
        walk = _Walk(self, limit, bare)
        arrays, fields = [], []
        for column in columns:
            place = self._layout.place(column)
            assert place is not None
            field, walk.node, walk.buffer = place
            if self._message.nodes[walk.node : walk.node + 1] != (self._message.rows,):
                raise self._damaged()
            arrays.append(walk.array(field.type, start, stop))
            fields.append(field)
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * (stop - start), pa.struct([])))
        return pa.record_batch(arrays, schema=pa.schema(fields))

    def rows_of(self, node: int) -> int:
        """Rows of a node, as the metadata say."""
        if node >= len(self._message.nodes):
            raise self._damaged()
        return self._message.nodes[node]

    def length(self, buffer: int) -> int:
        """Bytes of a buffer, unpacked."""
        if buffer >= len(self._lengths):
            raise self._damaged()
        return self._lengths[buffer]

    def read(self, buffer: int, start: int, stop: int) -> bytes:
        """Bytes of a buffer.

        Args:
            buffer: Its number among the message's buffers.
            start: First byte, unpacked.
            stop: The byte behind the last.

        Raises:
            ContainerError: It is shorter than that, or damaged.
        """
        if not 0 <= start <= stop <= self.length(buffer):
            raise ContainerError(
                f"the batch at byte {self._message.start}: offsets lead out of its data"
            )
        if start == stop:
            return b""
        offset, stored = self._message.buffers[buffer]
        file, at = self._file, self._message.body + offset
        if self._message.codec is not None:
            at += _PREFIX
            if self._lengths[buffer] != stored - _PREFIX or self._declared(buffer) != -1:
                file, at = self._unpack(buffer), 0
        file.seek(at + start)
        data = file.read(stop - start)
        if len(data) < stop - start:
            raise ContainerError(f"the file ends inside the batch at byte {self._message.start}")
        return data

    def __enter__(self) -> BatchRows:
        return self

    def __exit__(self, *_: object) -> None:
        while self._unpacked:
            self._unpacked.popitem()[1].close()

    def _damaged(self) -> ContainerError:
        return ContainerError(f"the batch at byte {self._message.start} is damaged")

    def _length(self, buffer: int) -> int:
        _, stored = self._message.buffers[buffer]
        if self._message.codec is None or stored == 0:
            return stored
        size = self._declared(buffer)
        return stored - _PREFIX if size == -1 else size

    def _declared(self, buffer: int) -> int:
        offset, stored = self._message.buffers[buffer]
        self._file.seek(self._message.body + offset)
        prefix = self._file.read(_PREFIX)
        size = int.from_bytes(prefix, "little", signed=True)
        if stored < _PREFIX or len(prefix) < _PREFIX or size < -1:
            raise self._damaged()
        return size

    def _unpack(self, buffer: int) -> IO[bytes]:
        if buffer in self._unpacked:
            return self._unpacked[buffer]
        size = self._lengths[buffer]
        if size > _MAX_UNPACKED:
            raise ContainerError(
                f"a column of the batch at byte {self._message.start} takes {size} bytes: write "
                "smaller record batches",
                ErrorKind.TOO_LARGE,
            )
        offset, stored = self._message.buffers[buffer]
        at = self._message.body + offset + _PREFIX
        packed = FilePart(self._file, at, stored - _PREFIX)
        unpacked = cast("IO[bytes]", tempfile.TemporaryFile(prefix="textspot-"))  # noqa: SIM115
        left = size
        with pa.CompressedInputStream(read_through(packed), self._message.codec) as stream:
            while left and (piece := stream.read(min(left, _PIECE))):
                unpacked.write(piece)
                left -= len(piece)
        if left:
            unpacked.close()
            raise self._damaged()
        self._unpacked[buffer] = unpacked
        return unpacked


class _Walk:
    """Goes through nodes and buffers as the format lays them out: a field, then its children."""

    def __init__(self, batch: BatchRows, limit: int, bare: bool) -> None:
        self._batch = batch
        self._limit = limit
        self._bare = bare
        self._taken = 0
        self.node = 0
        self.buffer = 0

    def array(self, kind: Any, start: int, stop: int) -> Any:
        """Rows of the field that comes next."""
        if stop > self._batch.rows_of(self.node):
            raise ContainerError("a list leads out of its values")
        self.node += 1
        n_rows = stop - start
        if isinstance(kind, pa.BaseExtensionType):
            self.node -= 1
            return pa.ExtensionArray.from_storage(kind, self.array(kind.storage_type, start, stop))
        if pa.types.is_null(kind):
            return pa.nulls(n_rows)
        valid = self._bits(start, stop, may_lack=True)
        if pa.types.is_struct(kind):
            children = [self.array(field.type, start, stop) for field in kind]
            return pa.Array.from_buffers(kind, n_rows, [valid], children=children)
        if pa.types.is_fixed_size_list(kind):
            size = kind.list_size
            child = self._child(kind.value_type, size * start, size * stop)
            return pa.Array.from_buffers(kind, n_rows, [valid], children=[child])
        if pa.types.is_boolean(kind):
            return pa.Array.from_buffers(kind, n_rows, [valid, self._bits(start, stop)])
        if not _is_of_offsets(kind):
            width = kind.bit_width // 8
            data = self._bytes(width * start, width * stop)
            return pa.Array.from_buffers(kind, n_rows, [valid, data])
        first, last, offsets = self._offsets(kind, start, stop)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            child = self._child(kind.value_type, first, last)
            return pa.Array.from_buffers(kind, n_rows, [valid, offsets], children=[child])
        data = self._bytes(first, last)
        return pa.Array.from_buffers(kind, n_rows, [valid, offsets, data])

    def _child(self, kind: Any, start: int, stop: int) -> Any:
        if not self._bare:
            return self.array(kind, start, stop)
        nodes, buffers = _count(kind) or (0, 0)
        self.node, self.buffer = self.node + nodes, self.buffer + buffers
        self._take(16 * (stop - start))
        return pa.nulls(stop - start, kind)

    def _offsets(self, kind: Any, start: int, stop: int) -> tuple[int, int, Any]:
        """First and last offset of the rows, and all of them, counted from the first."""
        is_large = kind in (pa.large_binary(), pa.large_string()) or pa.types.is_large_list(kind)
        width = 8 if is_large else 4
        if not self._batch.length(self.buffer):  # as writers may leave it where there are no rows
            data = bytes(width * (stop - start + 1))
            self.buffer += 1
        else:
            data = self._bytes(width * start, width * (stop + 1)).to_pybytes()
        offsets = np.frombuffer(data, np.int64 if is_large else np.int32)
        first, last = int(offsets[0]), int(offsets[-1])
        if not 0 <= first <= last:
            raise ContainerError("offsets that do not rise")
        return first, last, pa.py_buffer(offsets - offsets[0])

    def _bits(self, start: int, stop: int, may_lack: bool = False) -> Any:
        if may_lack and not self._batch.length(self.buffer):
            self.buffer += 1
            return None
        shift = start % 8
        data = self._bytes(start // 8, -(-stop // 8))
        if not shift:
            return data
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return pa.py_buffer(np.packbits(bits[shift : shift + stop - start], bitorder="little"))

    def _bytes(self, start: int, stop: int) -> Any:
        """Bytes of the buffer that comes next."""
        self._take(stop - start)
        data = self._batch.read(self.buffer, start, stop)
        self.buffer += 1
        return pa.py_buffer(data)

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._limit:
            raise OversizedRows(self._taken)


def _children(kind: Any) -> list[Any] | None:
    """Types of a type's children; None for one whose layout is not known here."""
    if pa.types.is_struct(kind):
        return [field.type for field in kind]
    if pa.types.is_map(kind):
        return [pa.struct([kind.key_field, kind.item_field])]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [kind.value_type]
    return [] if kind.num_fields == 0 else None


def _count(kind: Any) -> tuple[int, int] | None:
    """Nodes and buffers of a type; None if that depends on the data or is not known."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count(kind.storage_type)
    if pa.types.is_null(kind):
        return 1, 0
    if pa.types.is_dictionary(kind):
        return 1, 2  # its values are in a message of their own
    children = _children(kind)
    if children is None or _is_view(kind):
        return None
    own = 1 if pa.types.is_struct(kind) or pa.types.is_fixed_size_list(kind) else 2
    nodes, buffers = 1, own + (_is_of_bytes(kind))
    for child in children:
        count = _count(child)
        if count is None:
            return None
        nodes, buffers = nodes + count[0], buffers + count[1]
    return nodes, buffers


def _can_take(kind: Any) -> bool:
    """Whether `_Walk` can make arrays of a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _can_take(kind.storage_type)
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return True
    children = _children(kind)
    if children is None or pa.types.is_map(kind) or pa.types.is_dictionary(kind):
        return False
    if children or pa.types.is_struct(kind):
        return all(map(_can_take, children))
    return _is_of_bytes(kind) or _has_width(kind)


def _has_dictionary(kind: Any) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    return pa.types.is_dictionary(kind) or any(map(_has_dictionary, _children(kind) or ()))


def _has_width(kind: Any) -> bool:
    try:
        return bool(kind.bit_width % 8 == 0)
    except ValueError:
        return False


def _is_of_bytes(kind: Any) -> bool:
    return kind in (pa.binary(), pa.large_binary(), pa.string(), pa.large_string())


def _is_of_offsets(kind: Any) -> bool:
    return _is_of_bytes(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_view(kind: Any) -> bool:
    name = str(kind)
    return name in ("binary_view", "string_view") or "list_view" in name[:15]
