"""Data files: written locally in row groups, uploaded whole, read with checks."""

from __future__ import annotations

import io
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from textspot_ray.errors import MissingFileError, StorageError
from textspot_ray.storage.faults import Fault, fault_of, reason_of
from textspot_ray.storage.stores import Store
from textspot_ray.tables.commit.commit_record import PAGES, TMP, DataFile
from textspot_ray.tables.schema import VERSION_KEY, conform, parquet_options, schema_of

READ_ROWS = 65_536
_COPY_BYTES = 2**20
T = TypeVar("T")


class DataFileWriter:
    """One Parquet file of a table, growing by row groups in a local file.

    On a local output the file grows in the output's own temporary folder, so that it needs space
    only there and the upload is a rename; otherwise in the system's temporary folder.

    Args:
        store: The output folder.
        table: The rows' table.
        path: Path of the finished file.
    """

    def __init__(self, store: Store, table: str, path: str) -> None:
        self._store = store
        self._table = table
        self._path = path
        self._scratch: _Scratch | None = None
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._rows

    def write(self, rows: pa.Table) -> None:
        """Append rows as a row group; there may be none.

        Raises:
            StorageError: The disk is full, read-only or broken.
        """
        if rows.num_rows == 0:
            return
        with self._faults():
            if self._scratch is None or self._writer is None:
                self._scratch = _Scratch(self._store, self._path)
                self._writer = self._open(self._scratch.file, rows.schema)
            self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._rows += rows.num_rows

    def finish(self) -> DataFile | None:
        """Upload the file; None if no row was written (an empty table has no file)."""
        if self._scratch is None or self._writer is None:
            return None
        with self._faults():
            self._writer.close()
            with self._scratch.file.open("rb") as file:
                digest = sha256_of(file)
            size = self._scratch.file.stat().st_size
        self._store.upload(self._scratch.file, self._path)
        self._scratch.clear()
        return DataFile(self._table, self._path, size, self._rows, digest)

    def discard(self) -> None:
        """Throw away what was written; never raises."""
        with suppress(Exception):
            if self._writer is not None:
                self._writer.close()
        if self._scratch is not None:
            self._scratch.clear()
        self._scratch = self._writer = None

    def _open(self, file: Path, given: pa.Schema) -> pq.ParquetWriter:
        """A writer of the table's schema that also takes strings as dictionaries."""
        schema = schema_of(self._table)
        kinds = pa.schema(
            [
                f.with_type(kind) if pa.types.is_dictionary(kind := given.field(f.name).type) else f
                for f in schema
            ]
        )
        writer = pq.ParquetWriter(file, kinds, store_schema=False, **parquet_options(self._table))
        # The types for readers, as Arrow stores them for a table without dictionaries.
        types = b64encode(schema.serialize().to_pybytes())
        writer.add_key_value_metadata({**schema.metadata, b"ARROW:schema": types})
        return writer

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            where = self._scratch.file.parent if self._scratch else self._store.uri
            hint = ": free space and run again" if fault_of(exc) is Fault.FULL else ""
            raise StorageError(
                f"cannot write {self._path} in {where}: {reason_of(exc)}{hint}"
            ) from exc


class _Scratch:
    """The local file of a data file being written, and its temporary folder, if any."""

    def __init__(self, store: Store, path: str) -> None:
        name = path.replace("/", "-")
        local = store.local_path(TMP + name)
        self._folder: Path | None = None
        if local is None:
            self._folder = Path(tempfile.mkdtemp(prefix="textspot-"))
            self.file = self._folder / name
        else:
            try:
                local.parent.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise StorageError(
                    f"cannot write to {store.uri}: {reason_of(exc)}; choose another output folder"
                ) from exc
            self.file = local

    def clear(self) -> None:
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def read_data_file(
    store: Store,
    part: DataFile,
    columns: list[str] | None = None,
    dictionaries: Sequence[str] = (),
    whole: bool = False,
) -> Iterator[pa.Table]:
    """Rows of a file in batches, with the columns of this version (`conform`).

    Pages are checked against their checksums, which files have from version 2 on.

    Args:
        store: The output folder.
        part: The file.
        columns: Columns to return; default: all.
        dictionaries: String columns to return as dictionaries, which avoids making the strings.
        whole: Compare the whole file with its sha256 before the first row. For whatever writes the
            rows again: otherwise damage would get a new, valid checksum.

    Raises:
        MissingFileError: The file is not there.
        StorageError: The file is damaged.
    """
    with ExitStack() as stack:
        file = stack.enter_context(open_data_file(store, part, whole))
        yield from read_rows(store, part, file, columns, dictionaries)


