"""What a cell of the matrix is, and the groups of cells there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Verdict(StrEnum):
    """What became of one file."""

    RIGHT = "right"
    REFUSED = "refused"  # an error row that names format and compression
    WRONG = "wrong"  # other content than the file's, or a false reason: a fault
    UNMADE = "not made"  # the tool is not installed or cannot write it: no cell


@dataclass(frozen=True, slots=True)
class Cell:
    """One file of the matrix.

    Attributes:
        kind: What it is, in the words of its format; cells of one kind share a row of the table.
        maker: Tool and version that wrote it.
        name: File name, unique in its group.
        verdict: How the product read it.
        detail: Largest difference in levels and from what; or the error's message.
    """

    kind: str
    maker: str
    name: str
    verdict: Verdict
    detail: str = ""


Group = Callable[[Path], Iterator[Cell]]
"""Makes files in a scratch folder, reads them with the product, and says how it went."""

GROUPS: dict[str, Group] = {}


def group(name: str) -> Callable[[Group], Group]:
    """Register a group under the name that ``--group`` takes."""

    def register(function: Group) -> Group:
        GROUPS[name] = function
        return function

    return register
