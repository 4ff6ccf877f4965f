"""Bundles by name: those in the package, published ones (fetched or installed), folders."""

from __future__ import annotations

from pathlib import Path

from textspot_ray.errors import BundleError, did_you_mean
from textspot_ray.spotting.bundle import (
    BUILT_IN,
    BUNDLE_FILE,
    PUBLISHED,
    Bundle,
    built_in_folder,
    cache_folder,
    read_spec,
)
from textspot_ray.spotting.ppocr import how_to_get, installed_bundle, names, undescribed_bundle


def published_names() -> tuple[str, ...]:
    """Names of all published models, of both families."""
    return (*PUBLISHED, *names())


def known_names() -> tuple[str, ...]:
    """All names that ``--model`` takes: of bundles in the package and of published models."""
    return (*BUILT_IN, *published_names())


def load_bundle(name: str, cache: Path | None = None) -> Bundle:
    """Find a bundle by name or folder and read its ``bundle.yaml`` (not yet its files).

    Args:
        name: ``embedded``, ``embedded-open``, a published model's name (searched in the
            cache and in the installed package that ships it), or a folder.
        cache: Instead of `cache_folder`.

    Raises:
        BundleError: There is no such bundle, or its description is wrong.
    """
    if name in BUILT_IN:
        folder = built_in_folder(name)
    elif name in published_names():
        folder = (cache or cache_folder()) / "models" / name
        if not (folder / BUNDLE_FILE).is_file():
            return _not_fetched(name)
    else:
        folder = Path(name)
        if not folder.is_dir():
            hint = did_you_mean(name, known_names())
            raise BundleError(
                f"no model {name!r}, nor a folder of that name"
                f"{hint or '; textspot models list names them'}"
            )
        if not (folder / BUNDLE_FILE).is_file():
            return _undescribed(folder)
    return Bundle(folder, read_spec(folder / BUNDLE_FILE))


def _undescribed(folder: Path) -> Bundle:
    """A folder without ``bundle.yaml`` whose file names say what they are."""
    bundle = undescribed_bundle(folder)
    if bundle is None:
        raise BundleError(
            f"no bundle at {folder}: it has no {BUNDLE_FILE}, nor one *det*.onnx and one *rec*.onnx"
        )
    return bundle


def _not_fetched(name: str) -> Bundle:
    """A published model from the installed package that ships it, if one does."""
    if name in PUBLISHED:
        raise BundleError(f"{name} is not here yet: textspot models fetch {name}")
    bundle = installed_bundle(name)
    if bundle is None:
        raise BundleError(how_to_get(name))
    return bundle
