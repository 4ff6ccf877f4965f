"""Stable names: canonical URIs, image ids, names of members; and which ids are taken.

A canonical URI is percent-encoded, so that any file name (quotes, newlines, bytes that are no
UTF-8) is plain ASCII in a table, and decoding it gives the driver's path back. ``~`` is encoded
too: it marks the number of a repeated member, which no name can imitate then.
"""

from __future__ import annotations

import os
import re
from array import array
from enum import Enum
from hashlib import blake2b
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from textspot_ray.storage.filesystem import LOCAL, WEB, split_uri
from textspot_ray.storage.urls import public_url

_SAFE = "/-._!$&()+,;=:@"
_PLAIN = re.compile(r"[A-Za-z0-9/\-._!$&()+,;=:@]*\Z")
_PLAIN_BYTES = re.compile(_PLAIN.pattern.encode())
_URL_SAFE = "%/-._~!$&'()*+,;=:@?[]"
_FIRST_SLOTS = 1 << 10
_MAX_LOAD = 0.67
_RESERVED = re.compile(r"#(?:page|image)=\d+\Z|#~")


def canonical(protocol: str, path: str, keep_secrets: bool = False) -> str:
    """Canonical URI of a driver's path.

    Args:
        protocol: The driver's.
        path: As the driver wants it.
        keep_secrets: Leave user info and signatures in URLs, which else are cut.

    >>> canonical("file", "/data/my photos/50%.jpg")
    'file:///data/my%20photos/50%25.jpg'
    """
    if protocol in WEB:  # a URL is encoded already; only what may not stand in one is encoded
        url = quote(path.partition("#")[0], safe=_URL_SAFE)
        return url if keep_secrets else public_url(url)
    if protocol == LOCAL:
        return f"file://{encode(path)}"
    return f"{protocol}://{encode(path.lstrip('/') if protocol == 'memory' else path)}"


def locate(source: str) -> tuple[str, str]:
    """Protocol and driver's path of a canonical URI; the inverse of `canonical`.

    >>> locate("file:///data/my%20photos/50%25.jpg")
    ('file', '/data/my photos/50%.jpg')
    """
    protocol, rest = split_uri(source)
    if protocol in WEB:
        return protocol, source
    path = os.fsdecode(unquote_to_bytes(rest))
    return protocol, f"/{path}" if protocol == "memory" else path


def encode(text: str) -> str:
    """Percent-encode a path or name (surrogates stand for bytes that are no UTF-8)."""
    if _PLAIN.match(text):
        return text
    return encode_bytes(text.encode("utf-8", "surrogateescape"))


def encode_bytes(raw: bytes) -> str:
    """Percent-encode the bytes of a name."""
    if _PLAIN_BYTES.match(raw):
        return raw.decode("ascii")
    return quote_from_bytes(raw, safe=_SAFE).replace("~", "%7E")


def member_text(raw: bytes) -> str:
    """A member's name as found, for people: UTF-8, other bytes shown as ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def member_id(archive_id: str, raw: bytes) -> str:
    """Id of an archive's member, from the name as stored; `RepeatedNames` numbers equal ones.

    >>> member_id("s3://b/a.tar", b"x y.jpg")
    's3://b/a.tar#x%20y.jpg'
    """
    return f"{archive_id}#{encode_bytes(raw)}"


def canonical_base(base: str | None) -> str | None:
    """The canonical form of ``--base``: a path or URI prefix that names a folder."""
    if not base:
        return None
    protocol, rest = split_uri(base)
    if protocol == LOCAL:
        path = os.path.abspath(rest)  # noqa: PTH100 (Path.absolute keeps "..")
        return canonical(LOCAL, path).rstrip("/") + "/"
    if protocol in WEB:
        return base.rstrip("/") + "/"
    return canonical(protocol, rest).rstrip("/") + "/"


def id_problem(image_id: str) -> str | None:
    """What is wrong with an id of the user's; None if nothing is.

    >>> id_problem("scan-2") is None
    True
    """
    if _RESERVED.search(image_id):
        return f"the id {image_id!a} looks like one that pages and rows of an image get (#page=N)"
    return None


class Taken(Enum):
    """What is known of an id."""

    NEW = "new"
    SAME = "same"  # taken by the same owner
    OTHER = "other"


class IdMap:
    """Which ids are taken, and by which owner; both by 64-bit hashes, in flat tables.

    Some 24 bytes per id, for archives of tens of millions of images. Two different ids are taken
    for one with a chance of n²/2⁶⁵: 3·10⁻⁶ for ten million.
    """

    def __init__(self) -> None:
        self._keys = array("Q", bytes(8 * _FIRST_SLOTS))
        self._owners = array("Q", bytes(8 * _FIRST_SLOTS))
        self._mask = _FIRST_SLOTS - 1
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def take(self, image_id: str, owner: str = "") -> Taken:
        """Take an id for an owner, unless it is taken."""
        key, mine = _hash(image_id), _hash(owner)
        at = self._slot(key)
        if self._keys[at]:
            return Taken.SAME if self._owners[at] == mine else Taken.OTHER
        self._keys[at], self._owners[at] = key, mine
        self._count += 1
        if self._count > _MAX_LOAD * (self._mask + 1):
            self._grow()
        return Taken.NEW

    def _slot(self, key: int) -> int:
        """Where a key is, or may be put."""
        at = key & self._mask
        while self._keys[at] not in (0, key):
            at = (at + 1) & self._mask
        return at

    def _grow(self) -> None:
        keys, owners = self._keys, self._owners
        slots = 2 * (self._mask + 1)
        self._keys, self._owners = array("Q", bytes(8 * slots)), array("Q", bytes(8 * slots))
        self._mask = slots - 1
        for key, owner in zip(keys, owners, strict=True):
            if key:
                at = self._slot(key)
                self._keys[at], self._owners[at] = key, owner


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1  # zero marks an empty slot


class RepeatedNames:
    """Numbers names that come again: ``a``, ``a~2``, ``a~3``."""

    def __init__(self) -> None:
        self._seen = IdMap()
        self._repeats: dict[str, int] = {}

    def name(self, name: str) -> str:
        """The name, with a number unless it is the first of its kind."""
        if self._seen.take(name) is Taken.NEW:
            return name
        self._repeats[name] = self._repeats.get(name, 1) + 1
        return f"{name}~{self._repeats[name]}"
