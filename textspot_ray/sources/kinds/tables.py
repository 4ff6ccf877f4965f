"""Tables whose rows hold encoded images: which column, which rows, and their bytes.

What Parquet and Arrow files share. A column holds images as binary (plain, large, view, of fixed
size or dictionary-encoded), as Hugging Face's struct of ``bytes`` and ``path``, as a list of
either, or as base64 text; it may lie inside structs. Which of several is found by looking at the
first values, as names lie.
"""

from __future__ import annotations

import base64
import binascii
import io
import posixpath
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, cast

import pyarrow as pa

from textspot_ray.errors import SourceError, one_line
from textspot_ray.images.formats import is_image_head
from textspot_ray.records import ErrorKind, ImageError, Item, Skipped, Stage
from textspot_ray.sources.identity import id_problem
from textspot_ray.sources.kinds.base import (
    Archive,
    ArchiveKind,
    Beat,
    ContainerError,
    ItemStream,
    MemberError,
    SourceFile,
    Streamed,
    changed,
    too_large,
)
from textspot_ray.sources.kinds.lists import extra_json, table_rows
from textspot_ray.sources.uris import file_name
from textspot_ray.storage.faults import Fault, SourceChangedError, fault_of, reason_of

_IMAGE_NAMES: Final = (
    "image", "images", "image_bytes", "bytes", "img", "jpg", "jpeg", "png", "webp", "content",
)  # fmt: skip
_SAMPLED_ROWS = 16
_SAMPLED_VALUES = 2
_BASE64_HEAD = 2048  # characters
_SPILLED_BYTES = 16 << 20
_PIECE = 3 << 20
NO_IMAGES: Final = "without image bytes"


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column with encoded images.

    Attributes:
        path: Field names from the top of the table; list levels have none.
        form: ``bytes``, ``struct`` (with a field ``bytes``) or ``base64``.
        is_list: Whether each row holds several.
        has_path: Whether the struct also has a text ``path``.
    """

    path: tuple[str, ...]
    form: str
    is_list: bool = False
    has_path: bool = False

    @property
    def name(self) -> str:
        """As a user writes it."""
        return ".".join(self.path)


class ImageTable(ABC):
    """An open table."""

    schema: Any  # pyarrow.Schema

    @abstractmethod
    def records(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Rows as dicts, streamed.

        Raises:
            ContainerError: The data cannot be read, or not further.
        """

    @abstractmethod
    def scalars(self, column: ImageColumn, start: int = 0, bare: bool = False) -> Generator[Any]:
        """Values of the column's topmost field from a row on, each held alone if possible.

        Args:
            column: Which.
            start: First row.
            bare: Without the bytes, where the format can leave them out and lists keep their
                lengths.

        Raises:
            ContainerError: The data cannot be read, or not further.
        """

    def is_all_null(self, column: ImageColumn) -> bool:
        """Whether statistics say that no row of the column has bytes."""
        return False

    def is_near(self, row: int) -> bool:
        """Whether little has to be read again to begin at a row."""
        return False

    def close(self) -> None:  # noqa: B027 (nothing to do for most)
        """Let go of what is held besides the file."""


