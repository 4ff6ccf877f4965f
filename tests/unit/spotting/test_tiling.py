"""Tiles: every place covered, every word once, whatever edge it lies on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textspot_ray.records import Detection
from textspot_ray.spotting.geometry import Box
from textspot_ray.spotting.tiling import Seen, TileWindow, merge, plan_passes

INPUT = (1280, 768)


def passes(
    width: int, height: int, over: float = 2.0, share: float = 0.2
) -> tuple[TileWindow, ...]:
    return plan_passes(width, height, *INPUT, over, share)


def see(words: list[Box], width: int, height: int, least_px: float = 6.0) -> list[Seen]:
    """What a perfect detector finds: each word's part in each window, if large enough there."""
    seen = []
    for window in passes(width, height):
        for x0, y0, x1, y1 in words:
            left, right = max(x0, window.x), min(x1, window.x + window.width)
            top, bottom = max(y0, window.y), min(y1, window.y + window.height)
            if min(right - left, bottom - top) / window.shrink < least_px:
                continue
            detection = Detection(0.9, (left, top, right, bottom), (0.0,) * 8, 0.0)
            seen.append(Seen(detection, window, len(seen)))
    return seen


def test_small_images_are_one_pass() -> None:
    assert passes(1280, 720) == (TileWindow(0, 0, 1280, 720, 1.0),)
    assert len(passes(2560, 1536)) == 1, "exactly at the limit"
    assert len(passes(9000, 9000, over=float("inf"))) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30_000), st.integers(1, 30_000), st.floats(0, 0.5))
def test_tiles_cover_and_overlap(width: int, height: int, share: float) -> None:
    found = plan_passes(width, height, *INPUT, 2.0, share)
    assert found[-1] == TileWindow(0, 0, width, height, max(width / 1280, height / 768))
    for level in {p.shrink for p in found[:-1]}:
        tiles = [p for p in found[:-1] if p.shrink == level]
        for axis in ("x", "y"):
            size = "width" if axis == "x" else "height"
            length = width if axis == "x" else height
            spans = sorted({(getattr(t, axis), getattr(t, size)) for t in tiles})
            assert spans[0][0] == 0
            assert sum(spans[-1]) == length
            for (a, n), (b, _) in pairwise(spans):
                assert a + n - b >= share * n - 1, "neighbours overlap by at least the share"
        assert all(t.width <= 1280 * level + 1 and t.height <= 768 * level + 1 for t in tiles)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 7900), st.integers(0, 5900), st.integers(60, 480), st.integers(24, 120)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_words_are_found_exactly_once_and_whole(places: list[tuple[int, int, int, int]]) -> None:
    width, height = 8000, 6000
    words: list[Box] = []
    for x, y, w, h in places:
        box = (float(x), float(y), float(min(x + w, width)), float(min(y + h, height)))
        apart = all(
            box[0] > o[2] + 40 or o[0] > box[2] + 40 or box[1] > o[3] + 40 or o[1] > box[3] + 40
            for o in words
        )
        if apart and box[2] - box[0] > 30 and box[3] - box[1] > 20:
            words.append(box)
    kept = merge(see(words, width, height), width, height)
    assert sorted(s.detection.box for s in kept) == sorted(words)


def test_a_word_longer_than_any_tile_comes_from_the_whole_image() -> None:
    word = (500.0, 3000.0, 7500.0, 3600.0)
    (kept,) = merge(see([word], 8000, 6000), 8000, 6000)
    assert kept.detection.box == word
    assert kept.seen_in.shrink == pytest.approx(6000 / 768)


def test_the_largest_piece_stays_where_nothing_saw_the_word_whole() -> None:
    word = (2000.0, 100.0, 3300.0, 130.0)  # too small in the whole image, too long for the overlap
    seen = [s for s in see([word], 8000, 6000) if s.seen_in.shrink == 2.0]
    assert len(seen) > 1
    kept = merge(seen, 8000, 6000)
    assert len(kept) == 1
    pieces = [s.detection.box[2] - s.detection.box[0] for s in seen]
    assert kept[0].detection.box[2] - kept[0].detection.box[0] == max(pieces)


def test_order_and_ties_do_not_depend_on_the_order_of_passes() -> None:
    rng = np.random.default_rng(3)
    words = [
        (float(x), float(y), x + 200.0, y + 60.0)
        for x in range(0, 7000, 900)
        for y in range(0, 5000, 700)
    ]
    seen = see(words, 8000, 6000)
    once = merge(seen, 8000, 6000)
    shuffled = [seen[i] for i in rng.permutation(len(seen))]
    assert [s.detection for s in merge(shuffled, 8000, 6000)] == [s.detection for s in once]
    assert len(once) == len(words)
