"""Where Python looks for modules: not in the working folder, which may hold untrusted files.

``python -m`` and ``python -c`` put the current folder before everything else, and so does an empty
entry of PYTHONPATH. A folder of photographs with a ``cv2.py`` in it would be run by the program
that was asked to read it. A folder that PYTHONPATH names is there on purpose and stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

_PYTHONPATH = "PYTHONPATH"


def safe_path(
    entries: Iterable[str] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    """Module search path without the working folder, for this process or one that it starts.

    Args:
        entries: Default ``sys.path``.
        environ: Whose PYTHONPATH names folders to keep; default this process's.

    Returns:
        The entries in their order. The working folder is among them only if PYTHONPATH names it or
        if this package itself lies in it, as in a checkout.
    """
    here = os.path.realpath(os.curdir)
    named = (os.environ if environ is None else environ).get(_PYTHONPATH, "").split(os.pathsep)
    kept = {os.path.realpath(entry) for entry in [*filter(None, named), package_root()]}
    found = sys.path if entries is None else entries
    return [
        entry
        for entry in found
        if entry and (os.path.realpath(entry) != here or here in kept)  # "" is the working folder
    ]


def package_root() -> str:
    """The folder that this package is imported from."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def forget_working_folder() -> None:
    """Take the working folder off this process's search path, and off that of its children."""
    sys.path[:] = safe_path()
    if _PYTHONPATH in os.environ:
        named = filter(None, os.environ[_PYTHONPATH].split(os.pathsep))
        os.environ[_PYTHONPATH] = os.pathsep.join(named)
