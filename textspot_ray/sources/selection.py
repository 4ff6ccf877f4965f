"""What of a source is taken: by name, by the user's patterns, by sampling."""

from __future__ import annotations

import re
from fnmatch import translate
from hashlib import blake2b
from typing import Final

from textspot_ray.config import SourceConfig

NOT_AN_IMAGE: Final = "not an image"
NESTED: Final = "archive inside an archive"
UNREAD_ARCHIVE: Final = "archive of a kind that is not read"
HIDDEN: Final = "hidden file"
MACOS: Final = "macOS metadata"
SYSTEM: Final = "thumbnails or recycle bin of a system"
OUTPUT: Final = "output of textspot"
_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|\Z))")
_OUTPUT = re.compile(r"(?:^|/)_textspot(?:/|\Z)")
_MACOS = re.compile(r"(?:^|/)(?:__MACOSX(?:/|\Z)|\._)")
_SYSTEM = re.compile(
    r"(?:^|/)(?:@eaDir|#recycle|#snapshot|@Recycle|@Recently-Snapshot|\$RECYCLE\.BIN|RECYCLER|"
    r"System Volume Information|\.thumbnails|\.Trash(?:es|-\d+)?|lost\+found)(?:/|\Z)"
)
# Archives, and single files under a compression, that no kind reads; case ignored.
UNREAD_ARCHIVES: Final = (
    "rar", "cbr", "arj", "lzh", "lha", "cab", "iso", "dmg",
    "gz", "zst", "zstd", "bz2", "xz", "lz", "lz4",
)  # fmt: skip
_PART = re.compile(r"\.(?:z\d\d|r\d\d|(?:7z|zip|tar|rar)\.\d{3})\Z", re.IGNORECASE)


class Selection:
    """The rules of a `SourceConfig`, compiled."""

    def __init__(self, config: SourceConfig) -> None:
        self._include = _compile(config.include)
        self._exclude = _compile(config.exclude)
        self._system_folders = config.system_folders
        self._limit_hash = None if config.sample is None else int(config.sample * 2**64)

    def skipped(self, path: str, is_container: bool = False) -> str | None:
        """Why a path relative to its source is skipped, or None.

        Patterns match the whole path or its last part. Archives are only excluded by name: what
        is to be included is their members' to say.
        """
        return self.hidden(path) or self.filtered(path, is_container)

    def filtered(self, path: str, is_container: bool = False) -> str | None:
        """As `skipped`, by the user's patterns alone: for what was named one by one."""
        if self._exclude and _matches(self._exclude, path):
            return "excluded by pattern"
        if self._include and not is_container and not _matches(self._include, path):
            return "not included by any pattern"
        return None

    def sampled(self, image_id: str) -> bool:
        """Whether an item belongs to the sample: always the same ones, whatever the order."""
        if self._limit_hash is None:
            return True
        digest = blake2b(image_id.encode("utf-8", "replace"), digest_size=8, person=b"sample")
        return int.from_bytes(digest.digest(), "big") < self._limit_hash

    def hidden(self, path: str) -> str | None:
        """As `skipped`, whatever the user's patterns: why a folder is not gone into."""
        if _OUTPUT.search(path):
            return OUTPUT
        if self._system_folders:
            path = _SYSTEM.sub("/", path)  # what they are called hides nothing
            path = re.sub(r"(?:^|/)__MACOSX(?=/|\Z)", "", path)
        elif _SYSTEM.search(path):
            return SYSTEM
        if _MACOS.search(path):
            return MACOS
        return HIDDEN if _HIDDEN.search(path) else None


def not_read(name: str) -> str:
    """Why a file that is no image and no source is skipped."""
    if is_unread_archive(name):
        return UNREAD_ARCHIVE
    return NOT_AN_IMAGE


def is_unread_archive(name: str) -> bool:
    """Whether a name says that it is an archive, or a part of one, that is not read.

    >>> is_unread_archive("a.rar"), is_unread_archive("b.7z.001"), is_unread_archive("c.jpg")
    (True, True, False)
    """
    return name.rpartition(".")[2].lower() in UNREAD_ARCHIVES or _PART.search(name) is not None


def _compile(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{translate(p)})" for p in patterns))


def _matches(pattern: re.Pattern[str], path: str) -> bool:
    return pattern.match(path) is not None or pattern.match(path.rpartition("/")[2]) is not None
