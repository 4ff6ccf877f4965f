"""Numbers formatted for people, in the same way for commands and pages."""

from __future__ import annotations


def number(n: float) -> str:
    """A count with thousands separated."""
    return f"{n:,.0f}"


def counted(n: float, one: str, many: str | None = None) -> str:
    """A count and its noun.

    Args:
        n: How many.
        one: The noun of one.
        many: The noun of any other count; None = ``one`` with an s.

    >>> counted(1, "file"), counted(1200, "copy", "copies")
    ('1 file', '1,200 copies')
    """
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def byte_size(n: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"
