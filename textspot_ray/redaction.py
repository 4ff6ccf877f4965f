"""Which values of a configuration may be shown and stored: harmless ones, by an allow-list.

Credentials come in too many shapes to be known by their names (``connection_string``, ``headers``,
``pkey``, ``delegation`` ...). So an option's value is shown only if its name is known to be
harmless and the value has the form that such values have; everything else becomes ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus

REDACTED: Final = "***"


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# fsspec options that are switches or amounts: shown if the value is one, too
_AMOUNTS: Final = words(
    "anon asynchronous auto_mkdir block_size blocksize cache_regions cache_timeout "
    "check_connection connect_timeout connection_timeout default_block_size default_fill_cache "
    "encoded fixed_upload_size listings_expiry_time max_attempts max_concurrency max_paths "
    "max_pool_connections port read_timeout requester_pays requests_timeout same_scheme "
    "simple_links skip_instance_cache ssl tcp_keepalive timeout total_max_attempts trust_env "
    "use_listings_cache use_ssl verify version_aware"
)
# fsspec options that name a place or a mode
_NAMES: Final = words(
    "access account_host account_name addressing_style cache_type consistency "
    "default_cache_type default_location endpoint endpoint_override endpoint_url host location "
    "location_mode mode project protocol region region_name service_name signature_version "
    "size_policy ServerSideEncryption StorageClass"
)
# options that hold options
_SECTIONS: Final = frozenset({"client_kwargs", "config_kwargs", "retries", "s3_additional_kwargs"})
_S3_CONFIG: Final = "s3"  # of botocore's configuration, in config_kwargs
_NAME: Final = re.compile(r"[A-Za-z0-9._:/\[\]-]{0,253}")

# URL parameters that are needed to understand a link and give no access
_PARAMETERS: Final = words(
    "dl download format h height page limit raw size v version versionid w width"
)
# Schemes of stores and folders, where ``?`` is part of a name
_STORES: Final = frozenset(
    {"abfs", "abfss", "az", "file", "gcs", "gs", "local", "memory", "s3", "s3a"}
)
_CONTAINER_FIRST: Final = frozenset({"abfs", "abfss", "az", "wasb", "wasbs"})  # container@account
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^\s'\"<>`]*)")
_MIN_SECRET: Final = 4  # characters; shorter ones would blank half of every message


def redact_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """fsspec options by protocol, with every value blanked that is not known to be harmless.

    >>> redact_options({"s3": {"anon": False, "pass": "x", "endpoint_url": "http://me:x@minio"}})
    {'s3': {'anon': False, 'pass': '***', 'endpoint_url': 'http://***@minio'}}
    """
    return {
        redact_text(str(protocol)): _section(values) if isinstance(values, Mapping) else REDACTED
        for protocol, values in options.items()
    }


def redact_text(text: str) -> str:
    """Any text, with user info and parameters of the URLs in it blanked.

    >>> redact_text("403 for https://me:pw@host/a.tif?page=2&sig=8f3c, again")
    '403 for https://***@host/a.tif?page=2&sig=***, again'
    """
    return _URL.sub(_redact_match, text) if "://" in text else text


def unsafe_paths(before: Any, after: Any, path: str = "") -> list[str]:
    """Dotted paths of the values that redaction changed.

    Args:
        before: Plain nested dicts and lists.
        after: The same, redacted.
        path: Of the two themselves.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for (key, old), (shown, new) in zip(before.items(), after.items(), strict=True):
            where = f"{path}.{shown}" if path else str(shown)
            found += unsafe_paths(old, new, where) if str(key) == shown else [where]
        return found
    if isinstance(before, list) and isinstance(after, list):
        pairs = enumerate(zip(before, after, strict=True))
        return [one for n, (old, new) in pairs for one in unsafe_paths(old, new, f"{path}[{n}]")]
    return [] if before == after else [path]


class Redactor:
    """Removes one configuration's secrets from any text that is shown or stored.

    Drivers put what they were given into their exceptions: URLs, names, whole option values.

    Args:
        options: Storage options whose blanked values are to be found again in texts.
        uris: URIs whose user info and parameters are.
    """

    def __init__(self, options: Iterable[Mapping[str, Any]] = (), uris: Iterable[str] = ()) -> None:
        words: set[str] = set()
        for given in options:
            words |= _secrets(given, redact_options(given))
        for uri in uris:
            words |= _url_secrets(uri)
        forms = {form for word in words for form in _forms(word)}
        known = sorted((f for f in forms if len(f) >= _MIN_SECRET), key=lambda f: (-len(f), f))
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return redact_text(text)

    def scrub(self, error: BaseException) -> None:
        """Remove the secrets from an exception's arguments, in place."""
        error.args = tuple(self(arg) if isinstance(arg, str) else arg for arg in error.args)


