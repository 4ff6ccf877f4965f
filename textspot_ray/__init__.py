"""Find and read every word in very large archives of images, and leave tables to query.

The names below are the public Python interface; each loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from textspot_ray._version import __version__

if TYPE_CHECKING:
    from textspot_ray import ray
    from textspot_ray.api import SpotResult, read, run, spot
    from textspot_ray.config import RunConfig, load_config
    from textspot_ray.query.opened import open_tables
    from textspot_ray.records import RunReport, Word
    from textspot_ray.spotting.spotter import TextSpotter

__all__ = [
    "RunConfig",
    "RunReport",
    "SpotResult",
    "TextSpotter",
    "Word",
    "__version__",
    "load_config",
    "open_tables",
    "ray",
    "read",
    "run",
    "spot",
]

_HOMES = {
    "RunConfig": "config",
    "RunReport": "records",
    "SpotResult": "api",
    "TextSpotter": "spotting.spotter",
    "Word": "records",
    "load_config": "config",
    "open_tables": "query.opened",
    "read": "api",
    "run": "api",
    "spot": "api",
}
_MODULES = ("ray",)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
