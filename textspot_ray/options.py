"""Short names of common settings: options of the command line and arguments of `api.run`.

One list, so that ``run``, ``plan``, ``submit`` and Python agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textspot_ray.config import RunConfig, load_config
from textspot_ray.errors import ConfigError, did_you_mean

KEYS: dict[str, str] = {
    "include": "source.include",
    "exclude": "source.exclude",
    "limit": "source.limit",
    "sample": "source.sample",
    "base": "source.base",
    "id_column": "source.id_column",
    "uri_column": "source.uri_column",
    "image_column": "source.image_column",
    "on_changed": "source.on_changed",
    "skip_duplicates": "source.skip_duplicates",
    "min_side": "image.min_side",
    "tiles": "image.tiles",
    "model": "model.name",
    "precision": "model.precision",
    "detection_threshold": "model.detection_threshold",
    "alphabet": "model.alphabet",
    "dictionary": "model.dictionary",
    "words": "model.words",
    "engine": "engine.kind",
    "address": "engine.address",
    "slots": "engine.slots",
    "threads": "engine.threads",
    "out": "output.uri",
    "unsafe_single_driver": "output.unsafe_single_driver",
}
STORAGE_OPTIONS = "storage_options"  # of the sources and of the output at once
_STORES = (f"source.{STORAGE_OPTIONS}", f"output.{STORAGE_OPTIONS}")


def config_of(
    sources: Iterable[str],
    options: Mapping[str, Any],
    *,
    config: str | None = None,
    overrides: Iterable[str] = (),
) -> RunConfig:
    """Merge a YAML file, ``section.key=value`` overrides and short options, the later ones winning.

    Args:
        sources: URIs to read; none leaves the file's.
        options: By the names in `KEYS`, or ``storage_options``; None means not given.
        config: Path of a YAML file.
        overrides: As ``--set`` takes them.

    Raises:
        ConfigError: A name, key or value is wrong; the nearest right one is named.
    """
    values: dict[str, Any] = {}
    if uris := list(sources):
        values["source.uris"] = uris
    for name, value in options.items():
        if name not in KEYS and name != STORAGE_OPTIONS:
            hint = did_you_mean(name, (*KEYS, STORAGE_OPTIONS))
            raise ConfigError(f"unknown option {name}{hint}")
        if value is None:
            continue
        for key in _STORES if name == STORAGE_OPTIONS else (KEYS[name],):
            values[key] = value
    return load_config(config, overrides, values)
