"""The output folder: whole files put atomically, some of them only if absent."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from textspot_ray.errors import StorageError
from textspot_ray.storage.connection import check_connection
from textspot_ray.storage.faults import (
    Contact,
    Fault,
    RetryPolicy,
    fault_of,
    hint_for,
    reason_of,
)
from textspot_ray.storage.filesystem import (
    LOCAL,
    exclusive_put_options,
    is_memory,
    modified_s,
    native_path,
    open_filesystem,
    split_uri,
    walk_remote,
)

T = TypeVar("T")

TMP = "_textspot/tmp"
_HINTS = {
    Fault.DENIED: "check permissions or credentials",
    Fault.FULL: "the disk or quota is full: free space and run again",
    Fault.READ_ONLY: "it is mounted read-only",
    Fault.TIMEOUT: "storage did not answer in time",
    Fault.TRANSIENT: "storage failed after all retries: run again later",
}
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a store: path relative to the store, bytes, seconds since the epoch."""

    path: str
    size: int
    mtime: float


class Store:
    """A folder of whole files. Paths are relative, with forward slashes.

    Missing files raise `FileNotFoundError`; any other fault that retries do not cure raises
    `StorageError` with one line. Bytes are never seen half-written under their final name.

    Args:
        uri: As the user gave it.
        retry: How transient faults are tried again.
        check: As of `Contact`.
    """

    def __init__(
        self, uri: str, retry: RetryPolicy, check: Callable[[], None] | None = None
    ) -> None:
        self.uri = uri
        self._retry = retry
        self._contact = Contact(uri, check)

    @property
    def retries(self) -> int:
        """Requests that were sent again because storage failed in passing."""
        return self._retry.tally.n

    def mkdir(self) -> None:
        """Make the folder if the store has folders."""

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        raise NotImplementedError

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Bytes of a file."""
        raise NotImplementedError

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files whose path starts with the prefix, streamed, never from a cache.

        Temporary files are left out unless the prefix names their folder. A missing folder is
        an empty one. Order is by name within a folder.
        """
        raise NotImplementedError

    def put(self, path: str, data: bytes) -> None:
        """Write a file whole, over what is there."""
        raise NotImplementedError

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write a file whole if there is none; False if there is one.

        False can also mean that an earlier try of this same call succeeded and its answer was
        lost inside the driver: read the file and compare where that matters.
        """
        raise NotImplementedError

    def probe_exclusive(self) -> bool:
        """Find out, by writing twice, whether `put_if_absent` lets exactly one writer win."""
        path = f"{TMP}/probe-{secrets.token_hex(6)}"
        try:
            first = self.put_if_absent(path, b"first")
            second = self.put_if_absent(path, b"second")
            kept = self.read(path)
        except FileNotFoundError as exc:  # a driver that loses what it is given
            raise StorageError(f"{self.uri}: a file just written is not there") from exc
        except BaseException:
            if self._contact.has_answered:
                with contextlib.suppress(Exception):  # the first fault is the one to report
                    self.delete(path)
            raise
        self.delete(path)
        return first and not second and kept == b"first" and self._is_exclusive()

    def upload(self, local_file: Path, path: str) -> None:
        """Move a local file into the store."""
        raise NotImplementedError

    def open_read(self, path: str) -> IO[bytes]:
        """A seekable binary file that is not shared with other callers."""
        raise NotImplementedError

    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""
        raise NotImplementedError

    def prune(self, folder: str) -> None:
        """Remove a folder if it is empty; object stores have none."""

    def local_path(self, path: str) -> Path | None:
        """Path on this machine's disk, or None if the store is elsewhere."""
        return None

    def full_uri(self, path: str) -> str:
        """URI of a file, for messages and other engines."""
        return f"{self.uri}/{path}"

    def _is_exclusive(self) -> bool:
        raise NotImplementedError

    def _guard(self, verb: str, path: str, function: Callable[[], T]) -> T:
        try:
            return self._retry.call(self._contact.watch(function))
        except Exception as exc:
            raise self._error(verb, path, exc) from exc

    def _hint(self, exc: Exception) -> str:
        """What to do about a fault, where a provider's message shows it."""
        return ""

    def _error(self, verb: str, path: str, exc: Exception) -> Exception:
        if isinstance(exc, (StorageError, AssertionError)):
            return exc
        fault = fault_of(exc)
        if fault is Fault.MISSING and verb in ("read", "stat"):
            return FileNotFoundError(errno.ENOENT, "no such file", self.full_uri(path))
        hint = self._hint(exc) or _HINTS.get(fault)
        tail = f" ({hint})" if hint else ""
        return StorageError(f"cannot {verb} {self.full_uri(path)}: {reason_of(exc)}{tail}")


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
        target = self._path(path)

        def put() -> None:
            with self._temporary() as tmp:
                _write_synced(tmp, data)
                self._settle(tmp, target)
                _sync_folder(target.parent)

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
        target, is_there = self._path(path), False

        def put() -> None:
            nonlocal is_there
            if not is_there:
                try:
                    _sync(local_file)
                    self._settle(local_file, target)
                except OSError:
                    # It is on another file system; or its fsync failed, and would pass if called
                    # again whatever became of its bytes.
                    with self._temporary() as tmp:
                        shutil.copyfile(local_file, tmp)
                        _sync(tmp)
                        self._settle(tmp, target)
                is_there = True
            _sync_folder(target.parent)

        self._guard("write", path, put)
        local_file.unlink(missing_ok=True)

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
        return self._root / _inside(path)

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

    def _settle(self, file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


class RemoteStore(Store):
    """A prefix of an object store (or any other fsspec file system).

    Args:
        uri: As the user gave it.
        fs: The fsspec file system.
        root: Driver's path of the folder.
        retry: How transient faults are tried again.
        is_patient: Begin with all tries of ``retry``, although nothing has answered yet.
    """

    def __init__(
        self, uri: str, fs: Any, root: str, retry: RetryPolicy, is_patient: bool = False
    ) -> None:
        check = None if is_patient else functools.partial(check_connection, fs)
        super().__init__(uri, retry, check)
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
        tries = 0

        def put() -> bool:
            nonlocal tries
            tries += 1
            try:
                created = self._create(full, data)
            except Exception as exc:
                if fault_of(exc) is not Fault.EXISTS:
                    raise
                created = False
            # A try whose answer was lost meets its own file.
            return created or (tries > 1 and bytes(self._fs.cat_file(full)) == data)

        return self._guard("write", path, put)

    def upload(self, local_file: Path, path: str) -> None:
        full = self._path(path)
        self._guard("write", path, lambda: self._fs.put_file(str(local_file), full))
        local_file.unlink(missing_ok=True)

    def open_read(self, path: str) -> IO[bytes]:
        full = self._path(path)
        if is_memory(self._fs):
            return io.BytesIO(self.read(path))
        file: IO[bytes] = self._guard("read", path, lambda: self._fs.open(full, "rb"))
        return file

    def delete(self, path: str) -> None:
        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(path))

        self._guard("delete", path, delete)

    def _create(self, full: str, data: bytes) -> bool:
        if is_memory(self._fs):
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
        """The memory driver checks, then stores; dict.setdefault does both at once."""
        from fsspec.implementations.memory import MemoryFile

        file = MemoryFile(self._fs, full, data)
        won: bool = self._fs.store.setdefault(full, file) is file
        return won

    def _is_exclusive(self) -> bool:
        return is_memory(self._fs) or exclusive_put_options(self._fs) is not None

    def _hint(self, exc: Exception) -> str:
        # nothing to do about a passing fault of the store but to wait
        return "" if fault_of(exc).is_transient and self._contact.has_answered else hint_for(exc)

    def _path(self, path: str) -> str:
        return f"{self._root}/{_inside(path)}"