class AmbiguousColumnError(ContainerError):
    """Several columns could be meant, or the one that was named is not there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ErrorKind.UNSUPPORTED)


class TableKind(ArchiveKind):
    """A table of images; a table of URIs, where it is named by itself, is a list."""

    @abstractmethod
    def open_table(self, file: IO[bytes], max_bytes: int) -> ImageTable:
        """Open a table.

        Args:
            file: It; the caller closes it.
            max_bytes: Of what is decompressed at once.

        Raises:
            ContainerError: It is not such a table, or damaged.
        """

    def members(self, archive: Archive) -> Iterator[Item | Skipped]:
        with archive.file.open() as file:
            table = self.open_table(file, archive.file.max_bytes)
            try:
                column = find_image_column(table, archive.lister.config.image_column)
                if column is not None:
                    yield from _rows(archive, table, column)
                elif archive.source.is_named:
                    yield from _uris(archive, table)
                else:
                    yield Skipped(archive.uri, f"{self.label} {NO_IMAGES}")
            except AmbiguousColumnError as exc:
                if archive.source.is_named:
                    raise SourceError(f"{archive.uri}: {exc}") from exc
                raise
            finally:
                table.close()


def _rows(archive: Archive, table: ImageTable, column: ImageColumn) -> Iterator[Item | Skipped]:
    """The images of a table."""
    id_column, names = archive.lister.config.id_column, table.schema.names
    if id_column is not None and id_column not in names:
        problem = f"no column {id_column!r} (columns: {', '.join(names)})"
        if archive.source.is_named:
            raise SourceError(f"{archive.uri} has {problem}")
        raise ContainerError(problem, ErrorKind.UNSUPPORTED)
    tag = archive.file.info().tag
    others = [f.name for f in table.schema if f.name != column.path[0] and not _has_binary(f.type)]
    lengths = _lengths(table, column) if column.is_list else None
    for number, row in enumerate(table.records(others)):
        archive.count += 1
        image_id = f"{archive.id}#{number}"
        error: ImageError | None = None
        if id_column is not None and row.get(id_column) is not None:
            given = str(row[id_column])
            wrong = id_problem(given)
            if wrong is None:
                image_id = given
            else:
                error = ImageError(Stage.LIST, ErrorKind.CORRUPT, wrong)
        extra = extra_json({k: v for k, v in row.items() if k != id_column}) or archive.extra
        length = 1 if lengths is None else next(lengths, 1)
        if length == 0:
            yield Skipped(image_id, "row without an image")
        for place in range(1, length + 1):
            tail = f"#image={place}" if place > 1 else ""
            yield Item(
                image_id + tail,
                archive.uri,
                archive.container,
                member=f"{number}{tail}",
                content_tag=tag,
                extra=extra,
                error=error,
            )


def _uris(archive: Archive, table: ImageTable) -> Iterator[Item | Skipped]:
    """What the rows of a table without images name."""
    name = file_name(archive.source.protocol, archive.source.path)
    columns = [
        f.name for f in table.schema if not _has_binary(f.type) or pa.types.is_struct(f.type)
    ]
    try:
        rows = table_rows(table.records(columns), name, archive.lister)
        with archive.file.unchanged():
            yield from archive.lister.rows(archive.source, rows)
    except ContainerError as exc:
        raise SourceError(f"{name}: {exc}") from exc
    except OSError as exc:
        raise SourceError(f"cannot read list {archive.uri}: {reason_of(exc)}") from exc


def find_image_column(table: ImageTable, wanted: str | None = None) -> ImageColumn | None:
    """The column that holds images; None if none does.

    Args:
        table: Where to look; some values are read where the schema does not decide.
        wanted: Names with commas between them, dots inside: the first that the table has.

    Raises:
        AmbiguousColumnError: None of the wanted is there, or several hold images.
    """
    found = [column for field in table.schema for column in _columns_of(field, ())]
    if wanted is not None:
        for name in wanted.split(","):
            for column in found:
                if name.strip() in (column.name, column.path[0]):
                    return column
        names = ", ".join(table.schema.names)
        raise AmbiguousColumnError(f"no image bytes in column {wanted!r} (columns: {names})")
    binary = [c for c in found if c.form != "base64" and not table.is_all_null(c)]
    if len(binary) == 1 and binary[0].path[0].lower() in _IMAGE_NAMES:
        return binary[0]
    hits = [c for c in binary if _holds_images(table, c)]
    if not hits:
        texts = [c for c in found if c.form == "base64"]
        hits = [c for c in texts if _holds_images(table, c)]
    if not hits:
        # Nothing looks like an image. A column that is named like one is read all the same, so
        # that its rows are reported; another binary column may be anything.
        named = [c for c in binary if c.path[-1].lower() in _IMAGE_NAMES]
        others = [f for f in table.schema if pa.types.is_string(f.type)]
        return named[0] if named else binary[0] if len(binary) == 1 and not others else None
    if len(hits) > 1:
        named = [c for name in _IMAGE_NAMES for c in hits if c.path[-1].lower() == name]
        if not named:
            names = ", ".join(c.name for c in hits)
            raise AmbiguousColumnError(
                f"several columns hold images ({names}): choose with --set source.image_column="
            )
        return named[0]
    return hits[0]


def value_of(scalar: Any, column: ImageColumn, place: int = 1) -> tuple[Any, str | None]:
    """The scalar of an image's bytes (or None) and its path (or None).

    Args:
        scalar: Of the topmost field, as `ImageTable.scalars` gives it.
        column: Which.
        place: Which image of a list, from 1.
    """
    for name in column.path[1:]:
        scalar = _field(scalar, name)
    if column.is_list:
        values = scalar.values if scalar is not None and scalar.is_valid else None
        scalar = values[place - 1] if values is not None and len(values) >= place else None
    if scalar is None or not scalar.is_valid:
        return None, None
    path = None
    if column.form == "struct":
        named = _field(scalar, "path") if column.has_path else None
        path = named.as_py() if named is not None and named.is_valid else None
        scalar = _field(scalar, "bytes")
    if scalar is not None and isinstance(scalar, pa.DictionaryScalar):
        scalar = scalar.value
    return (scalar if scalar is not None and scalar.is_valid else None), path


def check_size(scalar: Any, column: ImageColumn, max_bytes: int) -> None:
    """Refuse an image that is too large before it is copied.

    Args:
        scalar: As `value_of` gives it.
        column: Which.
        max_bytes: Of the image.

    Raises:
        MemberError: It is.
    """
    size = scalar.as_buffer().size  # no copy
    if column.form == "base64":
        size = max(0, size // 4 * 3 - 3)
    if size > max_bytes:
        raise too_large(size, max_bytes)


class TableAccess(Streamed):
    """Rows of a table, cheap in rising order."""

    def __init__(self, kind: TableKind) -> None:
        self._kind = kind

    def open(self, file: IO[bytes], source: SourceFile, item: Item, beat: Beat) -> ItemStream:
        watched = _Watched(file, beat, source)
        if item.content_tag is not None and source.info().tag != item.content_tag:
            raise changed(f"the {self._kind.label} file is another one")
        table = self._kind.open_table(cast("IO[bytes]", watched), source.max_bytes)
        return _TableItems(table, source, watched)

    def bytes_held(self, item: Item) -> int | None:
        return None


class _Watched:
    """A file that gives a sign of life with every read, and knows if others write to it.

    Unpacking a gigabyte takes its time. Pages of Parquet and batches of Arrow seldom have
    checksums, so that parts of two states would make an image that nobody ever stored.
    """

    def __init__(self, file: IO[bytes], beat: Beat, source: SourceFile) -> None:
        self._file = file
        self._beat = beat
        self._source = source
        self._stamp = source.stamp()
        self._was_read = False

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._beat()
        self._was_read = True
        return data

    def check(self) -> None:
        """See to it that all reads so far were of one state of the file.

        Raises:
            SourceChangedError: They were not.
        """
        if self._was_read and self._source.stamp() != self._stamp:
            raise SourceChangedError(self._source.path)
        self._was_read = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _TableItems(ItemStream):
    """Rows of one table; the last one read is held, for lists."""

    def __init__(self, table: ImageTable, source: SourceFile, watched: _Watched) -> None:
        self._table = table
        self._source = source
        self._watched = watched
        column = find_image_column(table, source.image_column)
        if column is None:
            raise ContainerError("no column of image bytes")
        self._column = column
        self._scalars: Generator[Any] = (_ for _ in ())
        self._next = -1
        self._held: Any = None

    def read(self, item: Item) -> bytes:
        try:
            data = self._read(item)
        except (ContainerError, MemberError):
            self._watched.check()  # else it is damage
            raise
        self._watched.check()
        return data

    def _read(self, item: Item) -> bytes:
        row_text, _, place = (item.member or "0").partition("#image=")
        row = int(row_text)
        if row != self._next - 1:
            self._forward(row)
        scalar, path = value_of(self._held, self._column, int(place or 1))
        if scalar is None:
            return self._beside(path)
        check_size(scalar, self._column, self._source.max_bytes)
        is_base64 = self._column.form == "base64"
        if self._column.is_list or scalar.as_buffer().size < _SPILLED_BYTES:
            data = bytes(scalar.as_buffer().to_pybytes())
            return _decoded(io.BytesIO(data)) if is_base64 else data
        # The page that it was decoded from, the value and a copy of it would be in memory at once.
        # By way of the disk it is one of them, once the decoder is given up.
        with tempfile.TemporaryFile(prefix="textspot-") as file:
            file.write(memoryview(scalar.as_buffer()))
            self._held = scalar = None
            if self._table.is_near(row + 1):
                self._scalars.close()
                self._next = -1
                pa.default_memory_pool().release_unused()  # it would keep what was freed
            file.seek(0)
            return _decoded(file) if is_base64 else file.read()

    def close(self) -> None:
        self._table.close()

    def _forward(self, row: int) -> None:
        if not 0 <= self._next <= row or row - self._next > 256:
            self._scalars, self._next = self._table.scalars(self._column, row), row
        while self._next <= row:
            self._held = None  # of two rows only one is held
            try:
                self._held = next(self._scalars)
            except StopIteration:
                self._next = -1
                raise ContainerError(f"no row {row} in the table") from None
            except BaseException:
                self._next = -1
                raise
            self._next += 1

    def _beside(self, path: str | None) -> bytes:
        """A file that a row without bytes names: only below the table's own folder."""
        if path is None:
            raise MemberError(ErrorKind.EMPTY_FILE, "the row has no image bytes (null)")
        missing = f"the row has no image bytes, and there is no file {path!a} beside the table"
        if "://" in path or path.startswith("/") or ".." in path.split("/"):
            raise MemberError(
                ErrorKind.EMPTY_FILE,
                f"the row has no image bytes, and its path {path!a} leads out of its folder",
            )
        source = self._source
        whole = posixpath.join(posixpath.dirname(source.path), path)
        try:
            data, info = source.volume.read_tagged(whole, source.max_bytes)
        except Exception as exc:
            if fault_of(exc) is not Fault.MISSING:
                raise
            raise MemberError(ErrorKind.EMPTY_FILE, missing) from exc
        if data is None:
            raise too_large(info.size, source.max_bytes)
        return data


