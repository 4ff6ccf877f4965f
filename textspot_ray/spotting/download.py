"""Published models: verified downloads that become a bundle, written as a whole.

The published files are listed in ``data/published.yaml``; no model is named here. pooch does the
transfers, checksums and retries.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
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

OnBytes = Callable[[int], None]
_CHUNK_BYTES = 1 << 16
_LOCK_TIMEOUT_S = 3600.0  # for another fetch of the same model
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download, and how to verify it.

    Attributes:
        url: HTTP(S) address.
        name: File name, also the one looked for in a local folder.
        checksum: Hex digest; 64 digits are a sha256, 96 a sha384.
        size: Bytes; 0 where they are not published.
    """

    url: str
    name: str
    checksum: str
    size: int = 0

    @property
    def algorithm(self) -> str:
        """Name of the hash whose hex digest is as long as the checksum."""
        return {64: "sha256", 96: "sha384"}[len(self.checksum)]

    def is_intact(self, path: Path) -> bool:
        """Whether a file is there and is this one."""
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.checksum


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a download is tried.

    Attributes:
        attempts: Tries of a file; pooch waits 1, 2, 3 ... s between them.
        timeout_s: For connecting, and between two bytes.
    """

    attempts: int = 5
    timeout_s: float = 30.0


PATIENT = Patience()


class _Progress:
    """Adapts pooch's progress bar: passes on the bytes that have just arrived."""

    total = 0

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._seen = 0

    def update(self, count: int) -> None:
        self._seen += count
        self._on_bytes(count)

    def reset(self) -> None:
        self._on_bytes(-self._seen)
        self._seen = 0

    def close(self) -> None:
        pass


