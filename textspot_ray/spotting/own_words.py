"""A user's own list of words: names, streets, products that the pictures are known to show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import fsspec

from textspot_ray.errors import ConfigError
from textspot_ray.spotting.dictionary import LEAST_CHARS
from textspot_ray.text_key import text_key

MOST_BYTES = 20_000_000


def read_own_words(uri: str) -> frozenset[str]:
    """Read a list: words with white space between them, in any case.

    Each is listed in lower case and without the punctuation around it, and once more without
    accents, as models without accents read it. Words of fewer than three characters are left out:
    too much looks like them.

    Args:
        uri: Of a UTF-8 text; a path or any fsspec URI that needs no options.

    Raises:
        ConfigError: It cannot be read, is larger than 20 MB, no UTF-8, or holds no word.
    """
    try:
        with fsspec.open(uri, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, ImportError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ConfigError(f"model.words: {uri} cannot be read ({reason})") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"model.words: {uri} is larger than {MOST_BYTES // 10**6} MB; shorten it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"model.words: {uri} is no UTF-8 text; save it as such") from None
    words = frozenset(_forms(text.split()))
    if not words:
        raise ConfigError(
            f"model.words: {uri} holds no word of {LEAST_CHARS} letters or digits or more"
        )
    return words


def words_sha256(words: frozenset[str]) -> str:
    """Of the words, whatever their order in a file."""
    return hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()


def _forms(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        for form in (_bare(word.lower()), text_key(word)):
            if len(form) >= LEAST_CHARS:
                yield form


def _bare(word: str) -> str:
    """Without what is neither letter nor digit at its ends."""
    kept = [i for i, character in enumerate(word) if character.isalnum()]
    return word[kept[0] : kept[-1] + 1] if kept else ""
