"""Base files: the rows of many shards in few files, and the sorted copy of words."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import duckdb
import pyarrow as pa

from textspot_ray.archive.storage import Store
from textspot_ray.errors import AbortedError, StorageError
from textspot_ray.tables.faultpoints import fault
from textspot_ray.tables.marker import PartFile, new_attempt
from textspot_ray.tables.parts import PartWriter, delete_parts, read_ahead, read_part
from textspot_ray.tables.schema import BY_TEXT, WORDS_BY_TEXT

ROWS_PER_FILE = 8_000_000
ROWS_PER_GROUP = 122_880  # what DuckDB works on at a time
BY_TEXT_ROWS_PER_GROUP = 61_440  # a look-up reads one or two groups


class BaseWriter:
    """Writes a table's rows into files of `ROWS_PER_FILE`; files are uploaded as they fill.

    Args:
        store: The output folder.
        table: ``words``, ``images``, ``errors`` or ``words_by_text``.
        n: Number of the snapshot that is to name the files.
        rows_per_file: Rows after which a new file is begun.
    """

    def __init__(
        self, store: Store, table: str, n: int, rows_per_file: int = ROWS_PER_FILE
    ) -> None:
        self._store = store
        self._table = table
        self._stem = f"{table}/base-{n:08d}-{new_attempt()}"
        self._rows_per_file = rows_per_file
        self._rows_per_group = BY_TEXT_ROWS_PER_GROUP if table == BY_TEXT else ROWS_PER_GROUP
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._writer: PartWriter | None = None
        self.parts: list[PartFile] = []

    def write(self, rows: pa.Table) -> None:
        """Append rows."""
        if rows.num_rows:
            self._buffer.append(rows)
            self._buffered += rows.num_rows
        while self._buffered >= self._rows_per_group:
            self._write_group()

    def finish(self) -> list[PartFile]:
        """Write out the rest; the files."""
        if self._buffered:
            self._write_group()
        self._roll()
        return self.parts

    def discard(self) -> None:
        """Delete what was written."""
        if self._writer is not None:
            self._writer.discard()
        delete_parts(self._store, [part.path for part in self.parts])

    def _write_group(self) -> None:
        rows = pa.concat_tables(self._buffer)
        group, rest = rows.slice(0, self._rows_per_group), rows.slice(self._rows_per_group)
        self._buffer = [rest] if rest.num_rows else []
        self._buffered = rest.num_rows
        if self._writer is None:
            path = f"{self._stem}-{len(self.parts):04d}.parquet"
            self._writer = PartWriter(self._store, self._table, path)
        self._writer.write(group)
        if self._writer.rows >= self._rows_per_file:
            self._roll()

    def _roll(self) -> None:
        if self._writer is not None:
            part = self._writer.finish()
            self._writer = None
            if part is not None:
                self.parts.append(part)
                fault("compact_parts")


def copy_rows(store: Store, parts: Iterable[PartFile], writer: BaseWriter) -> None:
    """Append the rows of some files, in order."""
    for rows in read_ahead(read_parts(store, parts)):
        writer.write(rows)


def read_parts(
    store: Store, parts: Iterable[PartFile], columns: list[str] | None = None
) -> Generator[pa.Table, None, None]:
    """Rows of several files, one after another.

    Raises:
        StorageError: A file is missing or damaged.
    """
    for part in parts:
        yield from read_part(store, part, columns)


def written(rows: Iterable[pa.Table], writer: BaseWriter) -> Iterator[pa.Table]:
    """The same rows, each handed on once a writer has them."""
    for table in rows:
        writer.write(table)
        yield table


def write_by_text(
    store: Store,
    words: Iterable[pa.Table],
    n: int,
    memory_bytes: int,
    rows_per_file: int = ROWS_PER_FILE,
) -> list[PartFile]:
    """Write the slim copy of some rows of words, sorted by text.

    An external sort (DuckDB's): beyond ``memory_bytes`` it spills to a temporary folder, on the
    output's own disk where that is local. Rows of one text come in any order: to sort by image as
    well takes half as long again and helps no look-up.

    Args:
        store: The output folder.
        words: Rows of ``words``, with further columns or without. They are taken as the sort goes
            on, by a thread of their own: an iterator that reads and copies them on the way costs
            no second reading.
        n: Number of the snapshot that is to name the files.
        memory_bytes: Limit of the sort.
        rows_per_file: Rows after which a new file is begun.

    Raises:
        StorageError: A words file is damaged, or storage refuses.
    """
    writer = BaseWriter(store, BY_TEXT, n, rows_per_file)
    stop = Event()
    try:
        in_order = _sorted(store, read_ahead(iter(words)), memory_bytes, stop)
        for rows in read_ahead(in_order, on_stop=stop.set):
            writer.write(rows)
        return writer.finish()
    except BaseException:
        writer.discard()
        raise


def _sorted(
    store: Store, words: Generator[pa.Table, None, None], memory_bytes: int, stop: Event
) -> Iterator[pa.Table]:
    columns = WORDS_BY_TEXT.names
    faults: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            with closing(words):
                for rows in words:
                    if stop.is_set():
                        raise AbortedError("the sort was stopped")
                    yield from rows.select(columns).cast(WORDS_BY_TEXT).to_batches()
        except Exception as exc:
            faults.append(exc)  # DuckDB would hand on nothing but its text
            raise

    try:
        with (
            tempfile.TemporaryDirectory(prefix="textspot-sort-", dir=_scratch(store)) as folder,
            duckdb.connect() as connection,
        ):
            connection.execute(f"SET memory_limit = '{memory_bytes // 2**20}MiB'")
            connection.execute("SET temp_directory = $folder", {"folder": folder})
            connection.execute("SET preserve_insertion_order = false")
            connection.register("w", pa.RecordBatchReader.from_batches(WORDS_BY_TEXT, batches()))
            by_text = connection.sql(f"SELECT {', '.join(columns)} FROM w ORDER BY text")
            # The newer name, where there is one: the older one warns then.
            read = getattr(by_text, "to_arrow_reader", None) or by_text.fetch_arrow_reader
            for batch in read(BY_TEXT_ROWS_PER_GROUP):
                yield pa.Table.from_batches([batch]).cast(WORDS_BY_TEXT)
    except (duckdb.Error, pa.ArrowException) as exc:
        if faults:
            raise faults[0] from None
        raise StorageError(
            f"{store.uri}: cannot sort words by text ({str(exc).splitlines()[0]}): "
            "free space or allow more memory"
        ) from exc


def _scratch(store: Store) -> Path | None:
    local = store.local_path("_textspot/tmp/sort")
    if local is None:
        return None
    local.parent.mkdir(parents=True, exist_ok=True)
    return local.parent
