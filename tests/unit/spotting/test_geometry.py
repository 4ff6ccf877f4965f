"""Mask to polygon against a full-size paste, corner order, overlaps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textspot_ray.spotting.geometry import (
    angle_deg,
    clip_box,
    mask_polygon,
    order_corners,
    polygon_box,
)


def soft_mask(quad: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Share of each of the 28 x 28 cells that a quad covers, by painting it large."""
    x0, y0, x1, y1 = box
    size = 28 * 16
    points = (quad - (x0, y0)) / (x1 - x0, y1 - y0) * size
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 255)
    return cv2.resize(canvas, (28, 28), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def published_paste(mask: np.ndarray, box: tuple[float, ...], shape: tuple[int, int]) -> np.ndarray:
    """The demo's paste into a whole image, step by step (model facts, section 2.3)."""
    height, width = shape
    ringed = np.pad(mask, 1)
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_w, half_h = (box[2] - box[0]) / 2 * 30 / 28, (box[3] - box[1]) / 2 * 30 / 28
    x0, y0, x1, y1 = (int(v) for v in (cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    w, h = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    pasted = (cv2.resize(ringed, (w, h)) > 0.5).astype(np.uint8)
    image = np.zeros((height, width), np.uint8)
    left, top = np.clip([x0, y0], 0, [width, height])
    right, bottom = np.clip([x1 + 1, y1 + 1], 0, [width, height])
    image[top:bottom, left:right] = pasted[top - y0 : bottom - y0, left - x0 : right - x0]
    return image


def rectangle(cx: float, cy: float, w: float, h: float, angle: float) -> np.ndarray:
    return cv2.boxPoints(((cx, cy), (w, h), angle))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(20, 400),
    st.floats(0.15, 1.0),
    st.floats(-80, 80),
)
def test_polygon_agrees_with_the_full_paste(width: float, aspect: float, angle: float) -> None:
    quad = rectangle(300, 300, width, max(8.0, width * aspect), angle)
    (x0, y0), (x1, y1) = quad.min(0), quad.max(0)
    box = (float(x0), float(y0), float(x1), float(y1))
    mask = soft_mask(quad, box)
    polygon = np.array(mask_polygon(mask, box), np.float32).reshape(4, 2)
    pasted = published_paste(mask, box, (600, 600))
    painted = np.zeros((600, 600), np.uint8)
    cv2.fillPoly(painted, [np.round(polygon - 0.5).astype(np.int32)], 1)
    # one pixel all round is what truncation to integers costs the published rule
    ring = cv2.dilate(pasted, np.ones((5, 5), np.uint8))
    core = cv2.erode(pasted, np.ones((5, 5), np.uint8))
    assert (painted & ~ring & 1).sum() <= 0.01 * ring.sum()
    assert (core & ~painted & 1).sum() <= 0.01 * max(core.sum(), 1)


@settings(max_examples=60, deadline=None)
@given(st.floats(30, 300), st.floats(-44, 44))
def test_slanted_words_come_back_within_a_pixel_or_two(width: float, angle: float) -> None:
    quad = rectangle(500, 500, width, width / 4, angle)
    (x0, y0), (x1, y1) = quad.min(0), quad.max(0)
    box = (float(x0), float(y0), float(x1), float(y1))
    polygon = mask_polygon(soft_mask(quad, box), box)
    shared, _ = cv2.intersectConvexConvex(
        np.array(polygon, np.float32).reshape(4, 2), quad.astype(np.float32)
    )
    area = cv2.contourArea(np.array(polygon, np.float32).reshape(4, 2))
    assert shared / (area + width * width / 4 - shared) > 0.8
    assert abs(angle_deg(polygon) - angle) < 6


def test_empty_mask_falls_back_to_the_box() -> None:
    polygon = mask_polygon(np.zeros((28, 28), np.float32), (10, 20, 110, 50))
    assert polygon == (10, 20, 110, 20, 110, 50, 10, 50)
    assert angle_deg(polygon) == 0


def test_full_mask_is_the_box() -> None:
    polygon = mask_polygon(np.ones((28, 28), np.float32), (10, 20, 110, 50))
    assert polygon == pytest.approx((10, 20, 110, 20, 110, 50, 10, 50), abs=1.0)


def test_largest_contour_wins() -> None:
    mask = np.zeros((28, 28), np.float32)
    mask[:, :18] = 1
    mask[:4, 24:] = 1
    polygon = np.array(mask_polygon(mask, (0, 0, 280, 280))).reshape(4, 2)
    assert polygon[:, 0].max() == pytest.approx(180, abs=6)


@pytest.mark.parametrize("angle", [-89, -60, -45, -20, 0, 20, 45, 60, 89, 90])
@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_long_words_run_along_their_long_side(angle: int, turn: int, flip: bool) -> None:
    corners = np.roll(rectangle(0, 0, 100, 20, angle), turn, axis=0)
    if flip:
        corners = corners[::-1]
    polygon = order_corners(corners)
    assert angle_deg(polygon) == pytest.approx(angle, abs=1e-3)
    quad = np.array(polygon).reshape(4, 2)
    assert np.linalg.norm(quad[1] - quad[0]) == pytest.approx(100, abs=1e-3)
    edges = np.roll(quad, -1, axis=0) - quad
    assert (edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0]) > 0, "clockwise, y down"


def test_square_words_are_the_least_turned() -> None:
    for angle in (-40, 0, 30, 44):
        assert angle_deg(order_corners(rectangle(0, 0, 30, 30, angle))) == pytest.approx(
            angle, abs=1e-3
        )


def test_clip_keeps_boxes_inside() -> None:
    assert clip_box((-5, -2, 200, 40), 100, 50) == (0, 0, 100, 40)
    assert clip_box((120, 60, 130, 70), 100, 50) == (100, 50, 100, 50)


def test_a_polygons_box_is_its_bounds_inside_the_image() -> None:
    turned = (-12.0, 30.0, 40.0, -8.0, 90.5, 20.0, 30.0, 60.0)
    assert polygon_box(turned, 80, 50) == (0, 0, 80, 50)
    assert polygon_box(turned, 200, 200) == (0, 0, 90.5, 60)
    assert polygon_box((90, 0, 120, 0, 120, 9, 90, 9), 80, 50) is None
