"""Errors that end a command, each with a one-line message and an exit code."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

_MIN_SIMILARITY = 0.6


class ExitCode(IntEnum):
    """What a command's exit status means; the numbers are part of the public interface."""

    OK = 0
    NO_MATCH = 1
    USAGE = 2
    FAILED_IMAGES = 3
    FINGERPRINT = 4
    ABORTED = 5
    INTERRUPTED = 130
    TERMINATED = 143


class TextspotError(Exception):
    """An error that is not an image's: one line that names what is wrong and the fix.

    Workers' errors travel to the driver as they are, so every subclass can be pickled.
    """

    exit_code: ExitCode = ExitCode.ABORTED


class UsageError(TextspotError):
    """The user asked for something that cannot be done as asked."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration key or value is wrong."""


class BundleError(UsageError):
    """A model bundle is missing, incomplete, damaged or breaks the contract."""


class SourceError(UsageError):
    """A source cannot be listed at all (missing folder, unknown scheme, broken list file)."""


class TableError(UsageError):
    """A folder is not a table, or not one this version can read."""


class NoTableError(TableError):
    """A folder holds no table, or none yet."""


class DamagedTableError(TableError):
    """A committed file of a table cannot be read as it was written."""

    exit_code: ExitCode = ExitCode.ABORTED


class MissingExtraError(UsageError):
    """An optional dependency is needed; the message names the pip extra."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)  # as they are, for an exception is pickled by its arguments
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.args[0]} needs an optional package: pip install 'textspot-ray[{self.extra}]'"


class FingerprintError(TextspotError):
    """The output folder holds a table made with other settings."""

    exit_code = ExitCode.FINGERPRINT


class StorageError(TextspotError):
    """Storage refuses reads or writes that the job cannot do without."""


class MissingFileError(StorageError):
    """A file that is committed is not there: damage, or another process rewrote the table."""


class AbortedError(TextspotError):
    """The job stopped for a reason that is not an image's."""


def one_line(exc: BaseException, limit: int = 300) -> str:
    """An exception's message as one line of bounded length; its class where it has none."""
    return " ".join(str(exc).split())[:limit] or type(exc).__name__


def key_first(exc: Exception, kind: Any) -> str:
    """A validation error of msgspec, its key first: ``shapes[0][1]: expected `int` >= 32``.

    Args:
        exc: The error.
        kind: The type that was built; if the key takes one of a few words, they are listed.
    """
    text, at, where = str(exc).partition(" - at ")
    key = where.rpartition("$.")[2].strip("`") if at else ""
    if not key:
        return text
    choices = _choices(kind, key) if "enum" in text else ()
    tail = f"; one of {', '.join(choices)}" if choices else ""
    return f"{key}: {text[0].lower()}{text[1:]}{tail}"


def _choices(kind: Any, key: str) -> tuple[str, ...]:
    """The values of a key's ``Literal`` type, or of a mapping's key type."""
    for name in key.split("."):
        kind = typing.get_type_hints(kind).get(name)
        options = [t for t in typing.get_args(kind) if t is not type(None)]
        kind = options[0] if isinstance(kind, types.UnionType) else kind
    kind = typing.get_args(kind)[0] if typing.get_origin(kind) is dict else kind
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def printable(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor or colour it."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character == " "
        else character.encode("unicode_escape").decode()
        for character in text
    )


def did_you_mean(given: str, right: Iterable[str]) -> str:
    """``; did you mean X?`` with the closest of the valid words; empty if none is close.

    >>> did_you_mean("--tumb", ["--thumb", "--out"])
    '; did you mean --thumb?'
    """
    import difflib

    near = difflib.get_close_matches(given, list(right), n=1, cutoff=_MIN_SIMILARITY)
    return f"; did you mean {near[0]}?" if near else ""
