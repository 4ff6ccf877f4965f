"""A table for the pages: markup in words and names, pictures that are gone or have failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.support.insight_tables import word, write_run
from textspot_ray.records import Item, Word

EVIL = "<img src=x onerror=window.evil=1>"


def hostile_words(item: Item) -> list[Word]:
    """The word exit, the image's own, and an evil one."""
    number = int(re.findall(r"\d+", item.image_id)[-1])
    own = word(f"w{number}", 20, 90, confidence=0.3)
    return [word("exit", 20, 20, 90, 40), own, word(EVIL, 9, 200)]


def write_hostile_table(
    folder: Path, size: tuple[int, int] = (640, 480), more: Sequence[Word] = ()
) -> str:
    """30 images in ``src`` beside the table, one of them gone again, and two that failed.

    Args:
        folder: Where both are made.
        size: Width and height of the pictures.
        more: Words that every image has beside `hostile_words`.
    """
    source = folder / "src"
    source.mkdir()
    for n in range(30):
        cv2.imwrite(str(source / f"img_{n}.jpg"), np.full((size[1], size[0], 3), 8 * n, np.uint8))
    for name in ("broken_99.jpg", f"{EVIL.replace('/', '')}_98.jpg"):
        (source / name).write_bytes(b"\xff\xd8\xff no")
    write_run(str(folder / "out"), [str(source)], lambda item: [*hostile_words(item), *more])
    (source / "img_3.jpg").unlink()
    return str(folder / "out")
