"""Published models: verified downloads, made into a bundle, published as a whole folder.

Facts about the published files are data (``data/published.yaml``); nothing here knows a model by
name.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import (
    BUNDLE_FILE,
    PARTS,
    BundleSpec,
    ModelFiles,
    cache_folder,
    describe_files,
    read_spec,
    write_spec,
)

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


def remote_size(url: str, session: requests.Session, timeout_s: float = 30.0) -> int:
    """Bytes of a file whose size is not published.

    Raises:
        BundleError: The server does not answer, or does not tell.
    """
    import requests

    try:
        headers = {"Accept-Encoding": "identity"}
        with session.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
            response.raise_for_status()
            return int(response.headers["Content-Length"])
    except requests.HTTPError as exc:
        raise BundleError(
            f"cannot fetch {url}: the server answered {exc.response.status_code}; "
            "use --from with a mirror or a folder"
        ) from exc
    except (requests.RequestException, KeyError, ValueError) as exc:
        reason = _short(exc) if isinstance(exc, requests.RequestException) else "no size is told"
        raise BundleError(
            f"cannot fetch {url}: {reason}; check the network, or fetch it elsewhere and use "
            "--from DIR"
        ) from exc


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


# a published set of weights and the precision it serves; a later one in the list wins
SERVES = {"FP16": "f32", "FP32": "f32", "FP16-INT8": "int8"}
LETTERS_FIRST = "abcdefghijklmnopqrstuvwxyz0123456789"
_OMZ_PARTS = {
    "detector": "detector",
    "encoder": "recognizer-encoder",
    "decoder": "recognizer-decoder",
}


@dataclass(frozen=True, slots=True)
class Published:
    """One published set of weights of a model.

    Attributes:
        model: Its name.
        weights: FP32, FP16 or FP16-INT8.
        release: Of the Open Model Zoo.
        files: By part and suffix (``detector.xml`` ...).
    """

    model: str
    weights: str
    release: str
    files: dict[str, RemoteFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def published_weights(model: str, origin: str | None = None) -> dict[str, Published]:
    """The published sets of weights of a model.

    Args:
        model: Its name.
        origin: Address of a mirror that keeps the published paths, instead of the publisher's.

    Raises:
        BundleError: No such model is published.
    """
    data = _facts()
    if model not in data["models"]:
        raise BundleError(f"no published model {model!r}; there are {', '.join(data['models'])}")
    root = (origin or data["root"]).rstrip("/") + "/"
    found = {}
    for weights, facts in data["models"][model]["weights"].items():
        files = {}
        for part in PARTS:
            stem = f"{model}-{_OMZ_PARTS[part]}"
            for suffix, file in facts[part].items():
                name = f"{stem}.{suffix}"
                url = f"{root}{facts['path']}/{model}/{stem}/{weights}/{name}"
                files[f"{part}.{suffix}"] = RemoteFile(url, name, file["size"], file["checksum"])
        found[weights] = Published(model, weights, facts["path"].split("/")[0], files)
    return found


def fetch_model(
    model: str,
    weights: Sequence[str] = ("FP32",),
    *,
    origin: str | None = None,
    cache: Path | None = None,
    patience: Patience = PATIENT,
    on_bytes: Callable[[Published, int], None] = lambda published, n: None,
    lock_timeout_s: float = 3600.0,
) -> Path:
    """Fetch a published model into the cache as a bundle.

    What is there already and intact is kept; interrupted downloads go on where they stopped; two
    fetchers wait for each other.

    Args:
        model: Its name.
        weights: Sets of weights to bring.
        origin: A local folder that holds the files (anywhere below it), or a mirror's address.
        cache: Instead of the user's cache folder.
        patience: Retries and time-outs.
        on_bytes: Called as bytes arrive, or are found to be there and intact; they add up to
            `Published.size`.
        lock_timeout_s: How long to wait for another fetcher of the same model.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: The model, a set of weights or a file cannot be had.
    """
    folder = Path(origin) if origin and "://" not in origin else None
    if folder is not None and not folder.is_dir():
        raise BundleError(f"--from {origin}: no such folder (addresses start with https://)")
    available = published_weights(model, None if folder else origin)
    for name in weights:
        if name not in available:
            raise BundleError(f"{model} has no {name} weights; it has {', '.join(available)}")
    models = (cache or cache_folder()) / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{model}.lock", timeout=lock_timeout_s):
            for name in weights:
                _bring(available[name], models, folder, patience, on_bytes)
    except Timeout as exc:
        raise BundleError(f"another fetch of {model} does not end; try again later") from exc
    except OSError as exc:
        raise BundleError(f"cannot write to {models}: {exc.strerror or exc}") from exc
    return models / model


def _bring(
    published: Published,
    models: Path,
    folder: Path | None,
    patience: Patience,
    on_bytes: Callable[[Published, int], None],
) -> None:
    """Bring what one set of weights lacks and add the set to the model's bundle."""
    final = models / published.model / published.weights
    lacking = []
    for file in published.files.values():
        if _intact(file, final):
            on_bytes(published, file.size)
        else:
            lacking.append(file)
    if lacking:
        incoming = models / ".incoming" / published.model / published.weights
        incoming.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            _copy(published, lacking, folder, incoming, on_bytes)
        else:
            _download(published, lacking, incoming, patience, on_bytes)
        if final.exists():  # damaged: each file is put right by itself
            for file in lacking:
                (incoming / file.name).replace(final / file.name)
            shutil.rmtree(incoming)
        else:
            final.parent.mkdir(parents=True, exist_ok=True)
            incoming.replace(final)
    _describe(published, final.parent)


