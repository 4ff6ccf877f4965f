"""A look at a bundle's graphs before a run begins: readable, and of its family's contract."""

from __future__ import annotations

from textspot_ray.spotting.family import family_of
from textspot_ray.spotting.settings import Resolved


def check_graphs(resolved: Resolved) -> None:
    """Read the graphs and check their inputs and outputs, without compiling them.

    Right checksums only tell that the files are those that ``bundle.yaml`` names. Workers check
    the contract as they load, but by then a run has planned, recorded its settings, and begun to
    read images.

    Raises:
        BundleError: A graph cannot be read or breaks the contract; one line with file and cause.
    """
    family_of(resolved.bundle.spec).check_graphs(resolved)
