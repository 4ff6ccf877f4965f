"""Names that stay: canonical URIs, image ids, and names of members.

A canonical URI is percent-encoded, so that any file name (quotes, newlines, bytes that are no
UTF-8) is plain ASCII in a table, and decoding it gives the driver's path back. ``~`` is encoded
too: behind it comes the number of a repeated member, which then no name can imitate.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from textspot_ray.storage.filesystem import LOCAL, split_uri

_SAFE = "/-._!$&()+,;=:@"
_PLAIN = re.compile(r"[A-Za-z0-9/\-._!$&()+,;=:@]*\Z")
_PLAIN_BYTES = re.compile(_PLAIN.pattern.encode())
_URL_SAFE = "%/-._~!$&'()*+,;=:@?[]"
_WEB = ("http", "https")


def canonical(protocol: str, path: str) -> str:
    """Canonical URI of a driver's path.

    >>> canonical("file", "/data/my photos/50%.jpg")
    'file:///data/my%20photos/50%25.jpg'
    """
    if protocol in _WEB:  # a URL is encoded already; only what may not be in one is mended
        return quote(path.partition("#")[0], safe=_URL_SAFE)
    if protocol == LOCAL:
        return f"file://{encode(path)}"
    return f"{protocol}://{encode(path.lstrip('/') if protocol == 'memory' else path)}"


def locate(source: str) -> tuple[str, str]:
    """Protocol and driver's path of a canonical URI; the inverse of `canonical`.

    >>> locate("file:///data/my%20photos/50%25.jpg")
    ('file', '/data/my photos/50%.jpg')
    """
    protocol, rest = split_uri(source)
    if protocol in _WEB:
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
    """A member's name as found, for people: UTF-8, bytes that are none shown as ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def member_id(archive_id: str, raw: bytes, repeat: int = 1) -> str:
    """Id of an archive's member; the second of the same name ends in ``~2``.

    >>> member_id("s3://b/a.tar", b"x y.jpg", 2)
    's3://b/a.tar#x%20y.jpg~2'
    """
    tail = f"~{repeat}" if repeat > 1 else ""
    return f"{archive_id}#{encode_bytes(raw)}{tail}"


def without_base(image_id: str, base: str | None) -> str:
    """Take a canonical base (with a slash at its end) off an id that starts with it."""
    return image_id.removeprefix(base) if base else image_id


def canonical_base(base: str | None) -> str | None:
    """The canonical form of ``--base``: a path or URI prefix that names a folder."""
    if not base:
        return None
    protocol, rest = split_uri(base)
    if protocol == LOCAL:
        path = os.path.abspath(rest)  # noqa: PTH100 (Path.absolute keeps "..")
        return canonical(LOCAL, path).rstrip("/") + "/"
    if protocol in _WEB:
        return base.rstrip("/") + "/"
    return canonical(protocol, rest).rstrip("/") + "/"
