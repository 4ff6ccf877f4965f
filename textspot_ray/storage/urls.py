"""URLs without what must not be stored or shown: user info and signatures in query strings."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from textspot_ray.redaction import words

# Parameters of signatures, and others that grant access by themselves; lower case.
_SIGNATURE: Final = words(
    "signature sig hmac awsaccesskeyid googleaccessid key-pair-id hdnea hdnts __token__"
)
_SIGNATURE_PREFIXES: Final = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
_GRANTS: Final = words(
    "token access_token auth authorization auth_token api_key apikey api-key password passwd pwd "
    "secret credentials sas sessionid jwt oauth_token x-token id_token refresh_token "
    "client_secret subscription-key"
)
# What belongs to a signature and means nothing without it (Azure's SAS, CloudFront, S3 v2).
_COMPANIONS: Final = words(
    "se st sp sv sr spr sip ss srt skoid sktid skt ske sks skv sdd saoid suoid scid expires "
    "expiry exp policy"
)


def public_url(url: str, keep_grants: bool = False) -> str:
    """A URL without user info, without a signature, and without tokens and keys.

    Args:
        url: Any.
        keep_grants: Leave tokens and keys, which may be what tells two images apart; a signature
            never is.

    >>> public_url("https://me:pw@host/a.jpg?w=9&X-Amz-Signature=1f&X-Amz-Expires=60")
    'https://host/a.jpg?w=9'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    netloc = parts.netloc.rpartition("@")[2]
    pairs = parts.query.split("&")
    names = [unquote(pair.partition("=")[0]).lower() for pair in pairs]
    cut = {n for n in names if n in _SIGNATURE or n.startswith(_SIGNATURE_PREFIXES)}
    if cut:
        cut |= _COMPANIONS
    if not keep_grants:
        cut |= _GRANTS
    query = "&".join(p for p, name in zip(pairs, names, strict=True) if name not in cut)
    if netloc == parts.netloc and query == parts.query:
        return url
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


class UrlSecrets:
    """Restores what was cut from URLs, as far as the user's own source URIs have it.

    Nothing of it is stored: a process that reads gets the source URIs from its configuration.

    >>> UrlSecrets(["https://me:pw@host/l.csv"]).full("https://host/a.jpg")
    'https://me:pw@host/a.jpg'
    """

    def __init__(self, uris: list[str] | tuple[str, ...] = ()) -> None:
        self._exact: dict[str, str] = {}
        self._user_info: dict[str, str] = {}
        for uri in uris:
            if not uri.lower().startswith(("http://", "https://")):
                continue
            public = public_url(uri)
            if public == uri:
                continue
            self._exact[public] = uri
            parts = urlsplit(uri)
            user_info, at, host = parts.netloc.rpartition("@")
            if at:
                self._user_info[f"{parts.scheme}://{host}/"] = user_info

    def full(self, url: str) -> str:
        """The URL to ask for, from the one that is stored."""
        if url in self._exact:
            return self._exact[url]
        for origin, user_info in self._user_info.items():
            if url.startswith(origin):
                scheme, _, rest = url.partition("://")
                return f"{scheme}://{user_info}@{rest}"
        return url
