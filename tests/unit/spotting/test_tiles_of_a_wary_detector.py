"""Tiling with a detector as it is: unsure at edges, shaky boxes, splits, slanted neighbours."""

from __future__ import annotations

import math

import cv2
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from textspot_ray.records import Detection
from textspot_ray.spotting.tiling import Seen, TileWindow, merge, plan_passes

WIDTH, HEIGHT = 8000, 6000
PASSES = plan_passes(WIDTH, HEIGHT, 1280, 768, 2.0, 0.2)
TILES, WHOLE = PASSES[:-1], PASSES[-1]
LEAST_PX = 6.0


def _detection(quad: NDArray[np.float64], confidence: float) -> Detection:
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    box = (float(x0), float(y0), float(x1), float(y1))
    return Detection(confidence, box, tuple(float(v) for v in quad.ravel()), 0.0)


def _upright(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def _slanted(x: float, y: float, length: float, thick: float, angle: float) -> NDArray[np.float64]:
    turn = math.radians(angle)
    along = np.array([math.cos(turn), math.sin(turn)])
    across = np.array([-math.sin(turn), math.cos(turn)])
    start = np.array([x, y])
    return np.array(
        [
            start,
            start + along * length,
            start + along * length + across * thick,
            start + across * thick,
        ]
    )


def _look(
    words: list[NDArray[np.float64]], rng: np.random.Generator, letter: float | None = None
) -> list[Seen]:
    """Rows of all passes: what lies in the window, shaken by a pixel of the input.

    With ``letter`` a cut word ends at the last whole letter, as detectors like to see it, and so
    not always at the edge of the tile.
    """
    seen = []
    for window in PASSES:
        frame = _upright(
            window.x, window.y, window.x + window.width, window.y + window.height
        ).astype(np.float32)
        for quad in words:
            area, part = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
            if area < (LEAST_PX * window.shrink) ** 2 or part is None:
                continue
            shape = part.reshape(-1, 2).astype(np.float64)
            thick = cv2.minAreaRect(part)[1]
            if min(thick) < LEAST_PX * window.shrink:
                continue
            if area > 0.999 * cv2.contourArea(quad.astype(np.float32)):
                shape = quad
            elif letter is not None:
                (x0, y0), (x1, y1) = shape.min(axis=0), shape.max(axis=0)
                left, right = quad[:, 0].min(), quad[:, 0].max()
                x0 = left + math.ceil((x0 - left) / letter) * letter
                x1 = right if x1 >= right else left + math.floor((x1 - left) / letter) * letter
                if x1 - x0 < letter:
                    continue
                shape = _upright(x0, y0, x1, y1)
            else:
                shape = cv2.boxPoints(cv2.minAreaRect(part)).astype(np.float64)
            shape = shape + rng.uniform(-0.7, 0.7, shape.shape) * window.shrink
            seen.append(Seen(_detection(shape, float(rng.uniform(0.5, 1))), window, len(seen)))
    return seen


def _iou(a: Detection, quad: NDArray[np.float64]) -> float:
    first = np.array(a.polygon, np.float32).reshape(4, 2)
    shared, _ = cv2.intersectConvexConvex(first, quad.astype(np.float32))
    return float(shared) / (
        cv2.contourArea(first) + cv2.contourArea(quad.astype(np.float32)) - float(shared)
    )


def _found_once(words: list[NDArray[np.float64]], kept: list[Seen], least: float) -> None:
    assert len(kept) == len(words), [k.detection.box for k in kept]
    for quad in words:
        assert max(_iou(k.detection, quad) for k in kept) > least


@settings(max_examples=150, deadline=None)
@example([(0, 0, 2), (0, 101, 2), (4318, 0, 2)], 40, 0)
@given(
    st.lists(
        st.tuples(st.integers(0, 7400), st.integers(0, 5800), st.integers(2, 9)),
        min_size=1,
        max_size=10,
    ),
    st.integers(30, 90),
    st.integers(0, 2**32 - 1),
)
def test_a_fragment_that_stops_at_a_letter_never_beats_the_word(
    places: list[tuple[int, int, int]], high: int, seed: int
) -> None:
    words: list[NDArray[np.float64]] = []
    letter = 0.7 * high
    for x, y, letters in places:
        quad = _upright(x, y, x + letters * letter, y + high)
        if quad[:, 0].max() < WIDTH and all(
            quad[:, 0].min() > o[:, 0].max() + 60
            or o[:, 0].min() > quad[:, 0].max() + 60
            or quad[:, 1].min() > o[:, 1].max() + 60
            or o[:, 1].min() > quad[:, 1].max() + 60
            for o in words
        ):
            words.append(quad)
    seen = _look(words, np.random.default_rng(seed), letter)
    _found_once(words, merge(seen, WIDTH, HEIGHT), 0.7)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(500, 6500),
    st.integers(500, 4500),
    st.integers(-80, 80),
    st.integers(0, 2**32 - 1),
)
@example(3000, 2500, 45, 0)
def test_slanted_neighbours_whose_upright_boxes_overlap_all_stay(
    x: int, y: int, angle: int, seed: int
) -> None:
    turn = math.radians(angle)
    words = [
        _slanted(x - math.sin(turn) * 70 * line, y + math.cos(turn) * 70 * line, 330, 44, angle)
        for line in range(4)
    ]
    inside = all(
        (q >= 0).all() and (q[:, 0] < WIDTH).all() and (q[:, 1] < HEIGHT).all() for q in words
    )
    if inside:
        kept = merge(_look(words, np.random.default_rng(seed)), WIDTH, HEIGHT)
        _found_once(words, kept, 0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 4000), st.integers(0, 2**32 - 1))
