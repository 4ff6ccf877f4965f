"""A user's own list of words: names, streets, products that the pictures are known to show."""

from __future__ import annotations

import hashlib
import re
import string
from pathlib import Path

import fsspec

from textspot_ray.errors import ConfigError
from textspot_ray.redaction import redact_text
from textspot_ray.spotting.dictionary import LEAST_CHARS
from textspot_ray.storage.faults import reason_of
from textspot_ray.text_key import text_key

MOST_BYTES = 20_000_000
# what both families weigh
_READ = frozenset(string.ascii_lowercase + string.digits)
# a comma within a number parts nothing
_BETWEEN = re.compile(r"[\s;|]+|,(?!\d)|(?<!\d),")


def read_own_words(uri: str) -> frozenset[str]:
    """Read a list of words, in any case.

    Between them is white space, a comma, a semicolon or a bar. Accents and punctuation are dropped,
    as readings are weighed without them; so are words of fewer than three characters, since too
    much looks like them, and those in other scripts.

    Args:
        uri: Of a UTF-8 text; a path or any fsspec URI that needs no options.

    Raises:
        ConfigError: It cannot be read, is larger than 20 MB, no UTF-8, or holds no word.
    """
    told = redact_text(uri)
    try:
        with (
            fsspec.open(uri, "rb") if "://" in uri else Path(uri).expanduser().open("rb") as stream
        ):
            data = stream.read(MOST_BYTES + 1)
    except Exception as exc:  # stores, archives and their clients have errors of all kinds
        raise ConfigError(f"model.words: {told} cannot be read ({reason_of(exc)})") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(
            f"model.words: {told} is larger than {MOST_BYTES // 10**6} MB; shorten it"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"model.words: {told} is no UTF-8 text; save it as such") from None
    keys = {text_key(word) for word in _BETWEEN.split(text) if word}
    words = frozenset(key for key in keys if len(key) >= LEAST_CHARS and _READ.issuperset(key))
    if not words:
        raise ConfigError(
            f"model.words: {told} holds no word of {LEAST_CHARS} or more letters a-z or digits"
        )
    return words


def words_sha256(words: frozenset[str]) -> str:
    """Of the words, whatever their order in a file."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()