def read_rows(
    store: Store,
    part: DataFile,
    file: IO[bytes],
    columns: list[str] | None = None,
    dictionaries: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """As `read_data_file`, of a file that is open already."""
    try:
        parquet = pq.ParquetFile(
            file, read_dictionary=dictionaries, page_checksum_verification=True
        )
        # With Arrow's threads this takes half as long again.
        for batch in parquet.iter_batches(
            READ_ROWS, columns=_needed(parquet.schema_arrow, columns), use_threads=False
        ):
            yield conform(pa.Table.from_batches([batch]), part.table, columns)
    except FileNotFoundError as exc:  # remote files are fetched as rows are read
        raise _missing(store, part) from exc
    except (pa.ArrowException, OSError) as exc:
        raise StorageError(
            f"{store.uri}/{part.path} cannot be read ({reason_of(exc)}): run textspot verify"
        ) from exc


@contextmanager
def open_data_file(store: Store, part: DataFile, whole: bool) -> Iterator[IO[bytes]]:
    """A file's bytes, compared with its sha256 first if ``whole``, and fetched only once for both.

    Args:
        store: The output folder.
        part: The file.
        whole: Whether the bytes are checked first.

    Raises:
        MissingFileError: The file is not there.
        StorageError: Its bytes are not those that were committed.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(store.open_read(part.path))
            if whole:
                if store.local_path(part.path) is None:
                    source = file
                    file = stack.enter_context(tempfile.TemporaryFile(prefix="textspot-"))
                    shutil.copyfileobj(source, file, _COPY_BYTES)
                    file.seek(0)
                digest = sha256_of(file)
                file.seek(0)
        except FileNotFoundError as exc:
            raise _missing(store, part) from exc
        except OSError as exc:
            raise StorageError(f"{store.uri}/{part.path} cannot be read: {reason_of(exc)}") from exc
        if whole and digest != part.sha256:
            raise StorageError(
                f"{store.uri}/{part.path} has changed since it was committed (its sha256 differs): "
                "it is not rewritten; run textspot verify, restore the file"
            )
        yield file


def sha256_of(file: IO[bytes]) -> str:
    """Hex digest of the rest of a file."""
    digest = sha256()
    while chunk := file.read(_COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _missing(store: Store, part: DataFile) -> MissingFileError:
    return MissingFileError(
        f"{store.uri}/{part.path} is missing though it is committed: run textspot verify"
    )


def _needed(schema: pa.Schema, columns: list[str] | None) -> list[str] | None:
    """The columns to read for those wanted; a missing text_key is made from the text."""
    if columns is None:
        return None
    needed = [name for name in columns if name in schema.names]
    if "text_key" in columns and "text_key" not in schema.names and "text" not in needed:
        needed.append("text")
    return needed


def empty_file(table: str) -> bytes:
    """A Parquet file of the table's schema without rows and row groups."""
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema_of(table)).close()
    return sink.getvalue()


def file_version(schema: pa.Schema) -> int:
    """Table version in a file's metadata, 0 if there is none."""
    return int((schema.metadata or {}).get(VERSION_KEY, 0))


def delete_pages(store: Store, paths: Iterable[str]) -> None:
    """Delete finished pages of long files, and folders that become empty."""
    found = list(paths)
    delete_files(store, found)
    for folder in {path.rpartition("/")[0] for path in found}:
        store.prune(folder)
    store.prune(PAGES)


def delete_files(store: Store, paths: Iterable[str]) -> None:
    """Delete files that do not count; one that cannot be deleted is left to vacuum."""
    for path in paths:
        with suppress(StorageError):
            store.delete(path)
