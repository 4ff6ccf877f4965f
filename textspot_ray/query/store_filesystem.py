"""A read-only fsspec file system over a `Store`, so that DuckDB reads what our storage reads.

DuckDB's own object-store support is an extension to download; through this one every scheme and
credential of ours works, and nothing can be written.
"""

from __future__ import annotations

import datetime as dt
from typing import IO, TYPE_CHECKING, Any

from fsspec.spec import AbstractFileSystem

if TYPE_CHECKING:
    from textspot_ray.storage.stores import Store

PROTOCOL = "textspot"


def store_path(path: str) -> str:
    """The name under which a file of the store is opened."""
    return f"{PROTOCOL}://{path}"


class StoreFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of one store, by their paths in it; names are literal, never globs."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._sizes: dict[str, int] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix(f"{PROTOCOL}://")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Name, size and type; committed files never change, so their size is asked once."""
        name = self._strip_protocol(path)
        if name not in self._sizes:
            self._sizes[name] = self._store.size(name)
        return {"name": name, "size": self._sizes[name], "type": "file"}

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is such a file."""
        return self._store.exists(self._strip_protocol(path))

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> list[str]:
        """The path itself."""
        return [path]

    def modified(self, path: str) -> dt.datetime:
        """A constant: committed files never change."""
        return dt.datetime.fromtimestamp(0, dt.UTC)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> IO[bytes]:
        if mode != "rb":
            raise PermissionError("tables are opened for reading only")
        return self._store.open_read(self._strip_protocol(path))
