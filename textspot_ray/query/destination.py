"""Where results are written: standard output, a file, or a folder; local or any fsspec URI.

A file appears under its name when it is complete, never before: local ones are renamed, others are
sent from a temporary file on this machine's disk.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from textspot_ray.errors import StorageError, TextspotError, UsageError
from textspot_ray.storage.faults import reason_of
from textspot_ray.storage.filesystem import (
    LOCAL,
    native_path,
    open_filesystem,
    split_uri,
    walk_remote,
)

Options = Mapping[str, Any]


@contextlib.contextmanager
def open_binary(out: str | None, options: Options | None = None) -> Iterator[IO[bytes]]:
    """A file to write bytes to, or standard output for None and ``-``.

    Args:
        out: Path or fsspec URI.
        options: fsspec options by protocol.

    Raises:
        UsageError: It cannot be written, or no driver knows the scheme.
        StorageError: Remote storage refuses.
    """
    if out is None or out == "-":
        yield sys.stdout.buffer
        return
    protocol, rest = split_uri(out)
    if protocol == LOCAL:
        with _local_file(Path(rest)) as file:
            yield file
        return
    fs = open_filesystem(protocol, options)
    with tempfile.TemporaryFile(prefix="textspot-out-") as file:
        yield file
        file.seek(0)
        with _writing(out):
            _send(fs, file, native_path(protocol, rest))


@contextlib.contextmanager
def open_text(out: str | None, options: Options | None = None) -> Iterator[IO[str]]:
    """The same for text, as UTF-8; standard output keeps the terminal's encoding."""
    if out is None or out == "-":
        yield sys.stdout
        return
    with open_binary(out, options) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", errors="backslashreplace")
        try:
            yield text
            with _writing(out):
                text.flush()
        finally:
            with contextlib.suppress(OSError, ValueError):
                text.detach()


def local_path(out: str) -> Path:
    """The path of a file that can only be written on this machine.

    Raises:
        UsageError: It is a URI of other storage.
    """
    protocol, rest = split_uri(out)
    if protocol != LOCAL:
        raise UsageError(f"{out}: this can be written on this machine only: give a path")
    return Path(rest)


class Folder:
    """A folder to write whole files to; files of the same names are replaced.

    Args:
        out: Path or fsspec URI; made where it is missing.
        options: fsspec options by protocol.

    Raises:
        UsageError: It cannot be made, or no driver knows the scheme.
    """

    def __init__(self, out: str, options: Options | None = None) -> None:
        self._out = out
        protocol, rest = split_uri(out)
        self._fs = None if protocol == LOCAL else open_filesystem(protocol, options)
        self._root = native_path(protocol, rest).rstrip("/")
        self._made: set[str] = set()
        if self._fs is None:
            with _writing(out):
                Path(self._root or "/").mkdir(parents=True, exist_ok=True)

    def files(self) -> Iterator[str]:
        """Names of the files that are there, relative to the folder, streamed."""
        with _writing(self._out):
            if self._fs is not None:
                with contextlib.suppress(FileNotFoundError):
                    for entry in walk_remote(self._fs, self._root):
                        yield entry.path.removeprefix(self._root).lstrip("/")
                return
            for folder, _, names in os.walk(self._root or "/"):
                for name in names:
                    yield (Path(folder) / name).relative_to(self._root or "/").as_posix()

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole.

        Args:
            name: Relative path with forward slashes.
            data: Its content.

        Raises:
            UsageError: It cannot be written.
            StorageError: Remote storage refuses.
        """
        if self._fs is not None:
            with _writing(f"{self._out.rstrip('/')}/{name}"):
                self._make_remote(str(PurePosixPath(name).parent))
                self._fs.pipe_file(f"{self._root}/{name}", data)
            return
        target = Path(self._root or "/") / name
        with _writing(str(target)):
            if str(target.parent) not in self._made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(str(target.parent))
            with _local_file(target) as file:
                file.write(data)

    def _make_remote(self, folder: str) -> None:
        # object stores have no folders; drivers of file servers need them
        if folder in self._made or self._fs is None:
            return
        with contextlib.suppress(NotImplementedError, PermissionError):
            self._fs.makedirs(f"{self._root}/{folder}".removesuffix("/."), exist_ok=True)
        self._made.add(folder)


@contextlib.contextmanager
def _local_file(target: Path) -> Iterator[IO[bytes]]:
    with _writing(str(target)):
        if target.is_symlink() or (target.exists() and not target.is_file()):
            # a device, a pipe, or a link to one (/dev/stdout): not to be replaced by a file
            with target.open("wb") as file:
                yield file
            return
        name = target.name.encode("utf-8", "surrogateescape")[:240]
        part = target.with_name(f"{name.decode('utf-8', 'ignore')}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                yield file
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _send(fs: Any, file: IO[bytes], path: str) -> None:
    with contextlib.suppress(NotImplementedError, PermissionError):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as target:
        shutil.copyfileobj(file, target, 2**22)


@contextlib.contextmanager
def _writing(what: str) -> Iterator[None]:
    """Turn errors of writing into one line; a closed pipe is not an error."""
    try:
        yield
    except (BrokenPipeError, TextspotError):
        raise
    except OSError as exc:
        if split_uri(what)[0] != LOCAL:
            raise StorageError(f"cannot write {what}: {reason_of(exc)}") from exc
        raise UsageError(f"cannot write {what}: {exc.strerror or exc}") from exc
    except Exception as exc:
        if split_uri(what)[0] == LOCAL:
            raise
        raise StorageError(f"cannot write {what}: {reason_of(exc)}") from exc
