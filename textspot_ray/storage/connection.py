"""Whether an object store's host takes connections at all, found out within seconds.

Drivers try again within their own tries: of an address where nobody listens s3fs tells after
minutes. That is right in the middle of a run, and wrong before anything has answered.
"""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from textspot_ray.redaction import redact_text
from textspot_ray.storage.faults import SilentHostError, reason_of

_TRIES = 3
_PAUSE_S = 1.0
_CONNECT_S = 5.0  # as s3fs gives a connection


def check_connection(fs: Any) -> None:
    """Connect to the host of an fsspec file system, where it tells of one.

    Args:
        fs: Of S3, Google's or Azure's store; of any other nothing is asked.

    Raises:
        SilentHostError: None of a few tries got a connection.
    """
    url = _endpoint_of(fs)
    parts = urlsplit(url or "")
    if not parts.hostname or _goes_by_proxy(fs, parts.scheme, parts.hostname):
        return
    port = parts.port or (80 if parts.scheme == "http" else 443)
    for left in reversed(range(_TRIES)):
        try:
            socket.create_connection((parts.hostname, port), _CONNECT_S).close()
            return
        except OSError as exc:
            if not left:
                shown = redact_text(f"{parts.scheme}://{parts.hostname}:{port}")
                raise SilentHostError(f"Cannot connect to {shown}: {reason_of(exc)}") from exc
        time.sleep(_PAUSE_S)


def _endpoint_of(fs: Any) -> str | None:
    """Where a driver sends its requests; None if it does not tell, or cannot be set up.

    What keeps it from being set up (a missing profile) is told by the first request.
    """
    with contextlib.suppress(Exception):
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if "s3" in protocols:
            return str(fs.s3.meta.endpoint_url)
        if "gs" in protocols:
            return str(fs._location)
        if "az" in protocols or "abfs" in protocols:
            return str(fs.service_client.url)
    return None


def _goes_by_proxy(fs: Any, scheme: str, host: str) -> bool:
    if (getattr(fs, "config_kwargs", None) or {}).get("proxies"):
        return True
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
