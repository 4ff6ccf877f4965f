"""The files of an export: their names, whether they are folders, and what was written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from textspot_ray.errors import UsageError
from textspot_ray.export.names import (
    ImageNames,
    image_key,
    safe_component,
    same_file,
    with_digest,
)
from textspot_ray.query.pages import Page
from textspot_ray.storage.filesystem import LOCAL, split_uri


@dataclass(slots=True)
class ExportReport:
    """What was written.

    Attributes:
        images: Written.
        words: Written.
        files: Written.
        failed: Images left out because they failed.
        below: Words of the written images left out because they were read with less than the
            least confidence.
        stale: Files in the folder that look like an earlier export's and were not written now.
        unread: Images left out because their picture could not be read again.
    """

    images: int = 0
    words: int = 0
    files: int = 0
    failed: int = 0
    below: int = 0
    stale: int = 0
    unread: int = 0

    def count(self, page: Page) -> None:
        """Take up an image that is written."""
        self.images += 1
        self.words += len(page.words)
        self.below += page.below


def is_folder(out: str) -> bool:
    """Whether ``--out`` means a folder of one file per image."""
    protocol, rest = split_uri(out)
    if protocol == LOCAL and Path(rest).is_dir():
        return True
    return out.endswith(("/", "\\")) or not PurePosixPath(rest).suffix


class FileNames:
    """Names of one file per image: as the picture's own, told apart only where two are the same.

    Args:
        format: Name of the format.
        suffix: Of each file.
        names: How images are called.
    """

    def __init__(self, format: str, suffix: str, names: ImageNames) -> None:
        self._format = format
        self._suffix = suffix
        self._names = names
        self._taken: set[str] = set()

    def take(self, page: Page) -> str:
        """The relative path of an image's file."""
        if self._format == "icdar":  # the organisers join by name
            name = f"res_{icdar_stem(page.image_id)}{self._suffix}"
            if same_file(name) in self._taken:
                raise UsageError(f"two images would both be {name}: choose with --source")
        else:
            stem = self._names.file_stem(page)
            name = f"{stem}{self._suffix}"
            if same_file(name) in self._taken:
                name = f"{with_digest(stem, page.image_id)}{self._suffix}"
        self._taken.add(same_file(name))
        return name

    def stale(self, there: Iterable[str]) -> int:
        """How many of the files that are there look like ours and were not taken."""
        return sum(
            name.endswith(self._suffix) and same_file(name) not in self._taken for name in there
        )


def icdar_stem(image_id: str) -> str:
    """The name that the ICDAR organisers join by, as one safe part of a path."""
    return safe_component(image_key(image_id))
