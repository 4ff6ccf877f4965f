"""Opening a table for reading: the files that count, as Arrow datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from textspot_ray.storage.filesystem import LOCAL, native_path, open_filesystem, split_uri
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import DataFile
from textspot_ray.tables.commit.ledger import open_ledger
from textspot_ray.tables.schema import SCHEMAS


@dataclass(frozen=True)
class Tables:
    """A consistent view of the tables: the files that were committed when it was opened.

    The view does not move with a running job; open again for newer rows.

    Attributes:
        store: The folder the tables lie in.
        parts: Every committed file, by table; ``words_by_text`` holds the slim copy that
            compact makes, for look-ups.
        storage_options: fsspec options by protocol.
        sorted_words: Paths of the words files that ``words_by_text`` is a copy of.
    """

    store: Store
    parts: Mapping[str, tuple[DataFile, ...]]
    storage_options: Mapping[str, Any] | None = None
    sorted_words: frozenset[str] = frozenset()

    @property
    def words_beside_sorted(self) -> tuple[DataFile, ...]:
        """Words files whose rows ``words_by_text`` does not have: a look-up reads both."""
        return tuple(part for part in self.parts["words"] if part.path not in self.sorted_words)

    @property
    def words(self) -> ds.Dataset:
        """The words table as an Arrow dataset."""
        return self.dataset("words")

    @property
    def images(self) -> ds.Dataset:
        """The images table as an Arrow dataset."""
        return self.dataset("images")

    @property
    def errors(self) -> ds.Dataset:
        """The errors table as an Arrow dataset."""
        return self.dataset("errors")

    def files(self, table: str) -> list[str]:
        """Full paths or URIs of a table's files, for other engines."""
        return [self.store.full_uri(part.path) for part in self.parts[table]]

    def dataset(self, table: str) -> ds.Dataset:
        """A table as an Arrow dataset; an empty table has no files, yet its schema."""
        schema = SCHEMAS[table]
        if not self.parts[table]:
            return ds.dataset(schema.empty_table())
        protocol, rest = split_uri(self.store.uri)
        if protocol == LOCAL:
            filesystem: pafs.FileSystem = pafs.LocalFileSystem()
        else:
            fs = open_filesystem(protocol, self.storage_options)
            filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
        root = native_path(protocol, rest)
        paths = [f"{root}/{part.path}" for part in self.parts[table]]
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)

    def read(self, table: str) -> pa.Table:
        """A whole table in memory; for small tables."""
        return self.dataset(table).to_table()


def open_tables(where: str | Store, storage_options: Mapping[str, Any] | None = None) -> Tables:
    """Open an output folder for reading.

    Args:
        where: Path or URI of the folder, or its store.
        storage_options: fsspec options by protocol.

    Raises:
        TableError: It is no table of ours, or of a newer version.
    """
    store = open_store(where, storage_options) if isinstance(where, str) else where
    ledger = open_ledger(store, create=False)
    parts: dict[str, list[DataFile]] = {table: [] for table in SCHEMAS}
    for part in ledger.on_latest(lambda: list(ledger.files())):
        parts[part.table].append(part)
    return Tables(
        store=store,
        parts={
            **{table: tuple(found) for table, found in parts.items()},
            "words_by_text": ledger.snapshot.by_text,
        },
        storage_options=storage_options,
        sorted_words=frozenset(
            part.path
            for part in ledger.snapshot.base
            if part.table == "words" and ledger.snapshot.by_text
        ),
    )
