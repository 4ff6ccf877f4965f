"""Transcriptions tied to places."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training.data.located_labels import read_labels
from textspot_ray.errors import SourceError


def test_a_label_belongs_to_the_nearest_word(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_text('file\tx\ty\ttext\na.jpg\t10.5\t20\t"5-8 PM"\n')
    (label,) = read_labels(tmp_path / "l.tsv")
    assert (label.file, label.text) == ("a.jpg", '"5-8 PM"')
    assert label.nearest([(14.0, 20.0), (12.0, 20.0), (10.0, 21.0)]) == 2
    for middles in ([], [(10.5, 23.5)]):
        with pytest.raises(SourceError, match=r"l\.tsv, line 2: no marked word at 10\.5, 20 of a"):
            label.nearest(middles)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\tOne\n", "the first line must name the columns file, x, y, text"),
        ("file\tx\ty\ttext\na.jpg\t1\tno\tOne\n", "line 2: x and y are no numbers"),
        ("file\tx\ty\ttext\na.jpg\n", "line 2: x and y are no numbers"),
    ],
)
def test_another_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "l.tsv").write_text(content)
    with pytest.raises(SourceError, match=message):
        read_labels(tmp_path / "l.tsv")