def arrow_fault(exc: Exception, what: str) -> Exception:
    """An Arrow exception as what it means: a fault of storage as it is, else damage."""
    if fault_of(exc).is_transient:
        return exc
    return ContainerError(f"{what}: {one_line(exc, 200)}")


def _lengths(table: ImageTable, column: ImageColumn) -> Iterator[int]:
    for scalar in table.scalars(column, bare=True):
        for name in column.path[1:]:
            scalar = _field(scalar, name)
        values = scalar.values if scalar is not None and scalar.is_valid else None
        yield 0 if values is None else len(values)


def _columns_of(field: Any, above: tuple[str, ...]) -> Iterator[ImageColumn]:
    path, kind = (*above, field.name), field.type
    is_list = False
    if _is_list(kind):
        kind, is_list = kind.value_type, True
    if _is_binary(kind):
        yield ImageColumn(path, "bytes", is_list)
    elif pa.types.is_struct(kind):
        inner = {f.name: f.type for f in kind}
        if "bytes" in inner and _is_binary(inner["bytes"]):
            has_path = "path" in inner and _is_text(inner["path"])
            yield ImageColumn(path, "struct", is_list, has_path)
        elif not is_list:
            for child in kind:
                yield from _columns_of(child, path)
    elif _is_text(kind) and not is_list:
        yield ImageColumn(path, "base64")


