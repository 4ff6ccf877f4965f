"""Tables as rows that two runs must agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textspot_ray.tables.open import open_tables

_VARIES = ("read_s", "decode_s", "detect_s", "recognise_s", "attempts", "run_id", "shard")


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    """Rows in the order of images, without what may differ from run to run."""
    found = open_tables(str(out)).read(table).to_pylist()
    for row in found:
        for name in _VARIES:
            row.pop(name, None)
    return sorted(found, key=lambda r: (r["image_id"], r.get("word_index", 0)))


def all_rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """All three tables."""
    return {table: rows(out, table) for table in ("words", "images", "errors")}
