"""One verified file over HTTP or from a folder: resumed, retried, checked, published whole."""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textspot_ray.errors import BundleError

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = 1 << 16  # what is lost at most when a transfer breaks off
# 416 comes from a server whose copy is shorter than what is here already
_RETRIED = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
_PROGRESS_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to be had, and how to know that it is the right one.

    Attributes:
        url: HTTP(S) address.
        name: File name, also the one looked for in a local folder.
        size: Bytes.
        checksum: Hex digest; 64 digits are a sha256, 96 a sha384.
    """

    url: str
    name: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download is tried.

    Attributes:
        attempts: Tries in a row that bring next to nothing; progress starts the count anew.
        back_off_s: Wait after the first failure; doubles, with jitter, up to 30 s.
        timeout_s: For connecting, and between two bytes.
    """

    attempts: int = 5
    back_off_s: float = 1.0
    timeout_s: float = 30.0


PATIENT = Patience()


class _Transient(Exception):
    """Worth another try."""


def digest(path: Path, like: str) -> str:
    """The file's digest by the algorithm whose hex digest is as long as ``like``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm(like)).hexdigest()


def algorithm(checksum: str) -> str:
    """Name of the hash whose hex digest has that length."""
    return {64: "sha256", 96: "sha384"}[len(checksum)]


def download(
    file: RemoteFile,
    target: Path,
    *,
    session: requests.Session,
    patience: Patience = PATIENT,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """Bring a file to ``target``, which exists only once its size and checksum are right.

    A partial file beside the target (``.part``) is resumed by a range request. A file that is whole
    but wrong is fetched anew once, since a damaged partial may be the cause.

    Args:
        file: What to fetch.
        target: Final path.
        session: A `requests.Session`.
        patience: Retries and time-outs.
        on_bytes: Called with the bytes that have just arrived; negative when they were discarded.

    Raises:
        BundleError: The file cannot be had, or what is served is not it.
    """
    partial = target.with_name(target.name + ".part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for fresh in (False, True):
        if fresh:
            on_bytes(-partial.stat().st_size)
            partial.unlink()
        _fill(file, partial, session, patience, on_bytes)
        if digest(partial, file.checksum) == file.checksum:
            partial.replace(target)
            return
    partial.unlink()
    raise BundleError(
        f"{file.url} is not the published file: its {algorithm(file.checksum)} differs; "
        "try later or use --from with a copy you trust"
    )


def copy_verified(file: RemoteFile, source: Path, target: Path) -> None:
    """Copy a local file and publish it once its checksum is right.

    Raises:
        BundleError: The copy's checksum differs.
    """
    partial = target.with_name(target.name + ".part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, partial)
    if digest(partial, file.checksum) != file.checksum:
        partial.unlink()
        raise BundleError(f"{source} is not the published file: its checksum differs")
    partial.replace(target)


def _fill(
    file: RemoteFile,
    partial: Path,
    session: requests.Session,
    patience: Patience,
    on_bytes: Callable[[int], None],
) -> None:
    """Append to the partial file until it has the stated size."""
    on_bytes(partial.stat().st_size if partial.exists() else 0)
    failures = 0
    while (have := partial.stat().st_size if partial.exists() else 0) != file.size:
        if have > file.size:  # a stale partial of another file
            on_bytes(-have)
            partial.unlink()
            continue
        try:
            _append(file, partial, have, session, patience, on_bytes)
            reason = "the server ended the transfer early"
        except _Transient as exc:
            reason = str(exc)
        now = partial.stat().st_size if partial.exists() else 0
        if now == file.size:
            return
        failures = 0 if now - have >= _PROGRESS_BYTES else failures + 1
        if failures >= patience.attempts:
            raise BundleError(
                f"cannot fetch {file.url}: {reason}; check the network, or fetch it elsewhere and "
                "use --from DIR"
            )
        pause = min(30.0, patience.back_off_s * 2 ** max(failures - 1, 0))
        time.sleep(pause * random.uniform(0.5, 1.0))


def _append(
    file: RemoteFile,
    partial: Path,
    have: int,
    session: requests.Session,
    patience: Patience,
    on_bytes: Callable[[int], None],
) -> None:
    import requests
    import urllib3

    # identity: a compressed transfer would make byte ranges and sizes meaningless
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with session.get(
            file.url, headers=headers, stream=True, timeout=patience.timeout_s
        ) as response:
            _check_status(file, response)
            if have and response.status_code != 206:  # no ranges here: start over
                on_bytes(-have)
                partial.unlink()
                have = 0
            with partial.open("ab") as out:
                for chunk in response.iter_content(CHUNK_BYTES):
                    room = file.size - have
                    out.write(chunk[:room])
                    on_bytes(min(len(chunk), room))
                    have += min(len(chunk), room)
                    if len(chunk) > room:
                        # longer than published: the checksum will tell whether the start is it
                        return
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        if isinstance(exc, OSError) and not isinstance(exc, requests.RequestException):
            raise BundleError(f"cannot write {partial}: {exc.strerror or exc}") from exc
        raise _Transient(_short(exc)) from exc


def _check_status(file: RemoteFile, response: requests.Response) -> None:
    if response.status_code in _RETRIED:
        raise _Transient(f"the server answered {response.status_code}")
    if response.status_code not in (200, 206):
        raise BundleError(
            f"cannot fetch {file.url}: the server answered {response.status_code}; "
            "use --from with a mirror or a folder"
        )


def _short(exc: Exception) -> str:
    import requests

    if isinstance(exc, requests.Timeout):
        return "no answer in time"
    if isinstance(exc, requests.ConnectionError):
        return "no connection"
    return type(exc).__name__