def test_a_giant_word_is_one_row_whatever_tiles_make_of_its_letters(
    x: int, y: int, seed: int
) -> None:
    word = _upright(x, y, x + 3600, y + 1100)
    kept = merge(_look([word], np.random.default_rng(seed), 600), WIDTH, HEIGHT)
    _found_once([word], kept, 0.8)


def _tile_around(x: float, y: float, margin: float = 300) -> TileWindow:
    return next(
        t
        for t in TILES
        if t.x + margin < x < t.x + t.width - margin and t.y + margin < y < t.y + t.height - margin
    )


def test_words_that_the_whole_image_runs_together_are_taken_from_the_tile() -> None:
    tile = _tile_around(2000, 1500)
    first = Seen(_detection(_upright(1900, 1500, 2090, 1560), 0.6), tile, 0)
    second = Seen(_detection(_upright(2110, 1500, 2300, 1560), 0.6), tile, 1)
    both = Seen(_detection(_upright(1900, 1500, 2300, 1560), 0.9), WHOLE, 2)
    assert merge([first, second, both], WIDTH, HEIGHT) == [first, second]


def test_a_small_word_inside_the_box_of_a_large_one_stays_beside_it() -> None:
    tile = _tile_around(2000, 1500)
    small = Seen(_detection(_upright(1950, 1480, 2050, 1510), 0.6), tile, 0)
    large = Seen(_detection(_upright(500, 1000, 4500, 2400), 0.9), WHOLE, 1)
    assert merge([small, large], WIDTH, HEIGHT) == [large, small]


def test_boxes_of_one_pass_are_the_models_own_affair() -> None:
    tile = _tile_around(2000, 1500)
    rows = [
        Seen(_detection(_upright(1900, 1500 + i, 2200, 1560 + i), 0.6), tile, i) for i in range(3)
    ]
    assert len(merge(rows, WIDTH, HEIGHT)) == 3


def test_a_word_longer_than_a_tile_and_too_small_for_the_whole_image_is_one_row() -> None:
    word = _upright(300, 3000, 6500, 3030)
    seen = _look([word], np.random.default_rng(0))
    assert len(seen) > 2 and all(s.seen_in != WHOLE for s in seen)
    assert len(merge(seen, WIDTH, HEIGHT)) == 1


def test_thousands_of_rows_are_merged_in_seconds() -> None:
    rng = np.random.default_rng(5)
    words = [
        _upright(x, y, x + 120, y + 40) for x in range(10, 7800, 300) for y in range(10, 5900, 140)
    ]
    seen = _look(words, rng)
    assert len(seen) > 1500
    kept = merge(seen, WIDTH, HEIGHT)
    _found_once(
        words[::97], [k for k in kept if any(_iou(k.detection, w) > 0.3 for w in words[::97])], 0.5
    )
    assert len(kept) == len(words)
