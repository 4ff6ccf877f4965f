"""A store on a mounted disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from textspot_ray.storage.base import TMP, Entry, Store, inside
from textspot_ray.storage.faults import RetryPolicy

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStore(Store):
    """A folder on a mounted disk. Files and folders are fsynced before a put returns."""

    def __init__(self, root: Path, retry: RetryPolicy) -> None:
        super().__init__(str(root), retry)
        self._root = root
        self._links = True

    def mkdir(self) -> None:
        self._guard("make", "", lambda: self._root.mkdir(parents=True, exist_ok=True))

    def read(self, path: str) -> bytes:
        return self._guard("read", path, lambda: self._path(path).read_bytes())

    def size(self, path: str) -> int:
        def stat() -> int:
            found = self._path(path)
            if found.is_dir():
                raise FileNotFoundError(errno.ENOENT, "is a folder", str(found))
            return found.stat().st_size

        return self._guard("stat", path, stat)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        folder, _, start = prefix.rpartition("/")
        yield from self._walk(folder, start, prefix.startswith(TMP))

    def _walk(self, folder: str, start: str, with_tmp: bool) -> Iterator[Entry]:
        where = self._path(folder) if folder else self._root
        try:
            with os.scandir(where) as found:
                names = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in found)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as exc:
            raise self._error("list", folder, exc) from exc
        for name, is_dir in names:
            path = f"{folder}/{name}" if folder else name
            if not name.startswith(start) or (path == TMP and not with_tmp):
                continue
            if is_dir:
                yield from self._walk(path, "", with_tmp)
                continue
            try:
                stat = (where / name).stat()
            except FileNotFoundError:  # deleted while we looked
                continue
            yield Entry(path, stat.st_size, stat.st_mtime)

    def put(self, path: str, data: bytes) -> None:
        def put() -> None:
            with self._temporary() as tmp:
                _write_synced(tmp, data)
                self._settle(tmp, path)

        self._guard("write", path, put)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        target = self._path(path)

        def put() -> bool:
            if target.exists():
                return False
            with self._temporary() as tmp:
                _write_synced(tmp, data)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(tmp, target)
                except FileExistsError:
                    return False
                except OSError as exc:
                    if exc.errno not in _NO_LINKS:
                        raise
                    # exFAT, some network mounts: not exclusive, and the probe says so.
                    self._links = False
                    tmp.replace(target)
                _sync_folder(target.parent)
            return True

        return self._guard("write", path, put)

    def upload(self, local_file: Path, path: str) -> None:
        def put() -> None:
            with self._temporary() as tmp:
                try:
                    local_file.replace(tmp)
                except OSError:  # it is on another file system
                    shutil.copyfile(local_file, tmp)
                with tmp.open("rb") as file:
                    os.fsync(file.fileno())
                self._settle(tmp, path)
            local_file.unlink(missing_ok=True)

        self._guard("write", path, put)

    def open_read(self, path: str) -> IO[bytes]:
        return self._guard("read", path, lambda: self._path(path).open("rb"))

    def delete(self, path: str) -> None:
        self._guard("delete", path, lambda: self._path(path).unlink(missing_ok=True))

    def prune(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # it holds something, or is gone
            self._path(folder).rmdir()

    def local_path(self, path: str) -> Path | None:
        return self._path(path)

    def _is_exclusive(self) -> bool:
        return self._links

    def _path(self, path: str) -> Path:
        return self._root / inside(path)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self._root / TMP
        folder.mkdir(parents=True, exist_ok=True)
        tmp = folder / secrets.token_hex(8)
        try:
            yield tmp
        finally:
            with contextlib.suppress(OSError):
                tmp.unlink(missing_ok=True)

    def _settle(self, tmp: Path, path: str) -> None:
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        tmp.replace(target)
        _sync_folder(target.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once its folder is; some network mounts refuse the call.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
