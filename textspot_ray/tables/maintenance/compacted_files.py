"""Base files: the rows of many shards in few files, and the sorted copy of words."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing

import duckdb
import pyarrow as pa

from textspot_ray.errors import StorageError
from textspot_ray.storage.faults import reason_of
from textspot_ray.storage.stores import TMP, Store
from textspot_ray.tables.commit.commit_record import DataFile, new_attempt
from textspot_ray.tables.commit.data_files import (
    DataFileWriter,
    delete_files,
    read_data_file,
)
from textspot_ray.tables.duck import arrow_reader, read_batches
from textspot_ray.tables.failpoints import fault
from textspot_ray.tables.schema import BY_TEXT, WORDS_BY_TEXT

ROWS_PER_FILE = 8_000_000
ROWS_PER_GROUP = 61_440  # a look-up reads one or two groups; half of DuckDB's own row groups


class CompactedFileWriter:
    """Writes a table's rows into files of `ROWS_PER_FILE`; files are uploaded as they fill.

    Args:
        store: The output folder.
        table: ``words``, ``images``, ``errors`` or ``words_by_text``.
        n: Number of the snapshot that will name the files.
        rows_per_file: Rows after which a new file is begun.
    """

    def __init__(
        self, store: Store, table: str, n: int, rows_per_file: int = ROWS_PER_FILE
    ) -> None:
        self._store = store
        self._table = table
        self._stem = f"{table}/base-{n:08d}-{new_attempt()}"
        self._rows_per_file = rows_per_file
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._writer: DataFileWriter | None = None
        self.parts: list[DataFile] = []

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        self._add(rows)
        while self._buffered >= ROWS_PER_GROUP:
            self._write_group()

    def copy(self, rows: Generator[pa.Table, None, None]) -> Iterator[pa.Table]:
        """Append all rows; yields the same rows once they are written."""
        with closing(rows):
            for table in rows:
                self._add(table)
                while self._buffered >= ROWS_PER_GROUP:
                    yield self._write_group()
        if self._buffered:
            yield self._write_group()

    def finish(self) -> list[DataFile]:
        """Write the rest; returns the files."""
        if self._buffered:
            self._write_group()
        self._roll()
        return self.parts

    def discard(self) -> None:
        """Delete what was written."""
        if self._writer is not None:
            self._writer.discard()
        delete_files(self._store, [part.path for part in self.parts])

    def _add(self, rows: pa.Table) -> None:
        if rows.num_rows:
            self._buffer.append(rows)
            self._buffered += rows.num_rows

    def _write_group(self) -> pa.Table:
        rows = pa.concat_tables(self._buffer)
        # Each file read has its own dictionary; a row group has one.
        group = rows.slice(0, ROWS_PER_GROUP).unify_dictionaries()
        rest = rows.slice(ROWS_PER_GROUP)
        self._buffer = [rest] if rest.num_rows else []
        self._buffered = rest.num_rows
        if self._writer is None:
            path = f"{self._stem}-{len(self.parts):04d}.parquet"
            self._writer = DataFileWriter(self._store, self._table, path)
        self._writer.write(group)
        if self._writer.rows >= self._rows_per_file:
            self._roll()
        return group

    def _roll(self) -> None:
        if self._writer is not None:
            part = self._writer.finish()
            self._writer = None
            if part is not None:
                self.parts.append(part)
                fault("compact_parts")


def read_data_files(
    store: Store,
    parts: Iterable[DataFile],
    columns: list[str] | None = None,
    dictionaries: Sequence[str] = (),
) -> Generator[pa.Table, None, None]:
    """Rows of several files in turn, each checked whole first; see `read_data_file`.

    Args:
        store: The output folder.
        parts: The files.
        columns: Those to give; default: all.
        dictionaries: Columns of strings to give as dictionaries.

    Raises:
        StorageError: A file is missing or damaged.
    """
    for part in parts:
        yield from read_data_file(store, part, columns, dictionaries, whole=True)


def write_by_text(
    store: Store,
    words: Generator[pa.Table, None, None],
    n: int,
    memory_bytes: int,
    rows_per_file: int = ROWS_PER_FILE,
) -> list[DataFile]:
    """Write the columns of ``words_by_text`` of some words, sorted by ``text_key`` and ``text``.

    DuckDB's external sort: beyond ``memory_bytes`` it spills to a temporary folder, on the output's
    own disk if that is local. Rows of the same text come in any order: sorting by image as well
    takes half as long again and helps no look-up.

    Args:
        store: The output folder.
        words: Rows of ``words``, maybe with further columns. They are consumed during the sort, in
            its thread, so that a generator can copy them on the way.
        n: Number of the snapshot that will name the files.
        memory_bytes: Limit of the sort.
        rows_per_file: Rows after which a new file is begun.

    Raises:
        StorageError: A words file is damaged, or storage refuses.
    """
    writer = CompactedFileWriter(store, BY_TEXT, n, rows_per_file)
    try:
        with _scratch(store) as folder, closing(words):
            for batch in _sorted(store.uri, folder, words, memory_bytes):
                writer.write(pa.Table.from_batches([batch]).cast(WORDS_BY_TEXT))
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


def _sorted(
    uri: str, folder: str, words: Iterable[pa.Table], memory_bytes: int
) -> Iterator[pa.RecordBatch]:
    columns = WORDS_BY_TEXT.names
    faults: list[Exception] = []

    def unsorted() -> Iterator[pa.RecordBatch]:
        try:
            for rows in words:
                yield from rows.select(columns).cast(WORDS_BY_TEXT).to_batches()
        except Exception as exc:
            faults.append(exc)  # DuckDB passes on only its text
            raise

    def start() -> pa.RecordBatchReader:
        connection.register("w", pa.RecordBatchReader.from_batches(WORDS_BY_TEXT, unsorted()))
        in_order = connection.sql(f"SELECT {', '.join(columns)} FROM w ORDER BY text_key, text")
        return arrow_reader(in_order, ROWS_PER_GROUP)

    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{max(memory_bytes // 2**20, 32)}MiB'")
            connection.execute("SET temp_directory = $folder", {"folder": folder})
            connection.execute("SET preserve_insertion_order = false")
            yield from read_batches(connection, start)
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        if faults:
            raise faults[0] from None
        raise StorageError(
            f"{uri}: cannot sort words by text ({reason_of(exc)}): free space or allow more memory"
        ) from exc


def _scratch(store: Store) -> tempfile.TemporaryDirectory[str]:
    local = store.local_path(f"{TMP}/sort")
    if local is not None:
        local.parent.mkdir(parents=True, exist_ok=True)
    folder = None if local is None else local.parent
    return tempfile.TemporaryDirectory(prefix="textspot-sort-", dir=folder)