def _holds_images(table: ImageTable, column: ImageColumn) -> bool:
    """Whether the first values of a column begin as images do."""
    seen = row = 0
    values = table.scalars(column)
    while row < _SAMPLED_ROWS and seen < _SAMPLED_VALUES:
        try:
            scalar = next(values, None)
        except MemberError:  # too large to be read; those behind it may not be
            row += 1
            values = table.scalars(column, row)
            continue
        if scalar is None:
            break
        row += 1
        value, _ = value_of(scalar, column)
        if value is None:
            continue
        seen += 1
        head = bytes(memoryview(value.as_buffer())[:_BASE64_HEAD])
        if column.form == "base64":
            try:
                head = _base64_head(head)
            except binascii.Error:
                continue
        if is_image_head(head[:512]):
            return True
    return False


def _base64_head(text: bytes) -> bytes:
    """The first bytes that base64 text stands for, with or without ``data:...,`` before it."""
    if text.startswith(b"data:"):
        text = text.partition(b",")[2]
    text = _plain_base64(text)
    return base64.b64decode(text[: len(text) // 4 * 4], validate=True)


def _plain_base64(text: bytes) -> bytes:
    """Text without spaces, in the usual alphabet."""
    return text.translate(None, b" \r\n\t").replace(b"-", b"+").replace(b"_", b"/")


def _decoded(file: IO[bytes]) -> bytes:
    """The bytes of base64 text in a file, which is not in memory beside them.

    Raises:
        MemberError: It is no base64.
    """
    content, rest, ended = io.BytesIO(), b"", False
    if file.read(5) == b"data:":
        file.seek(0)
        file.seek(file.read(_BASE64_HEAD).find(b",") + 1)
    else:
        file.seek(0)
    try:
        while piece := file.read(_PIECE):
            rest += _plain_base64(piece)
            whole = len(rest) // 4 * 4
            if ended and whole:
                raise binascii.Error("data behind the padding")
            content.write(base64.b64decode(rest[:whole], validate=True))
            ended = rest[:whole].endswith(b"=")
            rest = rest[whole:]
        content.write(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    except binascii.Error as exc:
        raise MemberError(ErrorKind.CORRUPT, f"damaged base64 text: {exc}") from exc
    return content.getvalue()  # no copy


def _field(scalar: Any, name: str) -> Any:
    if scalar is None or not scalar.is_valid:
        return None
    return scalar[name]


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_binary(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _has_binary(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_binary(field.type) for field in kind)
    if _is_list(kind):
        return _has_binary(kind.value_type)
    return _is_binary(kind)
