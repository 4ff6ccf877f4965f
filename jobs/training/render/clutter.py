"""Things that are no words: walls, beams, panes, lamps, bars, arrows and rows of strokes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.render import surfaces

Pixels = NDArray[np.uint8]


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    b, g, r = (float(v) for v in surfaces.plain_colour(rng))
    return b, g, r


def add_structures(rng: np.random.Generator, image: Pixels, difficulty: float) -> Pixels:
    """Draw built structures over a backdrop, most of them large, some of letter size."""
    image = image.copy()
    for _ in range(int(rng.integers(2, 5 + round(9 * difficulty)))):
        kind = rng.random()
        if kind < 0.40:
            _slab(rng, image)
        elif kind < 0.55:
            _panes(rng, image)
        elif kind < 0.70:
            _lamp(rng, image)
        elif kind < 0.85:
            _bars(rng, image)
        else:
            _marks(rng, image)
    return image


def _slab(rng: np.random.Generator, image: Pixels) -> None:
    """A wall, door, beam or floor: a quad with shading."""
    height, width = image.shape[:2]
    x, y = rng.uniform(-0.1, 1.0, 2) * (width, height)
    w, h = np.exp(rng.uniform(np.log(0.04), np.log(0.7), 2)) * (width, height)
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    corners += rng.normal(0, 0.03, (4, 2)) * (width, height)
    x0, y0 = np.floor(corners.min(axis=0)).astype(int).clip(0, None)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int).clip(None, (width, height))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return
    cover = np.zeros((y1 - y0, x1 - x0), np.uint8)
    spots = np.round((corners - (x0, y0)) * 16).astype(np.int32)
    cv2.fillConvexPoly(cover, cv2.convexHull(spots), 255, cv2.LINE_AA, 4)
    face = surfaces.shaded(rng, x1 - x0, y1 - y0, 0.8, pale=float(rng.uniform(0.2, 0.9)))
    window = image[y0:y1, x0:x1]
    cv2.copyTo(face, cover, window)


def _panes(rng: np.random.Generator, image: Pixels) -> None:
    """A grid of windows, shelves or tiles."""
    height, width = image.shape[:2]
    columns, rows = (int(v) for v in rng.integers(2, 9, 2))
    step_x, step_y = (int(v) for v in np.exp(rng.uniform(np.log(8), np.log(70), 2)))
    left, top = int(rng.uniform(-20, width)), int(rng.uniform(-20, height))
    gap_x, gap_y = max(1, int(step_x * 0.15)), max(1, int(step_y * 0.15))
    lean = float(rng.normal(0, 0.1))
    one = _colour(rng)
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * step_x, top + row * step_y
            drop = round(lean * column * step_x)
            fill = one if rng.random() < 0.7 else _colour(rng)
            start = (x + gap_x, y + drop + gap_y)
            cv2.rectangle(image, start, (x + step_x, y + drop + step_y), fill, -1)


def _lamp(rng: np.random.Generator, image: Pixels) -> None:
    """Bright round lights."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 7))):
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        radius = int(np.exp(rng.uniform(np.log(2), np.log(25))))
        axes = (radius, max(1, int(radius * rng.uniform(0.4, 1.0))))
        shade = float(rng.uniform(200, 255))
        cv2.ellipse(image, centre, axes, 0, 0, 360, (shade, shade, shade), -1, cv2.LINE_AA)


def _bars(rng: np.random.Generator, image: Pixels) -> None:
    """Rails, blinds, steps: parallel strokes that look like lettering from far."""
    height, width = image.shape[:2]
    count = int(rng.integers(4, 25))
    step = float(np.exp(rng.uniform(np.log(3), np.log(30))))
    length = float(np.exp(rng.uniform(np.log(8), np.log(200))))
    turn = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15))
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    start = rng.uniform(0, 1, 2) * (width, height)
    thickness = max(1, int(step * rng.uniform(0.2, 0.6)))
    fill = _colour(rng)
    for number in range(count):
        one = start + number * step * along
        two = one + length * across
        ends = [tuple(int(v) for v in point) for point in (one, two)]
        cv2.line(image, ends[0], ends[1], fill, thickness, cv2.LINE_AA)


def _marks(rng: np.random.Generator, image: Pixels) -> None:
    """A row of strokes and blobs of letter size that spell nothing: icons, arrows, patterns."""
    height, width = image.shape[:2]
    cell = int(np.exp(rng.uniform(np.log(8), np.log(50))))
    x, y = int(rng.uniform(0, width)), int(rng.uniform(0, height))
    fill = _colour(rng)
    thickness = max(1, cell // 8)
    for number in range(int(rng.integers(1, 7))):
        left = x + int(number * cell * 1.2)
        centre = (left + cell // 2, y + cell // 2)
        kind = int(rng.integers(0, 6))
        if kind == 0:
            cv2.circle(image, centre, max(1, cell // 2), fill, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(image, (left, y), (left + cell, y + cell), fill, -1)
        elif kind == 2:
            start, tip = (left, y + cell // 2), (left + cell, y + cell // 2)
            if rng.random() < 0.5:
                start, tip = tip, start
            cv2.arrowedLine(image, start, tip, fill, thickness, cv2.LINE_AA)
        else:
            # Strokes within one cell, as a glyph of an unknown script.
            for _ in range(int(rng.integers(4, 9))):
                ends2 = (rng.integers(0, 4, (2, 2)) * cell // 3) + (left, y)
                one, two = (tuple(int(v) for v in point) for point in ends2)
                cv2.line(image, one, two, fill, thickness, cv2.LINE_AA)
