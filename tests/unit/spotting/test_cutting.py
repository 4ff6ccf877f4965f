"""Passes that show more than they can tell are cut until none is left, and never for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from textspot_ray.records import Detection
from textspot_ray.spotting.cutting import MAX_PARTS, cut, look_closer
from textspot_ray.spotting.tiling import TileWindow

INPUT = (1280, 768)


@dataclass(frozen=True)
class Look:
    detections: Sequence[Detection]
    saturated: bool


def shrink_of(width: int, height: int) -> float:
    return max(width / INPUT[0], height / INPUT[1])


def window(width: int, height: int) -> TileWindow:
    return TileWindow(0, 0, width, height, shrink_of(width, height))


def word(x: float, y: float, height: float = 10.0) -> Detection:
    box = (x, y, x + 3 * height, y + height)
    return Detection(0.9, box, (box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]), 0)


class Page:
    """Words on a lattice; a pass shows at most `rows` of those in its window."""

    def __init__(self, words: Sequence[Detection], rows: int) -> None:
        self.words, self.rows = words, rows
        self.passes: list[TileWindow] = []

    def look(self, at: TileWindow) -> Look:
        self.passes.append(at)
        inside = [
            w
            for w in self.words
            if at.x <= w.box[0] and w.box[2] <= at.x + at.width
            and at.y <= w.box[1] and w.box[3] <= at.y + at.height
        ]  # fmt: skip
        return Look(inside[: self.rows], len(inside) >= self.rows)


def dense(columns: int, rows: int, height: float = 10.0) -> list[Detection]:
    return [word(12 + 40 * i, 5 + 18 * j, height) for i in range(columns) for j in range(rows)]


def test_a_page_of_too_many_words_is_cut_until_all_are_seen() -> None:
    words = dense(30, 40)
    page = Page(words, rows=100)
    made, lost = look_closer([window(1280, 768)], page.look, shrink_of, 0.2)
    assert not lost
    seen = {d.box for _, found in made for d in found.detections}
    assert seen == {w.box for w in words}
    assert made[0][0] == window(1280, 768)


def test_a_page_within_the_limit_is_looked_at_once() -> None:
    page = Page(dense(9, 11), rows=100)
    made, lost = look_closer([window(1280, 768)], page.look, shrink_of, 0.2)
    assert len(made) == len(page.passes) == 1 and not lost


def test_what_stays_too_dense_is_told_and_does_not_go_on_for_ever() -> None:
    crowd = [word(100 + 0.01 * i, 100) for i in range(500)]
    made, lost = look_closer([window(1280, 768)], Page(crowd, 100).look, shrink_of, 0.2)
    assert lost and len(made) < 20

    def full(_: TileWindow) -> Look:
        return Look((), True)

    made, lost = look_closer([window(12800, 7680)] * 9, full, shrink_of, 0.2)
    assert lost and len(made) <= 9 + MAX_PARTS


def test_many_low_words_are_looked_at_more_closely_and_few_are_not() -> None:
    many, few = Page(dense(10, 8), 300), Page(dense(5, 5), 300)
    made, _ = look_closer([window(1280, 768)], many.look, shrink_of, 0.2, zoom_below=14)
    assert len(made) > 1
    for page, below in ((few, 14.0), (many, 9.0), (many, 0.0)):
        made, _ = look_closer([window(1280, 768)], page.look, shrink_of, 0.2, zoom_below=below)
        assert len(made) == 1


def test_strips_are_cut_across_alone() -> None:
    parts = cut(window(4000, 300), shrink_of, 0.2)
    assert [(p.x, p.y, p.width, p.height) for p in parts] == [
        (0, 0, 2223, 300),
        (1777, 0, 2223, 300),
    ]
    assert len(cut(window(300, 4000), shrink_of, 0.2)) == 2


@given(st.integers(1, 20000), st.integers(1, 20000), st.integers(0, 50), st.floats(0, 0.89))
@example(12345, 9001, 0, 0.0)
def test_parts_cover_their_window_and_show_it_larger(
    width: int, height: int, at: int, overlap: float
) -> None:
    whole = TileWindow(at, 2 * at, width, height, shrink_of(width, height))
    parts = cut(whole, shrink_of, overlap)
    assert len(parts) in (0, 2, 4)
    if not parts:
        return
    assert all(part.shrink < whole.shrink for part in parts)
    assert all(part.x >= whole.x and part.y >= whole.y for part in parts)
    assert max(p.x + p.width for p in parts) == whole.x + width
    assert max(p.y + p.height for p in parts) == whole.y + height
    columns = sorted({(p.x, p.width) for p in parts})
    assert columns[-1][0] <= columns[0][0] + columns[0][1]


def test_a_tiny_window_is_not_enlarged_without_end() -> None:
    assert cut(window(300, 180), shrink_of, 0.2) == ()
    assert cut(window(1280, 768), shrink_of, 0.2)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_neighbouring_parts_overlap_as_told(overlap: float) -> None:
    left, right, *_ = cut(window(1280, 768), shrink_of, overlap)
    shared = left.x + left.width - right.x
    assert shared == pytest.approx(overlap * left.width, abs=2)
