"""What of a source is taken: by name, by the user's patterns, by sampling."""

from __future__ import annotations

import re
from fnmatch import translate
from hashlib import blake2b

from textspot_ray.config import SourceConfig
from textspot_ray.images.formats import NESTED_SUFFIXES, NameKind, name_kind

NOT_AN_IMAGE = "not an image"
NESTED = "archive inside an archive"
HIDDEN = "hidden file"
MACOS = "macOS metadata"
OUTPUT = "output of textspot"
_HIDDEN = re.compile(r"(?:^|/)\.(?!\.?(?:/|\Z))")
_OUTPUT = re.compile(r"(?:^|/)_textspot(?:/|\Z)")
_MACOS = re.compile(r"(?:^|/)(?:__MACOSX(?:/|\Z)|\._)")


class Selection:
    """The rules of a `SourceConfig`, compiled."""

    def __init__(self, config: SourceConfig) -> None:
        self._include = _compile(config.include)
        self._exclude = _compile(config.exclude)
        self._limit_hash = None if config.sample is None else int(config.sample * 2**64)

    def passed_folder(self, path: str) -> str | None:
        """Why a folder is not gone into, or None."""
        return _hidden(path)

    def passed(self, path: str, is_container: bool = False) -> str | None:
        """Why a path relative to its source is passed over, or None.

        Patterns match the whole path or its last part. Archives are only excluded by name: what
        is to be included is their members' to say.
        """
        return _hidden(path) or self.filtered(path, is_container)

    def filtered(self, path: str, is_container: bool = False) -> str | None:
        """As `passed`, by the user's patterns alone: for what was named one by one."""
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


def member_kind(name: str) -> NameKind:
    """As `name_kind`, for names inside an archive: containers there are not opened."""
    kind = name_kind(name)
    if kind in (NameKind.TAR, NameKind.TAR_STREAM, NameKind.ZIP):
        return NameKind.TAR
    if kind in (NameKind.PARQUET, NameKind.LIST):
        return NameKind.OTHER
    if kind is NameKind.UNKNOWN and name.rpartition(".")[2].lower() in NESTED_SUFFIXES:
        return NameKind.TAR
    return kind


def _hidden(path: str) -> str | None:
    if _MACOS.search(path):
        return MACOS
    if _OUTPUT.search(path):
        return OUTPUT
    return HIDDEN if _HIDDEN.search(path) else None


def _compile(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{translate(p)})" for p in patterns))


def _matches(pattern: re.Pattern[str], path: str) -> bool:
    return pattern.match(path) is not None or pattern.match(path.rpartition("/")[2]) is not None
