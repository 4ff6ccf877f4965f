from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import Polygon

from textspot_ray.spotting.geometry import (
    angle_deg,
    box_ious,
    clip_box,
    mask_polygon,
    order_corners,
)

SIDE = 28


def _soft_mask(quad: NDArray[np.float64], box: tuple[float, ...]) -> NDArray[np.float32]:
    """What a mask head says of a quadrilateral inside a box: share of each cell it covers."""
    fine = 8 * SIDE
    scale = np.array([fine / (box[2] - box[0]), fine / (box[3] - box[1])])
    points = np.round((quad - box[:2]) * scale * 16).astype(np.int32)
    canvas = np.zeros((fine, fine), np.uint8)
    cv2.fillConvexPoly(canvas, points, 255, shift=4)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _published_rectangle(
    mask: NDArray[np.float32], box: tuple[float, ...], width: int, height: int
) -> NDArray[np.float32] | None:
    """The published demo's paste into the whole image, then the evaluation's rectangle."""
    ringed = np.pad(mask, 1)
    grow = (SIDE + 2) / SIDE
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) * grow, (box[3] - box[1]) * grow
    x0, y0, x1, y1 = (int(v) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    w, h = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    pasted = (cv2.resize(ringed, (w, h)) > 0.5).astype(np.uint8)
    image = np.zeros((height, width), np.uint8)
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x1 + 1, width), min(y1 + 1, height)
    image[top:bottom, left:right] = pasted[top - y0 : bottom - y0, left - x0 : right - x0]
    contours, _ = cv2.findContours(image, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    # contour points are pixel centres; the rectangle of the pixels is half a pixel larger around
    points = max(contours, key=cv2.contourArea)[:, 0, :].astype(np.float32)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    return cv2.boxPoints(cv2.minAreaRect((points[:, None] + square).reshape(-1, 2)))


def _quad(cx: float, cy: float, length: float, thick: float, angle: float) -> NDArray[np.float64]:
    turn = math.radians(angle)
    along, across = (
        np.array([math.cos(turn), math.sin(turn)]) * length / 2,
        np.array([-math.sin(turn), math.cos(turn)]) * thick / 2,
    )
    centre = np.array([cx, cy])
    return np.array(
        [
            centre - along - across,
            centre + along - across,
            centre + along + across,
            centre - along + across,
        ]
    )


def _bounds(quad: NDArray[np.float64]) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


words = st.builds(
    _quad,
    cx=st.floats(450, 850),
    cy=st.floats(450, 850),
    length=st.floats(16, 700),
    thick=st.floats(12, 200),
    angle=st.floats(-180, 180),
)


@given(words)
@example(_quad(600, 600, 700, 12, 0))
@example(_quad(600, 600, 700, 12, 3))
@example(_quad(600, 600, 16, 200, 0))
@example(_quad(450, 450, 558, 13, -133))
def test_polygon_agrees_with_the_published_paste_into_the_whole_image(
    quad: NDArray[np.float64],
) -> None:
    box = _bounds(quad)
    mask = _soft_mask(quad, box)
    polygon = np.array(mask_polygon(mask, box)).reshape(4, 2)
    reference = _published_rectangle(mask, box, 1300, 1300)
    assert reference is not None
    found, wanted = Polygon(polygon), Polygon(reference)
    # each side of the published rectangle lies on whole pixels, so it may be off by one
    around = found.length
    assert found.symmetric_difference(wanted).area <= 1.2 * around
    apart = found.centroid.distance(wanted.centroid)
    # of a thin slanted word the published rule may lose cells at one end that ours keeps
    truth = Polygon(quad).centroid
    assert apart <= 1.5 or found.centroid.distance(truth) < wanted.centroid.distance(truth)


@given(words)
def test_polygon_finds_the_word_that_the_mask_shows(quad: NDArray[np.float64]) -> None:
    box = _bounds(quad)
    polygon = Polygon(np.array(mask_polygon(_soft_mask(quad, box), box)).reshape(4, 2))
    truth = Polygon(quad)
    # a mask cell is all that a mask can tell
    cell = max(box[2] - box[0], box[3] - box[1]) / SIDE
    assert polygon.symmetric_difference(truth).area <= (0.6 * cell + 0.5) * truth.length


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.floats(-300, 1500)] * 2, st.floats(0, 900), st.floats(0, 900)),
)
def test_any_mask_and_box_give_a_finite_rectangle(
    seed: int, place: tuple[float, float, float, float]
) -> None:
    x, y, w, h = place
    mask = np.random.default_rng(seed).random((SIDE, SIDE), np.float32)
    polygon = mask_polygon(mask, (x, y, x + w, y + h))
    assert len(polygon) == 8 and np.isfinite(polygon).all()
    corners = np.array(polygon).reshape(4, 2)
    assert cv2.contourArea(corners.astype(np.float32), oriented=True) >= -1e-2  # clockwise


