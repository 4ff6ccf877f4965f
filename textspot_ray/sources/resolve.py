"""What the user's URIs stand for: files, folders, globs, lists and archives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from fsspec.utils import glob_translate

from textspot_ray.errors import SourceError, UsageError
from textspot_ray.images.formats import SNIFF_BYTES, NameKind, describe, is_image_head, name_kind
from textspot_ray.sources.identity import canonical
from textspot_ray.sources.streams import compression_of
from textspot_ray.storage.faults import Fault, RetryPolicy, fault_of, hint_for, reason_of
from textspot_ray.storage.filesystem import LOCAL, native_path, split_uri
from textspot_ray.storage.volume import FileInfo, Volume, open_volume

_MAX_BRACES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)\Z")
_GLOB = re.compile(r"[*?\[]")
WEB = ("http", "https")


@dataclass(frozen=True, slots=True)
class Source:
    """One thing to list.

    Attributes:
        kind: What it is; ``UNKNOWN`` is a folder.
        protocol, path: Where the driver finds it.
        info: What the store says of it, if it was asked.
        glob: Pattern on paths below a folder, or None for all.
    """

    kind: NameKind
    protocol: str
    path: str
    info: FileInfo | None = None
    glob: Glob | None = None

    @property
    def uri(self) -> str:
        """The canonical URI."""
        return canonical(self.protocol, self.path)


FOLDER = NameKind.UNKNOWN


class Glob:
    """A glob pattern below its fixed folder; a folder that matches is taken with all in it."""

    def __init__(self, pattern: str) -> None:
        # Only a whole part may be "**"; elsewhere shells take it for "*".
        parts = pattern.split("/")
        self._parts = [p if p == "**" else re.sub(r"\*+", "*", p) for p in parts]
        self._full = re.compile(glob_translate("/".join(self._parts)))

    def matches(self, path: str) -> bool:
        """Whether a file's path (relative to the folder) or a folder above it matches."""
        parts = path.split("/")
        return any(
            self._full.match("/".join(parts[:n])) is not None for n in range(len(parts), 0, -1)
        )

    def may_match_below(self, folder: str) -> bool:
        """Whether a folder (relative path) can hold matches."""
        depth = folder.count("/") + 1
        if depth >= len(self._parts):
            return "**" in self._parts or self.matches(folder)
        head = self._parts[:depth]
        if "**" in head:
            return True
        return re.compile(glob_translate("/".join(head))).match(folder) is not None


class Volumes:
    """The volumes in use, one a protocol."""

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = options
        self._open: dict[str, Volume] = {}

    def get(self, protocol: str) -> Volume:
        """The volume of a protocol."""
        if protocol not in self._open:
            self._open[protocol] = open_volume(protocol, self._options)
        return self._open[protocol]


def resolve(uri: str, volumes: Volumes, retry: RetryPolicy) -> Iterator[Source]:
    """What a URI of the user's stands for; more than one thing for braces.

    Raises:
        SourceError: It is not there, cannot be looked at, or is nothing we list.
        UsageError: Its scheme is unknown or its driver is missing.
    """
    protocol, path = parse(uri)
    if protocol == LOCAL and os.path.lexists(path):
        yield _resolve_one(uri, protocol, path, volumes, retry)
        return
    for expanded in expand_braces(uri):
        protocol, path = parse(expanded)
        yield _resolve_one(expanded, protocol, path, volumes, retry)


def parse(uri: str) -> tuple[str, str]:
    """Protocol and driver's path of a URI as people write it.

    A bare path is literal; in ``file://`` percent signs encode, as in any real URI.
    """
    if "\0" in uri:
        raise SourceError(f"not a path: {uri!r}")
    protocol, rest = split_uri(uri)
    if protocol == LOCAL:
        if "://" in uri[:8]:
            decoded = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
            rest = rest if os.path.lexists(rest) else decoded
        elif rest.startswith("~/"):
            rest = os.path.expanduser(rest)  # noqa: PTH111
        return LOCAL, os.path.abspath(rest)  # noqa: PTH100 (".." must go, links must stay)
    return protocol, native_path(protocol, rest)


def join_uri(base: Source, entry: str) -> tuple[str, str]:
    """Protocol and path of a list's entry; a relative one counts from the list's own folder."""
    if "://" in entry:
        return parse(entry)
    if base.protocol in WEB:
        return parse(urljoin(base.path, entry))
    if entry.startswith("/"):
        return parse(entry)
    folder = base.path.rpartition("/")[0]
    if base.protocol == LOCAL:
        return parse(f"{folder}/{entry}")
    return base.protocol, f"{folder}/{entry}"


