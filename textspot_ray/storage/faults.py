"""Storage faults: classified, retried where they are transient, explained in one line."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeVar

from textspot_ray.records import ErrorKind
from textspot_ray.redaction import redact_text

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class Fault(Enum):
    """What a storage exception means, whichever driver raised it."""

    MISSING = "missing"
    EXISTS = "exists"
    DENIED = "denied"
    FULL = "full"
    READ_ONLY = "read_only"
    TIMEOUT = "timeout"
    TRANSIENT = "transient"
    OTHER = "other"

    @property
    def is_transient(self) -> bool:
        """Whether trying again can help."""
        return self in (Fault.TIMEOUT, Fault.TRANSIENT)


_ERROR_KINDS = {
    Fault.MISSING: ErrorKind.MISSING,
    Fault.DENIED: ErrorKind.DENIED,
    Fault.TIMEOUT: ErrorKind.TIMEOUT,
}
_BY_ERRNO = {
    errno.ENOENT: Fault.MISSING,
    errno.ENOTDIR: Fault.MISSING,
    errno.EEXIST: Fault.EXISTS,
    errno.EACCES: Fault.DENIED,
    errno.EPERM: Fault.DENIED,
    errno.ENOSPC: Fault.FULL,
    errno.EDQUOT: Fault.FULL,
    errno.EFBIG: Fault.FULL,
    errno.EROFS: Fault.READ_ONLY,
    errno.ETIMEDOUT: Fault.TIMEOUT,
}
_TRANSIENT_ERRNO = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.EIO,
        errno.EREMOTEIO,
        errno.ESTALE,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EMFILE,
        errno.ENFILE,
    }
)
_BY_STATUS = {
    401: Fault.DENIED,
    403: Fault.DENIED,
    404: Fault.MISSING,
    408: Fault.TIMEOUT,
    409: Fault.TRANSIENT,  # S3: a conditional write in conflict with another, to be retried
    410: Fault.MISSING,
    412: Fault.EXISTS,
    425: Fault.TRANSIENT,
    429: Fault.TRANSIENT,
    504: Fault.TIMEOUT,
}
_BY_CODE = {
    "PreconditionFailed": Fault.EXISTS,
    "SlowDown": Fault.TRANSIENT,
    "ConditionalRequestConflict": Fault.TRANSIENT,
}
# Drivers raise their network library's own exceptions, which share no base class.
_NETWORK_WORDS = ("connect", "disconnect", "incomplete", "payload", "protocolerror", "transport")


def fault_of(exc: BaseException) -> Fault:
    """Classify an exception of a driver; looks through the chain of causes."""
    missing = False
    for link in _chain(exc):
        if isinstance(link, FileNotFoundError) and link.errno is None:
            missing = True  # fsspec calls any refusal of a web server so; the cause knows better
            continue
        found = _fault_of_one(link)
        if found is not Fault.OTHER:
            return found
    return Fault.MISSING if missing else Fault.OTHER


class SourceChangedError(OSError):
    """A file was written to, or replaced, while it was read; reading it again may do.

    Args:
        path: Driver's path of the file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBUSY, "it changed while it was read", path)


def error_kind(exc: BaseException) -> ErrorKind:
    """What a driver's exception is called in the errors table."""
    if any(isinstance(link, SourceChangedError) for link in _chain(exc)):
        return ErrorKind.CHANGED
    return _ERROR_KINDS.get(fault_of(exc), ErrorKind.STORAGE)


def reason_of(exc: BaseException) -> str:
    """One line that says what went wrong, without the path."""
    if isinstance(exc, FileNotFoundError) and exc.errno is None:
        exc = exc.__cause__ or FileNotFoundError("no such file")
    text = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
    return redact_text(" ".join(text.split()))[:300]


class SilentHostError(TimeoutError):
    """A host that has not answered for several requests in a row: not worth asking twice."""


