"""A store on an object store, or on any other file system that fsspec has a driver for."""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from textspot_ray.storage.base import TMP, Entry, Store, inside
from textspot_ray.storage.faults import Fault, RetryPolicy, fault_of, hint_for
from textspot_ray.storage.filesystem import exclusive_put_options, modified_s, walk_remote


class RemoteStore(Store):
    """A prefix of an object store (or any other fsspec file system).

    Args:
        uri: As the user gave it.
        fs: The fsspec file system.
        root: Driver's path of the folder.
        retry: How transient faults are tried again.
    """

    def __init__(self, uri: str, fs: Any, root: str, retry: RetryPolicy) -> None:
        super().__init__(uri, retry)
        self._fs = fs
        self._root = root

    def read(self, path: str) -> bytes:
        full = self._path(path)
        return self._guard("read", path, lambda: bytes(self._fs.cat_file(full)))

    def size(self, path: str) -> int:
        def stat() -> int:
            info = self._fs.info(self._path(path))
            if info.get("type") == "directory":
                raise FileNotFoundError(errno.ENOENT, "is a folder", path)
            return int(info["size"])

        return self._guard("stat", path, stat)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        folder = prefix.rpartition("/")[0]
        with_tmp = prefix.startswith(TMP)
        root = self._fs._strip_protocol(self._root).rstrip("/") + "/"
        try:
            for found in walk_remote(self._fs, self._path(folder) if folder else self._root):
                path = found.path[len(root) :]
                is_tmp = path.startswith(f"{TMP}/")
                if path and path.startswith(prefix) and (with_tmp or not is_tmp):
                    yield Entry(path, int(found.size or 0), modified_s(found.info))
        except FileNotFoundError:
            return
        except Exception as exc:
            raise self._error("list", folder, exc) from exc

    def put(self, path: str, data: bytes) -> None:
        self._guard("write", path, lambda: self._fs.pipe_file(self._path(path), data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        full = self._path(path)

        def put(attempt: int) -> bool:
            try:
                created = self._create(full, data)
            except Exception as exc:
                if fault_of(exc) is not Fault.EXISTS:
                    raise
                created = False
            # A try whose answer was lost meets its own file.
            return created or (attempt > 0 and bytes(self._fs.cat_file(full)) == data)

        return self._guard_counted("write", path, put)

    def upload(self, local_file: Path, path: str) -> None:
        full = self._path(path)
        self._guard("write", path, lambda: self._fs.put_file(str(local_file), full))
        local_file.unlink(missing_ok=True)

    def open_read(self, path: str) -> IO[bytes]:
        full = self._path(path)
        if self._in_memory():
            # The memory store hands the same file object to everybody.
            return io.BytesIO(self.read(path))
        file: IO[bytes] = self._guard("read", path, lambda: self._fs.open(full, "rb"))
        return file

    def delete(self, path: str) -> None:
        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(path))

        self._guard("delete", path, delete)

    def _create(self, full: str, data: bytes) -> bool:
        if self._in_memory():
            return self._create_in_memory(full, data)
        options = exclusive_put_options(self._fs)
        if options is not None:
            self._fs.pipe_file(full, data, **options)
            return True
        if self._fs.exists(full):
            return False
        self._fs.pipe_file(full, data)
        return True

    def _create_in_memory(self, full: str, data: bytes) -> bool:
        """The memory driver looks first and stores then; dict.setdefault does both in one."""
        from fsspec.implementations.memory import MemoryFile

        file = MemoryFile(self._fs, full, data)
        won: bool = self._fs.store.setdefault(full, file) is file
        return won

    def _in_memory(self) -> bool:
        return hasattr(self._fs, "store") and hasattr(self._fs, "pseudo_dirs")

    def _is_exclusive(self) -> bool:
        return self._in_memory() or exclusive_put_options(self._fs) is not None

    def _hint(self, exc: Exception) -> str:
        # what passes is the store's trouble, and nothing to do about but to wait
        return "" if fault_of(exc).is_transient and self._contact.has_answered else hint_for(exc)

    def _path(self, path: str) -> str:
        return f"{self._root}/{inside(path)}"
