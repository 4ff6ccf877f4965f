"""Where the messages of an Arrow IPC file or stream are, and how large, before they are read.

pyarrow reads a message whole, whatever its size. Its metadata says how long its body is, how many
rows it has and where each buffer lies: FlatBuffers, of which the few fields that are needed are
read here. Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-message-format, with
``Message.fbs`` and ``File.fbs`` of Arrow's repository.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from textspot_ray.sources.kinds.base import ContainerError

MAGIC: Final = b"ARROW1"
CONTINUES: Final = b"\xff\xff\xff\xff"  # before each message, since Arrow 0.15
CODECS: Final = ("lz4", "zstd")  # BodyCompression's, by number
DICTIONARY, BATCH = 2, 3  # of MessageHeader
_SCHEMA: Final = 1
_END: Final = 16  # bytes between the last batch and the footer: an end mark, and padding
_MAX_METADATA: Final = 64 << 20  # bytes; of each buffer it has 16
_BLOCK: Final = struct.Struct("<qi4xq")  # File.fbs: offset, length of metadata, of the body
_PAIR: Final = struct.Struct("<qq")  # Message.fbs: of Buffer and of FieldNode


@dataclass(frozen=True, slots=True)
class Message:
    """A record batch or dictionary that has not been read.

    Attributes:
        kind: ``BATCH``, ``DICTIONARY`` or another of MessageHeader's numbers.
        start: First byte in the file, of the message's frame.
        body: First byte of its body.
        stop: The byte behind its body.
        rows: Of a batch.
        nodes: Rows of each node, fields and their children depth first.
        buffers: First byte within the body, and length, of each buffer.
        codec: Name of what each buffer is compressed with, else None.
    """

    kind: int
    start: int
    body: int
    stop: int
    rows: int = 0
    nodes: tuple[int, ...] = ()
    buffers: tuple[tuple[int, int], ...] = ()
    codec: str | None = None


def messages(file: IO[bytes], is_random: bool) -> Iterator[Message]:
    """The record batches and dictionaries of a file, in order, without their bodies.

    Args:
        file: It.
        is_random: Whether it is a file with a footer, else a stream.

    Raises:
        ContainerError: It is damaged; what came before is good.
    """
    if is_random:
        yield from _of_footer(file)
        return
    at = 0
    while True:
        start = at
        prefix = _read(file, at, 8)
        if not prefix:
            if at and _has_marks(file):
                raise ContainerError(f"the stream ends without an end mark at byte {at}")
            return
        skipped = 4 if prefix[:4] == CONTINUES else 0
        if len(prefix) < skipped + 4:
            raise ContainerError(f"the stream ends inside a message at byte {at}")
        (size,) = struct.unpack_from("<i", prefix, skipped)
        at += skipped + 4
        if size == 0:
            _check_end(file, at, has_mark=bool(skipped))
            return
        found = _message(file, start, skipped + 4 + size)
        at = found.stop
        if found.kind not in ((DICTIONARY, BATCH) if start else (_SCHEMA,)):
            raise ContainerError(f"no batch starts at byte {start}")
        if start:
            yield found


def _message(file: IO[bytes], start: int, length: int) -> Message:
    """A message, from the ``length`` bytes of its frame and metadata."""
    if not 8 <= length <= _MAX_METADATA:
        raise ContainerError(f"no message starts at byte {start}")
    data = _read(file, start, length)
    if len(data) < length:
        raise ContainerError(f"the file ends inside a message at byte {start}")
    try:
        message = _Table.root(data, 8 if data[:4] == CONTINUES else 4)
        kind, size = message.number(1, "<B"), message.number(3, "<q")
        body = start + length
        if size < 0:
            raise ValueError
        if kind not in (BATCH, DICTIONARY):
            return Message(kind, start, body, body + size)
        batch = message.table(2)
        if batch is not None and kind == DICTIONARY:
            batch = batch.table(1)
        if batch is None:
            raise ValueError
        pairs, nodes = batch.structs(2, _PAIR), batch.structs(1, _PAIR)
        compression = batch.table(3)
        codec = None if compression is None else CODECS[compression.number(0, "<b")]
        if nodes and nodes[0][0] != batch.number(0, "<q") and kind == BATCH:
            raise ValueError
        if any(at < 0 or n < 0 or at + n > size for at, n in pairs):
            raise ValueError
        return Message(
            kind, start, body, body + size, batch.number(0, "<q"),
            tuple(rows for rows, _ in nodes), tuple(pairs), codec,
        )  # fmt: skip
    except (struct.error, IndexError, ValueError) as exc:
        raise ContainerError(f"damaged metadata of the message at byte {start}") from exc


def _of_footer(file: IO[bytes]) -> Iterator[Message]:
    """The dictionaries and batches that a footer names."""
    tail = len(MAGIC) + 4
    end = file.seek(0, 2) - tail
    last = _read(file, max(0, end), tail)
    if end <= 0 or not last.endswith(MAGIC):
        raise ContainerError("not a whole Arrow file: it does not end as one")
    (size,) = struct.unpack_from("<i", last)
    if not 0 < size <= min(end, _MAX_METADATA):
        raise ContainerError("not a whole Arrow file: damaged footer")
    data = _read(file, end - size, size)
    try:
        footer = _Table.root(data, 0)
        blocks = [*footer.structs(2, _BLOCK), *footer.structs(3, _BLOCK)]
    except (struct.error, IndexError, ValueError) as exc:
        raise ContainerError("not a whole Arrow file: damaged footer") from exc
    covered = 0
    for start, length, _ in blocks:
        found = _message(file, start, length)
        if found.kind not in (DICTIONARY, BATCH):
            raise ContainerError(f"no batch starts at byte {start}")
        covered = max(covered, found.stop)
        yield found
    if not blocks:
        prefix = _read(file, 8, 8)
        skipped = 4 if prefix[:4] == CONTINUES else 0
        covered = 8 + skipped + 4 + struct.unpack_from("<i", prefix, skipped)[0]
    if end - size - covered > _END:
        raise ContainerError(f"the bytes from {covered} to {end - size} are in no batch")


def _check_end(file: IO[bytes], at: int, has_mark: bool) -> None:
    """See to it that a stream that says it ends at a byte does so.

    Arrow takes a zeroed message for the end.

    Raises:
        ContainerError: It does not.
    """
    if _read(file, at, 1 << 16).lstrip(b"\0"):
        raise ContainerError(f"the stream ends at byte {at}, but bytes follow")
    if not has_mark and _has_marks(file):
        raise ContainerError(f"the stream ends without an end mark at byte {at}")


def _has_marks(file: IO[bytes]) -> bool:
    return _read(file, 0, 4) == CONTINUES


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


class _Table:
    """A FlatBuffers table: fields by their number in the schema, absent ones 0 or None."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._get("<i", at)
        self._n_bytes = self._get("<H", self._fields)

    @classmethod
    def root(cls, data: bytes, at: int) -> _Table:
        return cls(data, at + struct.unpack_from("<I", data, at)[0])

    def number(self, field: int, code: str) -> int:
        at = self._place(field)
        return 0 if at is None else self._get(code, at)

    def table(self, field: int) -> _Table | None:
        at = self._place(field)
        return None if at is None else _Table(self._data, at + self._get("<I", at))

    def structs(self, field: int, kind: struct.Struct) -> list[Any]:
        """A vector of structs; the data bound how many there are."""
        at = self._place(field)
        if at is None:
            return []
        at += self._get("<I", at)
        stop = at + 4 + self._get("<I", at) * kind.size
        if stop > len(self._data):
            raise ValueError("a vector beyond its data")
        return list(kind.iter_unpack(self._data[at + 4 : stop]))

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot + 2 > self._n_bytes:
            return None
        offset = self._get("<H", self._fields + slot)
        return self._at + offset if offset else None

    def _get(self, code: str, at: int) -> int:
        if at < 0:
            raise ValueError("before its data")
        return int(struct.unpack_from(code, self._data, at)[0])
