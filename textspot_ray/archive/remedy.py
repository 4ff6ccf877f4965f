"""What to do about a storage fault, told from the words of the provider's message."""

from __future__ import annotations

from typing import Final

# The first that matches.
_REMEDIES: Final = (
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


def remedy_of(message: str) -> str:
    """What to do about it; empty if nothing is known.

    >>> remedy_of("An error occurred (ExpiredToken) when calling ListObjectsV2")
    'the credentials have expired: sign in again'
    """
    low = message.lower()
    for words, remedy in _REMEDIES:
        if any(word.lower() in low for word in words):
            return remedy
    return ""


def remedy_for(error: BaseException) -> str:
    """The same, from an exception and the causes behind it."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(texts) < 8:
        texts.append(f"{type(link).__name__} {link}")
        link = link.__cause__ or link.__context__
    return remedy_of(" ".join(texts))
