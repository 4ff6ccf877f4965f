"""URIs as people write them: literal paths, braces, glob patterns, entries of lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from fsspec.utils import glob_translate

from textspot_ray.errors import SourceError
from textspot_ray.storage.filesystem import LOCAL, WEB, native_path, split_uri

_MAX_BRACES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)\Z")
_GLOB = re.compile(r"[*?\[]")


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


def join_uri(protocol: str, path: str, entry: str) -> tuple[str, str]:
    """Protocol and path of a list's entry; a relative one counts from the list's own folder.

    Args:
        protocol: The list's.
        path: The list's driver's path.
        entry: As it stands in the list.
    """
    if "://" in entry:
        return parse(entry)
    if protocol in WEB:
        return parse(urljoin(path, entry.replace("\\", "/")))
    folder = path.rpartition("/")[0]
    if protocol == LOCAL:
        whole = entry if entry.startswith("/") else f"{folder}/{entry}"
        if "\\" in entry and not os.path.lexists(whole):  # written on Windows
            whole = whole.replace("\\", "/")
        return parse(whole)
    if entry.startswith("/"):
        return parse(entry)
    return protocol, f"{folder}/{entry}"


def file_name(protocol: str, path: str) -> str:
    """The part of a path that shows what a file is; of a URL without its query."""
    return urlsplit(path).path if protocol in WEB else path


def has_pattern(path: str) -> bool:
    """Whether a path holds characters of glob patterns."""
    return _GLOB.search(path) is not None


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


def split_glob(path: str) -> tuple[str, str]:
    """The fixed folder of a glob pattern, and the pattern below it."""
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])
