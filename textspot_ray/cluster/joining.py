"""Joining a Ray cluster, and what it means if that fails: one line that says what to do."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from textspot_ray.errors import UsageError

_KNOCK_S: Final = 10.0
_VERSIONS: Final = re.compile(r"Ray: (\S+)\s+Python: (\S+)", re.DOTALL)
_TOKEN_FILE: Final = Path("~/.ray/auth_token")


def join(address: str, **options: Any) -> None:
    """`ray.init` at an address, with every failure one line.

    Args:
        address: As `ray.init` takes it.
        options: More of its options.

    Raises:
        UsageError: Nothing listens there, the token or a version is wrong, or else Ray's words.
    """
    import ray

    knock(address)
    with _hushed() as said:
        try:
            ray.init(address=address, **options)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as exc:
            raise joining_fault(address, exc, said()) from exc


def knock(address: str) -> None:
    """Find out in seconds whether anything listens; Ray itself would try for minutes.

    Raises:
        UsageError: Nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # ``auto``
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as exc:
        raise UsageError(
            f"no Ray cluster answers at {address}: check the address and that the head runs ({exc})"
        ) from exc


def joining_fault(address: str, exc: BaseException, said: str = "") -> UsageError:
    """What a failure to join means.

    Args:
        address: Where to.
        exc: What Ray raised.
        said: What Ray wrote to the standard error meanwhile, which often says more.
    """
    text = f"{exc} {said}"
    pairs = _VERSIONS.findall(str(exc))
    if "ersion mismatch" in text and len(pairs) >= 2:
        (ray_there, python_there), (ray_here, python_here) = pairs[:2]
        return UsageError(
            f"the cluster at {address} runs Ray {ray_there} on Python {python_there}, this machine "
            f"Ray {ray_here} on Python {python_here}: install the cluster's versions here, or "
            "submit to its Jobs API: textspot submit"
        )
    if "InvalidAuthToken" in text or "authentication token" in text.lower():
        return UsageError(f"the cluster at {address} wants a token: {_token_advice()}")
    if address == "auto" and isinstance(exc, ConnectionError):
        return UsageError(
            "no Ray cluster runs on this machine: start one (ray start --head), name an address, "
            "or leave --address out to have one started"
        )
    line = " ".join(str(exc).split())[:300]
    if isinstance(exc, ConnectionError):
        return UsageError(
            f"what listens at {address} is no Ray head that lets us in: give the address of the "
            "head's GCS (port 6379 by default; 8265 is the dashboard's, for textspot submit), from "
            f"a machine on which Ray runs, or ray://HOST:10001 ({line})"
        )
    return UsageError(f"cannot join Ray at {address}: {line}")


def _token_advice() -> str:
    has_file = _TOKEN_FILE.expanduser().is_file() or "RAY_AUTH_TOKEN_PATH" in os.environ
    has_token = has_file or "RAY_AUTH_TOKEN" in os.environ
    uses_it = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if uses_it and has_token:
        return "the one in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token is not its own"
    if has_token:
        return "one is there, but Ray uses it only with RAY_AUTH_MODE=token: set that"
    return "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the cluster's"


@contextlib.contextmanager
def _hushed() -> Iterator[Callable[[], str]]:
    """Keep what Ray's native code writes to the standard error, to tell one line instead.

    What it wrote is passed on if all went well.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:

        def said() -> str:
            sys.stderr.flush()
            kept.seek(0)
            return kept.read().decode(errors="replace")

        own = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield said
            words = said().encode()
        finally:
            os.dup2(own, 2)
            os.close(own)
        if words:
            os.write(2, words)
