"""Transcriptions tied to the place of their word: file, and the middle of the word in pixels.

A list that went by the order in which words are found would shift, silently, with any change of how
they are found.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textspot_ray.errors import SourceError

COLUMNS = ("file", "x", "y", "text")
REACH_PX = 3.0  # how far a word's middle may lie from its label's


@dataclass(frozen=True, slots=True)
class Label:
    """A transcription.

    Attributes:
        file: The photo's file name.
        middle: x and y of the word's middle, px of the photo.
        text: What it says, ``""`` or ``?`` where it cannot be read.
        where: File and line, for messages.
    """

    file: str
    middle: tuple[float, float]
    text: str
    where: str

    def nearest(self, middles: Sequence[tuple[float, float]]) -> int:
        """Which of the photo's words it belongs to.

        Raises:
            SourceError: None lies there: photos or masks are not those that were transcribed.
        """
        away = [float(np.abs(np.subtract(middle, self.middle)).max()) for middle in middles]
        if not away or min(away) >= REACH_PX:
            x, y = self.middle
            raise SourceError(
                f"{self.where}: no marked word at {x:g}, {y:g} of {self.file}; the photos, their "
                "masks or the way words are found in them changed: transcribe anew"
            )
        return int(np.argmin(away))


def read_labels(path: Path) -> list[Label]:
    """Read a tab-separated file with (at least) the columns of `COLUMNS`.

    Raises:
        SourceError: it is missing, lacks a column, or a place is no number.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; make it with python -m jobs.training labels")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise SourceError(f"{path}: the first line must name the columns {', '.join(COLUMNS)}")
        labels = []
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            try:
                middle = (float(row["x"]), float(row["y"]))
            except (TypeError, ValueError):
                raise SourceError(f"{where}: x and y are no numbers") from None
            labels.append(Label(row["file"], middle, (row["text"] or "").strip(), where))
    return labels
