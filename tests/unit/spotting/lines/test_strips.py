"""Strips: upright pixels of lines, whatever their place, size and angle."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textspot_ray.spotting.lines.db import DbRules, find_lines
from textspot_ray.spotting.lines.strips import (
    MAX_STRIP,
    PADDING,
    columns_of,
    cut_strips,
    no_strips,
    padded_width,
)


def _quad(x: float, y: float, width: float, height: float) -> np.ndarray:
    return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], float)


def test_a_strip_is_its_lines_pixels_and_grey_padding() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[20:68, 50:150] = (10, 20, 30)
    strips = cut_strips(image, [_quad(50, 20, 100, 48), _quad(0, 0, 20, 10)])
    first, second = strips.strips()
    assert (first.shape, second.shape) == ((1, 48, 128, 3), (1, 48, 96, 3))
    assert strips.widths.tolist() == [100, 96]
    assert (first[0, 2:-2, 2:98] == (10, 20, 30)).all()
    assert (first[0, :, 100:] == PADDING).all()
    assert (second == 0).all()
    assert strips.nbytes == 48 * 3 * (128 + 96)
    assert len(no_strips()) == 0 and no_strips().strips() == []
    again = pickle.loads(pickle.dumps(strips))
    assert [s.tolist() for s in again.strips()] == [s.tolist() for s in strips.strips()]


def test_a_turned_line_is_laid_upright() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[50:150, 80:104] = 90  # downwards, its top on the right
    image[50:100, 80:104] = 200
    quad = np.array([(104, 50), (104, 150), (80, 150), (80, 50)], float)
    (strip,) = cut_strips(image, [quad]).strips()
    assert (strip[0, 4:-4, 4:90] > 190).all()
    assert (abs(strip[0, 4:-4, 110:196].astype(int) - 90) < 5).all()


@pytest.mark.parametrize("size", [(40_000, 30), (30, 40_000)])
def test_pictures_beyond_the_warps_limits(size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 77, np.uint8)
    quad = _quad(0, 0, size[0], size[1])
    if size[1] > size[0]:
        quad = quad[[1, 2, 3, 0]]
    (strip,) = cut_strips(image, [quad]).strips()
    assert strip.shape == (1, 48, MAX_STRIP, 3)
    assert (strip == 77).all()


@given(
    st.tuples(*[st.floats(-50, 350)] * 4), st.floats(1, 400), st.floats(0.01, 300), st.floats(0, 7)
)
def test_any_rectangle_gives_a_strip(
    place: tuple[float, ...], width: float, height: float, angle: float
) -> None:
    corners = cv2.boxPoints(((place[0], place[1]), (width, height), angle * 57))
    image = np.full((200, 300, 3), 50, np.uint8)
    strips = cut_strips(image, [corners.astype(np.float64)])
    (strip,) = strips.strips()
    assert strip.shape[2] == padded_width(int(strips.widths[0])) == columns_of(corners.ravel())
    assert (strip[0, :, : strips.widths[0]] == 50).all()


def test_all_widths_are_few_shapes_that_waste_little() -> None:
    padded = {width: padded_width(width) for width in range(1, MAX_STRIP + 1)}
    assert len(set(padded.values())) < 75  # every shape costs memory for good
    assert all(width <= wide <= max(96, 1.12 * width + 31) for width, wide in padded.items())


def test_regions_become_grown_rectangles() -> None:
    probability = np.zeros((100, 200), np.float32)
    probability[40:50, 50:150] = 0.9
    probability[80:90, 10:60] = 0.4  # above the map's threshold, below the line's
    probability[5:7, 5:7] = 1  # too small
    found = find_lines(probability, DbRules(dilate=False, unclip_ratio=1.5))
    assert len(found.scores) == 1 and found.scores[0] == pytest.approx(0.9)
    (low, high) = found.corners[0].min(axis=0), found.corners[0].max(axis=0)
    grow = 99 * 9 * 1.5 / (99 + 9) / 2  # area x ratio / perimeter
    assert low == pytest.approx((50 - grow, 40 - grow), abs=0.1)
    assert high == pytest.approx((149 + grow, 49 + grow), abs=0.1)
    assert not found.saturated
    assert find_lines(probability, DbRules(max_lines=1)).saturated


def test_a_frame_around_a_line_hides_nothing() -> None:
    probability = np.zeros((100, 200), np.float32)
    cv2.rectangle(probability, (5, 5), (195, 95), 1.0, 3)
    probability[45:55, 60:140] = 1
    found = find_lines(probability, DbRules())
    assert len(found.scores) == 1  # the frame's rectangle is mostly empty


def test_maps_of_nothing_and_of_no_numbers() -> None:
    assert len(find_lines(np.zeros((32, 32), np.float32), DbRules()).scores) == 0
    assert len(find_lines(np.full((32, 32), np.nan, np.float32), DbRules()).scores) == 0


@pytest.mark.parametrize(
    ("width", "strip"), [(100, 240), (133, 320), (140, 320), (150, 320), (200, 418), (400, 836)]
)
def test_long_lines_are_squeezed_and_short_ones_are_not(width: int, strip: int) -> None:
    image = np.zeros((40, 500, 3), np.uint8)
    image[10:30, : width // 2] = 255
    quad = np.array([[0, 10], [width, 10], [width, 30], [0, 30]], np.float64)
    strips = cut_strips(image, [quad], 0.87)
    assert strips.widths.tolist() == [strip]
    assert columns_of(quad.ravel().tolist(), 0.87) == strips.strips()[0].shape[2]
    (pixels,) = strips.strips()
    # the middle of the line stays its middle
    edge = np.flatnonzero(pixels[0, 24, :strip, 0] > 127).max() + 1
    assert edge == pytest.approx(strip * (width // 2) / width, abs=2)