def test_the_largest_part_of_a_torn_mask_counts() -> None:
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[2:6, 2:6] = 1
    mask[10:26, 8:26] = 1
    x0, y0, x1, y1 = _bounds(np.array(mask_polygon(mask, (100, 100, 380, 380))).reshape(4, 2))
    assert (x0, y0, x1, y1) == pytest.approx((180, 200, 360, 360), abs=4)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_an_empty_mask_falls_back_to_the_upright_box(level: float) -> None:
    mask = np.full((SIDE, SIDE), level, np.float32)
    assert mask_polygon(mask, (10, 20, 50, 40)) == (10, 20, 50, 20, 50, 40, 10, 40)


def test_a_mask_of_nan_falls_back_to_the_upright_box() -> None:
    mask = np.full((SIDE, SIDE), np.nan, np.float32)
    assert mask_polygon(mask, (10, 20, 50, 40)) == (10, 20, 50, 20, 50, 40, 10, 40)


@given(words, st.integers(0, 3), st.booleans())
def test_corner_order_does_not_depend_on_where_the_rectangle_starts(
    quad: NDArray[np.float64], start: int, back: bool
) -> None:
    turned = np.roll(quad, start, axis=0)
    turned = turned[::-1] if back else turned
    assert order_corners(turned.astype(np.float32)) == order_corners(quad.astype(np.float32))


@pytest.mark.parametrize("angle", [-89, -60, -45, -30, 0, 10, 44, 46, 60, 89, 90])
def test_a_long_word_reads_along_its_long_side_to_the_right(angle: float) -> None:
    polygon = order_corners(_quad(500, 500, 200, 40, angle).astype(np.float32))
    assert angle_deg(polygon) == pytest.approx(angle, abs=0.01)
    assert np.array(polygon) == pytest.approx(_quad(500, 500, 200, 40, angle).ravel(), abs=0.01)


@pytest.mark.parametrize(("angle", "read"), [(0, 0), (44, 44), (46, -44), (135, 45), (-30, -30)])
def test_a_square_is_taken_to_be_turned_least(angle: float, read: float) -> None:
    polygon = order_corners(_quad(500, 500, 50, 48, angle).astype(np.float32))
    assert angle_deg(polygon) == pytest.approx(read, abs=0.01)


def test_angles_are_in_the_half_open_circle() -> None:
    assert angle_deg((1, 0, 0, 0, 0, 1, 1, 1)) == 180.0
    assert angle_deg((1, 0, 0, -0.0, 0, 1, 1, 1)) == 180.0
    assert angle_deg((0, 1, 0, 0, 1, 0, 1, 1)) == -90.0


edges = st.floats(-5000, 5000)


@given(edges, edges, edges, edges, st.integers(1, 3000), st.integers(1, 3000))
def test_clipped_boxes_lie_in_the_image(
    x0: float, y0: float, x1: float, y1: float, width: int, height: int
) -> None:
    a, b, c, d = clip_box((x0, y0, x1, y1), width, height)
    assert 0 <= a <= c <= width and 0 <= b <= d <= height
    if 0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height:
        assert (a, b, c, d) == (x0, y0, x1, y1)


boxes = st.tuples(*[st.floats(0, 100)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)


@given(boxes, boxes)
def test_overlap_is_that_of_the_rectangles(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> None:
    first, second = (
        Polygon([(q[0], q[1]), (q[2], q[1]), (q[2], q[3]), (q[0], q[3])]) for q in (a, b)
    )
    shared = first.intersection(second).area
    ((iou,),) = box_ious([a], [b])
    assert iou == pytest.approx(shared / first.union(second).area, abs=1e-6)
