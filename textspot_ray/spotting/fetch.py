"""Brings a published model: its files verified, made into a bundle, published whole.

Facts about the published files are data (``data/published.yaml``); nothing here knows a model by
name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

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
from textspot_ray.spotting.download import (
    PATIENT,
    Patience,
    RemoteFile,
    copy_verified,
    digest,
    download,
)

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
    return files is not None and files.detector.xml.file.startswith("FP32/")


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