@dataclass(slots=True)
class RetryTally:
    """How often something was tried again, for the metrics."""

    n: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try again: exponential back-off with full jitter.

    Attributes:
        attempts: Tries in all.
        base_s: Longest wait before the second try; doubles with each further one.
        max_wait_s: Longest single wait.
        tally: Counts what was tried again under this policy.
    """

    attempts: int = 5
    base_s: float = 0.2
    max_wait_s: float = 8.0
    tally: RetryTally = field(default_factory=RetryTally, compare=False, repr=False)

    def call(self, function: Callable[[], T]) -> T:
        """Call until it succeeds; a permanent fault, or that of the last try, is raised."""
        for attempt in range(self.attempts):
            try:
                return function()
            except Exception as exc:
                is_last = attempt + 1 >= self.attempts or isinstance(exc, SilentHostError)
                if is_last or not fault_of(exc).is_transient:
                    raise
            self.tally.n += 1
            # Full jitter keeps thousands of readers from coming back at the same moment.
            longest_s = min(self.max_wait_s, self.base_s * 2**attempt)
            time.sleep(random.uniform(0.0, longest_s))
        raise AssertionError("RetryPolicy.attempts must be at least 1")


class Contact:
    """Whether storage has ever answered; until it has, the first retry is logged.

    Its address may be wrong, and the user should not wait minutes to learn that.

    Args:
        name: Of the storage, for people.
        check: Called before the first request; raises if it would be in vain.

    Attributes:
        has_answered: It has, if only by a refusal.
    """

    def __init__(self, name: str, check: Callable[[], None] | None = None) -> None:
        self.has_answered = False
        self._name = name
        self._check = check
        self._was_told = False

    def watch(self, function: Callable[[], T]) -> Callable[[], T]:
        """The same function for `RetryPolicy.call`; how each try ends is noted."""

        def watched() -> T:
            try:
                if self._check is not None and not self.has_answered:
                    self._check()
                self._check = None
                done = function()
            except SilentHostError:
                raise
            except Exception as exc:
                if not fault_of(exc).is_transient:
                    self.has_answered = True
                elif not self.has_answered and not self._was_told:
                    self._was_told = True
                    _LOG.warning("%s does not answer, trying again: %s", self._name, reason_of(exc))
                raise
            self.has_answered = True
            return done

        return watched


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _fault_of_one(exc: BaseException) -> Fault:
    response = getattr(exc, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        code = str(response.get("Error", {}).get("Code", ""))
        if code in _BY_CODE:
            return _BY_CODE[code]
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and status >= 400:
            return _fault_of_status(status)
    if isinstance(exc, FileNotFoundError):
        return Fault.MISSING
    if isinstance(exc, FileExistsError):
        return Fault.EXISTS
    if isinstance(exc, PermissionError):
        return Fault.DENIED
    if isinstance(exc, TimeoutError):
        return Fault.TIMEOUT
    if isinstance(exc, ConnectionError):
        return Fault.TRANSIENT
    for name in ("status", "status_code", "code"):
        status = getattr(exc, name, None)
        if isinstance(status, int) and 400 <= status < 600:
            return _fault_of_status(status)
    # s3fs maps 412 to EINVAL and puts the answer in the cause: not decided by errno alone.
    if isinstance(exc, OSError) and exc.errno in _TRANSIENT_ERRNO:
        return Fault.TRANSIENT
    if isinstance(exc, OSError) and exc.errno in _BY_ERRNO:
        return _BY_ERRNO[exc.errno]
    name = type(exc).__name__.lower()
    if "timeout" in name:
        return Fault.TIMEOUT
    if not isinstance(exc, OSError) and any(word in name for word in _NETWORK_WORDS):
        return Fault.TRANSIENT
    return Fault.OTHER


def _fault_of_status(status: int) -> Fault:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Fault.TRANSIENT if status >= 500 else Fault.OTHER


# The first that matches.
_HINTS: Final = (
    (
        (
            "ExpiredToken",
            "token has expired",
            "TokenRefreshRequired",
            "RequestExpired",
            "invalid authentication credentials",  # Google's
            "Invalid Credentials",
            "Reauthentication is needed",
            "not valid in the specified time frame",  # Azure's signatures
        ),
        "the credentials have expired: sign in again",
    ),
    (
        (
            "locate credentials",
            "NoCredential",
            "DefaultCredentialsError",
            "Anonymous caller",
            "failed to retrieve a token",  # DefaultAzureCredential
        ),
        "give credentials: environment, profile, or the machine's role",
    ),
    (
        (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraint",
            "must be addressed using the specified endpoint",
            "(301)",
            "Moved Permanently",
        ),
        "the bucket is in another region: storage_options: {s3: {client_kwargs: {region_name: "
        "...}}}",
    ),
    (
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed"),
        "the credentials are wrong for this store or endpoint",
    ),
    (("RequestTimeTooSkewed",), "set this machine's clock (NTP)"),
    (
        ("NoSuchBucket", "ContainerNotFound", "bucket does not exist"),
        "make the bucket first, or correct its name",
    ),
    (
        ("AccessDenied", "Forbidden", "AuthorizationPermissionMismatch", "Permission", "denied"),
        "check permissions or credentials: grant this identity read and list, for an output also "
        "write and delete",
    ),
    (
        ("EndpointConnectionError", "ConnectorError", "Could not connect", "Cannot connect"),
        "check storage_options.*.endpoint_url and the network",
    ),
)


def hint_of(message: str) -> str:
    """What to do about it; empty if nothing is known.

    >>> hint_of("An error occurred (ExpiredToken) when calling ListObjectsV2")
    'the credentials have expired: sign in again'
    """
    low = message.lower()
    for words, hint in _HINTS:
        if any(word.lower() in low for word in words):
            return hint
    return ""


def hint_for(error: BaseException) -> str:
    """The same, from an exception and the causes behind it."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(texts) < 8:
        texts.append(f"{type(link).__name__} {link}")
        link = link.__cause__ or link.__context__
    return hint_of(" ".join(texts))


def reason_with_hint(error: BaseException, is_local: bool) -> str:
    """`reason_of`, and in brackets what to do about it where that is known.

    A local path has no provider, whose words would be looked for.
    """
    hint = "" if is_local else hint_for(error)
    if not hint and fault_of(error) is Fault.DENIED:
        hint = "check permissions or credentials"
    return f"{reason_of(error)} ({hint})" if hint else reason_of(error)