def open_store(
    uri: str,
    options: Mapping[str, Any] | None = None,
    create: bool = False,
    retry: RetryPolicy | None = None,
    is_patient: bool = False,
) -> Store:
    """Open a folder for reading and writing whole files.

    Args:
        uri: Path or fsspec URI of the folder.
        options: fsspec options by protocol, for example ``{"s3": {"endpoint_url": ...}}``.
        create: Make the folder (object stores have none to make).
        retry: How transient faults are tried again.
        is_patient: For workers of a run, whose driver has reached the store before: no address is
            wrong there, and an outage passes.

    Raises:
        UsageError: Unknown scheme or missing driver (`MissingExtraError`).
        StorageError: The folder cannot be made.

    >>> store = open_store("memory://docs/example")
    >>> store.put_if_absent("a.txt", b"first"), store.put_if_absent("a.txt", b"second")
    (True, False)
    """
    protocol, rest = split_uri(uri)
    if protocol == LOCAL:
        store: Store = LocalStore(Path(rest).absolute(), retry or RetryPolicy(attempts=3))
    else:
        fs = open_filesystem(protocol, options)
        root = native_path(protocol, rest)
        store = RemoteStore(uri.rstrip("/"), fs, root, retry or RetryPolicy(), is_patient)
    if create:
        store.mkdir()
    return store


def _inside(path: str) -> str:
    """A normalised path; refused if it leads out of the store."""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts:
        raise AssertionError(f"not a path inside the store: {path!r}")
    return str(PurePosixPath(path))


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once its folder is; some network mounts refuse the call.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