def file_name(protocol: str, path: str) -> str:
    """The part of a path that shows what a file is; of a URL without its query."""
    return urlsplit(path).path if protocol in WEB else path


def expand_braces(uri: str) -> Iterator[str]:
    """``a{01..03}`` and ``a{x,y}`` as shells and webdataset expand them.

    >>> list(expand_braces("s-{08..10}.tar"))
    ['s-08.tar', 's-09.tar', 's-10.tar']
    """
    found = list(islice(_expand(uri), _MAX_BRACES + 1))
    if len(found) > _MAX_BRACES:
        raise SourceError(f"{uri!r} expands to more than {_MAX_BRACES} names")
    yield from found


def _expand(uri: str) -> Iterator[str]:
    for match in _BRACES.finditer(uri):
        choices = _choices(match[1])
        if choices is not None:
            for choice in choices:
                yield from _expand(uri[: match.start()] + choice + uri[match.end() :])
            return
    yield uri


def _choices(body: str) -> Iterator[str] | None:
    bounds = _RANGE.match(body)
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        width = max(len(t) for t in bounds.groups()) if re.search(r"(^|\.)-?0\d", body) else 0
        step = 1 if last >= first else -1
        return (f"{n:0{width}d}" for n in range(first, last + step, step))
    return iter(body.split(",")) if "," in body else None


def _resolve_one(
    uri: str, protocol: str, path: str, volumes: Volumes, retry: RetryPolicy
) -> Source:
    volume = volumes.get(protocol)
    if protocol not in WEB and _GLOB.search(path) and not _is_there(volume, path):
        folder, pattern = _split_glob(path)
        _look(uri, volume, folder, retry)
        return Source(FOLDER, protocol, folder, glob=Glob(pattern))
    kind = name_kind(file_name(protocol, path))
    info = _look(uri, volume, path, retry)
    if info.is_folder:
        return Source(FOLDER, protocol, path)
    if kind in (NameKind.UNKNOWN, NameKind.OTHER):
        kind = _sniff(uri, volume, path, retry)
    return Source(kind, protocol, path, info)


def _look(uri: str, volume: Volume, path: str, retry: RetryPolicy) -> FileInfo:
    try:
        return retry.call(lambda: volume.info(path))
    except UsageError:
        raise
    except Exception as exc:
        fault = fault_of(exc)
        if fault is Fault.MISSING:
            raise SourceError(f"no such file or folder: {uri}{_hint(uri)}") from exc
        if volume.protocol != LOCAL:
            exc = _telling(volume, path, exc)
        hint = hint_for(exc) if volume.protocol != LOCAL else ""
        if not hint and fault is Fault.DENIED:
            hint = "check permissions or credentials"
        tail = f" ({hint})" if hint else ""
        raise SourceError(f"cannot look at {uri}: {reason_of(exc)}{tail}") from exc


def _telling(volume: Volume, path: str, exc: Exception) -> Exception:
    """What was asked first has an answer without a body (HEAD), and so without a reason."""
    try:
        next(iter(volume.walk(path)), None)
    except Exception as better:
        if hint_for(better) and fault_of(better) is not Fault.MISSING:
            return better
    return exc


def _hint(uri: str) -> str:
    return "; quote patterns, so that the shell passes them on" if _GLOB.search(uri) else ""


def _is_there(volume: Volume, path: str) -> bool:
    if volume.protocol != LOCAL:
        return False
    return os.path.lexists(path)


def _split_glob(path: str) -> tuple[str, str]:
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def _sniff(uri: str, volume: Volume, path: str, retry: RetryPolicy) -> NameKind:
    """What a file is whose name does not tell."""
    try:
        head = retry.call(lambda: volume.read(path, 0, SNIFF_BYTES))
    except Exception as exc:
        raise SourceError(f"cannot read {uri}: {reason_of(exc)}") from exc
    if is_image_head(head):
        return NameKind.IMAGE
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return NameKind.ZIP
    if compression_of(head) is not None:
        return NameKind.TAR_STREAM
    if head[257:262] == b"ustar":
        return NameKind.TAR
    if head.startswith(b"PAR1"):
        return NameKind.PARQUET
    raise SourceError(
        f"{uri} is no source we know but {describe(head)}: give a folder, an image, an archive "
        "(tar, zip, Parquet) or a list (.txt, .csv, .jsonl)"
    )
