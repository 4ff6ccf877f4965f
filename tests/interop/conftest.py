"""A table over real pictures with odd names, whose words are known, to open with other programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.insight_tables import word, write_run
from textspot_ray.export.export import ExportSettings, export_table
from textspot_ray.export.formats import ExportReport
from textspot_ray.query.views import open_views
from textspot_ray.records import Item, Word

WIDTH, HEIGHT = 640, 480
NAMES = ("a b.jpg", "sub/café.png", "sub/50%.jpg")


def turned(text: str, x: float, y: float, width: float, height: float, degrees: float) -> Word:
    """A word whose text starts at x, y (its upper left corner) and runs at an angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    points = [(x + px * c - py * s, y + px * s + py * c) for px, py in corners]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return Word(
        text, 0.9, (0.9,) * len(text), 0.8, (min(xs), min(ys), max(xs), max(ys)),
        tuple(v for point in points for v in point), degrees,
    )  # fmt: skip


WORDS = (
    word("hello", 40, 40, 80, 24),
    word("world", 130, 40, 80, 24),
    turned("rising", 60, 250, 150, 30, -20),
    turned("steep", 420, 300, 120, 30, -70),
    turned("down", 500, 60, 100, 26, 90),
    turned("falling", 240, 330, 160, 28, 15),
)


def words_of(item: Item) -> tuple[Word, ...]:
    return WORDS


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        for found in WORDS:
            quad = np.reshape(found.polygon, (4, 2)).round().astype(np.int32)
            cv2.polylines(image, [quad], True, (0, 0, 0), 1)
        done, data = cv2.imencode(Path(name).suffix, image)
        assert done
        (folder / name).write_bytes(data.tobytes())
    return folder


@pytest.fixture
def export(pictures: Path, tmp_path: Path) -> Callable[..., ExportReport]:
    """Export the table of the pictures: ``export(format, out, **settings)``."""
    table = str(tmp_path / "table")
    write_run(table, [str(pictures)], words_of)

    def make(format: str, out: Path, **settings: object) -> ExportReport:
        with open_views(table) as tables:
            chosen = ExportSettings(**settings)  # type: ignore[arg-type]
            return export_table(tables, format, str(out), chosen)

    return make
