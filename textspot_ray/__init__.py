"""Find and read every word in very large archives of images, and leave tables to query.

The names below are the public Python interface; each loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from textspot_ray._version import __version__

if TYPE_CHECKING:
    from textspot_ray.config import RunConfig, load_config
    from textspot_ray.engine.run import run
    from textspot_ray.query.opened import open_tables
    from textspot_ray.records import RunReport, Word
    from textspot_ray.spotting.spotter import TextSpotter

__all__ = [
    "RunConfig",
    "RunReport",
    "TextSpotter",
    "Word",
    "__version__",
    "load_config",
    "open_tables",
    "run",
]

_HOMES = {
    "RunConfig": "config",
    "RunReport": "records",
    "TextSpotter": "spotting.spotter",
    "Word": "records",
    "load_config": "config",
    "open_tables": "query.opened",
    "run": "engine.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
