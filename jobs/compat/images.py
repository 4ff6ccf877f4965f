"""Groups of image files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jobs.compat import jpeg2000_kinds, other_kinds, png_kinds, tiff_kinds, tiff_tools
from jobs.compat.judge import Made, judge
from jobs.compat.registry import GROUPS, Cell, Group


def _group(name: str, *sources: Callable[[Path], Iterable[Made]]) -> Group:
    def run(folder: Path) -> Iterator[Cell]:
        for source in sources:
            for made in source(folder):
                (folder / f"{made.name}.{made.ending}").write_bytes(made.data)
                yield judge(made)

    GROUPS[name] = run
    return run


tiff = _group("tiff", lambda _: tiff_kinds.tifffile_kinds(), tiff_tools.tool_kinds)
jpeg2000 = _group("jpeg2000", jpeg2000_kinds.kinds)
png = _group("png", png_kinds.kinds)
other = _group("other", other_kinds.kinds)