def bring(
    files: Iterable[RemoteFile],
    target: Path,
    *,
    origin: Path | None = None,
    patience: Patience = PATIENT,
    on_bytes: OnBytes = lambda n: None,
) -> None:
    """Download the files that a folder lacks; each appears there when it is complete and verified.

    Args:
        files: The files.
        target: The folder.
        origin: A folder that holds the files (anywhere below it), instead of their addresses.
        patience: Retries and time-outs.
        on_bytes: Called with the number of bytes that have just arrived or are already there;
            negative if they were discarded.

    Raises:
        BundleError: A file cannot be fetched, or is not the published one.
        OSError: It cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = target / file.name
        if not file.is_intact(path):
            if origin is None:
                _download(file, target, patience, on_bytes)
                continue
            _copy(file, origin, path)
        on_bytes(path.stat().st_size)


def _download(file: RemoteFile, target: Path, patience: Patience, on_bytes: OnBytes) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    for stray in target.glob("tmp*"):  # left by a killed download of pooch
        stray.unlink()
    progress = _Progress(on_bytes)
    http = pooch.HTTPDownloader(
        progressbar=progress,
        chunk_size=_CHUNK_BYTES,
        timeout=patience.timeout_s,
        headers={"Accept-Encoding": "identity"},
    )

    def attempt(url: str, output: Any, files: Any) -> None:
        progress.reset()
        try:
            http(url, output, files)
        except requests.HTTPError as exc:
            if exc.response.status_code in _RETRIED:
                raise
            raise BundleError(
                f"cannot fetch {url}: {_reason(exc)}; use --from with a mirror or a folder"
            ) from exc

    files = pooch.create(
        target,
        base_url="",
        registry={file.name: f"{file.algorithm}:{file.checksum}"},
        urls={file.name: file.url},
        retry_if_failed=patience.attempts - 1,
    )
    try:
        files.fetch(file.name, downloader=attempt)
    except requests.RequestException as exc:
        raise BundleError(
            f"cannot fetch {file.url}: {_reason(exc)}; check the network, or fetch it elsewhere "
            "and use --from DIR"
        ) from exc
    except ValueError as exc:  # pooch's, after the last try
        raise BundleError(
            f"{file.url} is not the published file: its {file.algorithm} differs; "
            "try later or use --from with a copy you trust"
        ) from exc


def _copy(file: RemoteFile, origin: Path, path: Path) -> None:
    """Copy from below a folder; files of several models share names, so the checksum decides."""
    candidates = sorted(found for found in origin.rglob(file.name) if found.is_file())
    right = next(filter(file.is_intact, candidates), None)
    if right is None:
        why = "differs from the published one" if candidates else "is not there"
        raise BundleError(f"--from {origin}: {path.parent.name} {file.name} {why}")
    partial = path.with_name(f"{path.name}.part")
    shutil.copyfile(right, partial)
    partial.replace(path)


def _reason(exc: requests.RequestException) -> str:
    import requests

    if exc.response is not None:
        return f"the server answered {exc.response.status_code}"
    if isinstance(exc, requests.Timeout):
        return "no answer in time"
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(exc, requests.ConnectionError):
        return "no connection"
    return type(exc).__name__


def origin_folder(origin: str | None) -> Path | None:
    """The folder that ``--from`` names; None for an address, or where nothing is given.

    Raises:
        BundleError: There is no such folder.
    """
    if origin is None or "://" in origin:
        return None
    if not Path(origin).is_dir():
        raise BundleError(f"--from {origin}: no such folder (addresses start with https://)")
    return Path(origin)


@contextlib.contextmanager
def locked_model(
    name: str, cache: Path | None = None, timeout_s: float = _LOCK_TIMEOUT_S
) -> Iterator[Path]:
    """A model's folder in the cache, locked against other fetchers.

    Args:
        name: The model's.
        cache: Instead of the user's cache folder.
        timeout_s: How long to wait for another fetcher.

    Raises:
        BundleError: Another fetch does not end, or the cache cannot be written.
    """
    models = (cache or cache_folder()) / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{name}.lock", timeout=timeout_s):
            try:
                yield models / name
            finally:  # remove empty folders, which would look like a model
                for folder in (*(models / name).glob("*/"), models / name):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
    except Timeout as exc:
        raise BundleError(f"another fetch of {name} does not end; try again later") from exc
    except OSError as exc:
        raise BundleError(f"cannot write to {models}: {exc.strerror or exc}") from exc


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
                files[f"{part}.{suffix}"] = RemoteFile(url, name, file["checksum"], file["size"])
        found[weights] = Published(model, weights, facts["path"].split("/")[0], files)
    return found


def fetch_model(
    model: str,
    weights: Sequence[str] = ("FP32",),
    *,
    origin: str | None = None,
    cache: Path | None = None,
    patience: Patience = PATIENT,
    on_bytes: OnBytes = lambda n: None,
    lock_timeout_s: float = _LOCK_TIMEOUT_S,
) -> Path:
    """Fetch a published model into the cache as a bundle.

    Files that are there already and intact are kept; two fetchers wait for each other.

    Args:
        model: Its name.
        weights: Sets of weights to fetch.
        origin: A local folder that holds the files (anywhere below it), or a mirror's address.
        cache: Instead of the user's cache folder.
        patience: Retries and time-outs.
        on_bytes: Called as bytes arrive, or are found to be there and intact; they add up to the
            sizes of the weights.
        lock_timeout_s: How long to wait for another fetcher of the same model.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: The model, a set of weights or a file is not available.
    """
    folder = origin_folder(origin)
    available = published_weights(model, None if folder else origin)
    for name in weights:
        if name not in available:
            raise BundleError(f"{model} has no {name} weights; it has {', '.join(available)}")
    with locked_model(model, cache, lock_timeout_s) as target:
        for published in (available[name] for name in weights):
            bring(
                published.files.values(),
                target / published.weights,
                origin=folder,
                patience=patience,
                on_bytes=on_bytes,
            )
            _describe(published, target)  # last: only files named by it are used
    return target


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
    except BundleError:  # none yet, or damaged: it is written again
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