def _download(
    published: Published,
    lacking: Sequence[RemoteFile],
    incoming: Path,
    patience: Patience,
    on_bytes: Callable[[Published, int], None],
) -> None:
    import requests

    with requests.Session() as session:
        for file in lacking:
            if _intact(file, incoming):  # arrived before an interruption
                on_bytes(published, file.size)
                continue
            download(
                file,
                incoming / file.name,
                session=session,
                patience=patience,
                on_bytes=lambda n: on_bytes(published, n),
            )


def _copy(
    published: Published,
    lacking: Sequence[RemoteFile],
    folder: Path,
    incoming: Path,
    on_bytes: Callable[[Published, int], None],
) -> None:
    """Copy from a local folder; FP32 and FP16 files share names, so the checksum decides."""
    for file in lacking:
        candidates = [
            path
            for path in sorted(folder.rglob(file.name))
            if path.is_file() and path.stat().st_size == file.size
        ]
        right = [p for p in candidates if digest(p, file.checksum) == file.checksum]
        if not right:
            why = "differs from the published one" if candidates else "is not there"
            raise BundleError(f"--from {folder}: {published.weights} {file.name} {why}")
        copy_verified(file, right[0], incoming / file.name)
        on_bytes(published, file.size)


def _intact(file: RemoteFile, folder: Path) -> bool:
    path = folder / file.name
    return path.is_file() and digest(path, file.checksum) == file.checksum


def _describe(published: Published, folder: Path) -> None:
    """Write or extend the model's bundle.yaml."""
    facts = _facts()["models"][published.model]
    names = {
        part: (
            f"{published.weights}/{published.files[f'{part}.xml'].name}",
            f"{published.weights}/{published.files[f'{part}.bin'].name}",
        )
        for part in PARTS
    }
    files = describe_files(folder, names)
    spec = BundleSpec(
        name=published.model,
        version=published.release,
        alphabet=LETTERS_FIRST,
        precisions={},
        detection_threshold=facts["detection_threshold"],
        graph_threshold=facts["detection_threshold"],
        text_threshold=facts["text_threshold"],
        licence="Apache-2.0",
        provenance={"publisher": "Open Model Zoo", "root": _facts()["root"]},
        accuracy=facts["accuracy"],
    )
    have = _present(folder)
    precision = SERVES[published.weights]
    # FP32 files are kept for f32 when the FP16 ones come later
    if not (published.weights == "FP16" and _is_fp32(have.get("f32"))):
        have = {**have, precision: files}
    default = "f32" if "f32" in have else next(iter(have))
    write_spec(folder, replace(spec, precisions=have, default_precision=default))


def _is_fp32(files: ModelFiles | None) -> bool:
    return files is not None and files["detector"].graph.file.startswith("FP32/")


def _present(folder: Path) -> dict[str, ModelFiles]:
    """Precisions of an earlier fetch whose files are still there."""
    try:
        stored = read_spec(folder / BUNDLE_FILE).precisions
    except BundleError:  # none yet, or damaged: it is written anew
        return {}
    return {
        precision: files
        for precision, files in stored.items()
        if all((folder / file.file).is_file() for file in files.files())
    }


def _facts() -> dict[str, Any]:
    text = resources.files("textspot_ray.spotting").joinpath("data/published.yaml").read_text()
    data: dict[str, Any] = yaml.safe_load(text)
    return data
