"""The kinds of containers, each a module here and a line in `KINDS`; see `base` for what one is.

Nothing outside this package knows a kind by name: listing asks `kind_of_name` and `kind_of_head`,
reading asks `access_of` for the container name that an item is stored under.
"""

from __future__ import annotations

from typing import Final

from textspot_ray.sources.kinds.arrow import ArrowKind
from textspot_ray.sources.kinds.base import Access, Kind, Streamed
from textspot_ray.sources.kinds.file import FileKind
from textspot_ray.sources.kinds.folder import FolderKind
from textspot_ray.sources.kinds.lists import ListKind
from textspot_ray.sources.kinds.parquet import ParquetKind
from textspot_ray.sources.kinds.seven_zip import SevenZipKind
from textspot_ray.sources.kinds.tar import TarKind
from textspot_ray.sources.kinds.zip import ZipKind

FILE: Final[Kind] = FileKind()
FOLDER: Final[Kind] = FolderKind()
# By first bytes the first that recognises them: images before archives, tar last, for any
# compressed file is taken for one.
KINDS: Final[tuple[Kind, ...]] = (
    FILE,
    FOLDER,
    ListKind(),
    ZipKind(),
    SevenZipKind(),
    ParquetKind(),
    ArrowKind(),
    TarKind(),
)
_BY_SUFFIX: Final = {suffix: kind for kind in KINDS for suffix in kind.suffixes}
_ACCESS: Final = {name: access for kind in KINDS for name, access in kind.access.items()}


def kind_of_name(name: str) -> Kind | None:
    """The kind of a file by its name, case ignored; None if the name does not show it.

    >>> kind_of_name("in/a.tar.GZ").label, kind_of_name("a.jpg")
    ('tar', None)
    """
    last = name.rpartition("/")[2].lower()
    stem, dot, suffix = last.rpartition(".")
    if not dot or not stem:
        return None
    inner = stem.rpartition(".")[2] if "." in stem else ""
    return _BY_SUFFIX.get(f"{inner}.{suffix}") or _BY_SUFFIX.get(suffix)


def kind_of_head(head: bytes) -> Kind | None:
    """The kind of a file by its first 512 bytes; None if they do not show it."""
    return next((kind for kind in KINDS if kind.recognises(head)), None)


def access_of(container: str) -> Access | None:
    """How items stored under a container name are read; None for a name of a newer version."""
    return _ACCESS.get(container)


def is_ordered(container: str) -> bool:
    """Whether items of a container should be read in the order listed, by one process.

    >>> is_ordered("tar"), is_ordered("tar_stream")
    (False, True)
    """
    access = _ACCESS.get(container)
    return isinstance(access, Streamed) and access.is_ordered
