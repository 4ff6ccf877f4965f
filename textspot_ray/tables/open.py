"""Opening a table for reading: its committed files, and what the ledger knows of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textspot_ray.storage.filesystem import LOCAL, native_path, open_filesystem, split_uri
from textspot_ray.storage.stores import Store, open_store
from textspot_ray.tables.commit.commit_record import CommitRecord, DataFile
from textspot_ray.tables.commit.ledger import State, open_ledger
from textspot_ray.tables.schema import BY_TEXT, SCHEMAS
from textspot_ray.tables.status import run_records

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

THRESHOLD_KEY = "text_threshold"  # in fingerprints, and in records of runs
_LEAST_ALPHABET = 9  # the ten digits


@dataclass(frozen=True)
class Tables:
    """A consistent view of the tables: the files that were committed when it was opened.

    The view does not move with a running job; open again for newer rows.

    Attributes:
        store: The folder the tables lie in.
        data_files: Every committed file, by table; ``words_by_text`` is the slim copy that compact
            makes for look-ups.
        recent_words: Files of ``words`` whose rows are not in ``words_by_text``: a look-up reads
            both.
        fingerprint: The settings the table was made with.
        version: Oldest table version that a file may be of.
        commit_records: Gives the newest commit record of every shard.
        state: The ledger's state; it differs once others have changed the table, even by a fold,
            which replaces manifests and no file of rows.
        storage_options: fsspec options by protocol.
    """

    store: Store
    data_files: Mapping[str, tuple[DataFile, ...]]
    recent_words: tuple[DataFile, ...]
    fingerprint: Mapping[str, str]
    version: int
    commit_records: Callable[[], Iterable[CommitRecord]]
    state: State
    storage_options: Mapping[str, Any] | None = None

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

    @property
    def paths(self) -> frozenset[str]:
        """Paths in the store of all files, of whatever table."""
        return frozenset(file.path for files in self.data_files.values() for file in files)

    @property
    def alphabet(self) -> str | None:
        """The characters that the table's model can output; None where the table does not say."""
        found = self.fingerprint.get("alphabet", "")
        # Large alphabets are stored by name, not spelled out.
        return found if len(found) > _LEAST_ALPHABET and len(set(found)) == len(found) else None

    @functools.cached_property
    def text_threshold(self) -> float:
        """The bundle's: words below it are left out unless asked for; 0 if it is not known.

        It is in the fingerprint, or else in the record of the newest run that has it.
        """
        found = self.fingerprint.get(THRESHOLD_KEY)
        if found is None:
            runs = [facts for facts in run_records(self.store) if THRESHOLD_KEY in facts]
            found = max(runs, key=_started, default={}).get(THRESHOLD_KEY)
        try:
            return float(found) if found is not None else 0.0
        except (TypeError, ValueError):
            return 0.0

    def files(self, table: str) -> list[str]:
        """Full paths or URIs of a table's files, for other engines."""
        return [self.store.full_uri(file.path) for file in self.data_files[table]]

    def dataset(self, table: str) -> ds.Dataset:
        """A table as an Arrow dataset; an empty table has no files, yet its schema."""
        import pyarrow.dataset as ds  # imports pandas where it is installed: 0.3 s
        import pyarrow.fs as pafs

        schema = SCHEMAS[table]
        if not self.data_files[table]:
            return ds.dataset(schema.empty_table())
        protocol, rest = split_uri(self.store.uri)
        if protocol == LOCAL:
            filesystem: pafs.FileSystem = pafs.LocalFileSystem()
        else:
            fs = open_filesystem(protocol, self.storage_options)
            filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(fs))
        root = native_path(protocol, rest)
        paths = [f"{root}/{file.path}" for file in self.data_files[table]]
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)

    def read(self, table: str) -> pa.Table:
        """A whole table in memory; for small tables."""
        return self.dataset(table).to_table()


def open_tables(where: str | Store, storage_options: Mapping[str, Any] | None = None) -> Tables:
    """Open the committed state of an output folder for reading.

    Args:
        where: Path or URI of the folder, or its store.
        storage_options: fsspec options by protocol.

    Raises:
        TableError: It is no table of ours, or of a newer version.
        StorageError: Storage refuses.
    """
    store = open_store(where, storage_options) if isinstance(where, str) else where
    ledger = open_ledger(store, create=False)
    files: dict[str, list[DataFile]] = {table: [] for table in SCHEMAS}
    for file in ledger.on_latest(lambda: list(ledger.files())):
        files[file.table].append(file)
    state = ledger.state()
    by_text, base = ledger.snapshot.by_text, set(ledger.snapshot.base)
    return Tables(
        store=store,
        data_files={**{table: tuple(found) for table, found in files.items()}, BY_TEXT: by_text},
        recent_words=tuple(f for f in files["words"] if f not in base) if by_text else (),
        fingerprint=ledger.fingerprint,
        version=ledger.version,
        commit_records=ledger.commit_records,
        state=state,
        storage_options=storage_options,
    )


def _started(facts: Mapping[str, Any]) -> float:
    value = facts.get("started_at", 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