def _section(options: Mapping[Any, Any], inside: str = "") -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key)
        nested = name in _SECTIONS or (name == _S3_CONFIG and inside == "config_kwargs")
        if isinstance(value, Mapping) and nested:
            shown[name] = _section(value, name)
        else:
            shown[name] = value if _is_harmless(name, value) else _shown_name(name, value)
    return shown


def _is_harmless(name: str, value: Any) -> bool:
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return True
    return name in _AMOUNTS and isinstance(value, (int, float))


def _shown_name(name: str, value: Any) -> str:
    if name not in _NAMES or not isinstance(value, str):
        return REDACTED
    shown = redact_text(value)
    plain = shown.replace(f"{REDACTED}@", "", 1).partition("?")[0]
    return shown if _NAME.fullmatch(plain) else REDACTED


def _redact_match(found: re.Match[str]) -> str:
    scheme = found["scheme"]
    name = scheme.removesuffix("://").lower()
    user_info, rest = _split_user_info(found["rest"])
    if user_info is not None:
        harmless = name in _CONTAINER_FIRST and ":" not in user_info
        scheme += f"{user_info if harmless else REDACTED}@"
    place, mark, tail = rest.partition("?")
    if not mark or name in _STORES:
        return scheme + rest
    parameters, fragment_mark, fragment = tail.partition("#")
    ending = re.search(r"[),.:;\]}]*\Z", parameters)  # of the sentence that the URL stands in
    end = ending[0] if ending is not None and not fragment_mark else ""
    parts = (parameters.removesuffix(end) if end else parameters).split("&")
    return (
        f"{scheme}{place}?{'&'.join(map(_redact_parameter, parts))}{end}{fragment_mark}{fragment}"
    )


def _split_user_info(rest: str) -> tuple[str | None, str]:
    """User info of what stands behind ``://``, None if there is none, and the remainder."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority:
        host, colon, port = authority.rpartition(":")
        if not colon or port.isdigit() or host.startswith("[") or "@" not in rest:
            return None, rest
        authority = rest  # a password with a slash or question mark in it
    user_info, _, _ = authority.rpartition("@")
    return user_info, rest[len(user_info) + 1 :]


def _redact_parameter(part: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        return REDACTED if part else part
    if name.lower() in _PARAMETERS and re.fullmatch(r"[\w.-]{0,40}", value):
        return part
    return f"{name}={REDACTED}" if value else part


def _secrets(value: Any, shown: Any) -> set[str]:
    """Texts in a value that are not in what may be shown of it."""
    if isinstance(value, Mapping):
        inside = shown if isinstance(shown, Mapping) else {}
        return {
            text for key, child in value.items() for text in _secrets(child, inside.get(str(key)))
        }
    if isinstance(value, (list, tuple, set)):
        return {text for child in value for text in _secrets(child, REDACTED)}
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value == shown or not isinstance(value, str):
        return set()
    if isinstance(shown, str) and shown != REDACTED:  # a URL of which a part is blanked
        return _url_secrets(value)
    # messages often repeat only a part of a connection string or of "Bearer ..."
    pieces = [piece.partition("=") for piece in re.split(r"[;,&@?\s]", value)]
    parts = {tail if equals else head for head, equals, tail in pieces}
    return {value, *(part for part in parts if len(part) >= 8), *_url_secrets(value)}


def _url_secrets(uri: str) -> set[str]:
    name, scheme, rest = uri.partition("://")
    if not scheme:
        return set()
    found: set[str] = set()
    user_info, rest = _split_user_info(rest)
    if user_info is not None and (":" in user_info or name.lower() not in _CONTAINER_FIRST):
        found |= {user_info, user_info.partition(":")[2]}
    if name.lower() not in _STORES:
        for part in rest.partition("?")[2].partition("#")[0].split("&"):
            if _redact_parameter(part) != part:
                found.add(part.partition("=")[2] or part)
    return found - {""}


def _forms(word: str) -> set[str]:
    return {word, quote(word, safe=""), quote(word), unquote(word), unquote_plus(word)}
