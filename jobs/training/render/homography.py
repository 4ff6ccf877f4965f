"""Flat things in space: homographies from a sign's own frame to the picture.

Coordinates are continuous: the pixel in column i covers i .. i + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Quad = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# OpenCV puts a pixel's centre at its whole coordinate, we at a half.
_TO_CENTRE = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
_FROM_CENTRE = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])


def box_corners(box: NDArray[np.float32]) -> Quad:
    """Corners of x0, y0, x1, y1, clockwise from the top left."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def project(matrix: Matrix, points: Quad) -> Quad:
    """Apply a 3x3 homography to [n, 2] points."""
    lifted = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:], dtype=np.float32)


def shift(x: float, y: float) -> Matrix:
    """The homography that moves by x, y."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def zoom(x: float, y: float) -> Matrix:
    """The homography that multiplies by x, y."""
    return np.diag([x, y, 1.0])


def side_lengths(quad: Quad) -> tuple[float, float]:
    """Mean width (reading direction) and mean height of a quad."""
    across = np.linalg.norm(quad[1] - quad[0]) + np.linalg.norm(quad[2] - quad[3])
    down = np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])
    return float(across) / 2, float(down) / 2


@dataclass(frozen=True, slots=True)
class Pose:
    """How a plane is turned towards the camera, and where its centre is seen.

    Attributes:
        yaw: Turn about the vertical axis, radians: one end of the words is farther away.
        pitch: Turn about the horizontal axis: the top or the bottom is farther away.
        roll: Turn within the picture, clockwise positive.
        x: Where the centre is seen, in focal lengths right of the picture's middle.
        y: The same, below the middle.
    """

    yaw: float
    pitch: float
    roll: float
    x: float
    y: float

    def matrix(self, focal_px: float) -> Matrix:
        """Homography from plane pixels about the plane's centre to pixels about its image.

        At the centre one plane pixel is about one picture pixel high.
        """
        cy, sy = np.cos(self.yaw), np.sin(self.yaw)
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        cr, sr = np.cos(self.roll), np.sin(self.roll)
        about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1.0]])
        turned = about_z @ about_x @ about_y
        place = np.array([self.x * focal_px, self.y * focal_px, focal_px])
        homography = np.column_stack([turned[:, 0], turned[:, 1], place])
        camera = np.diag([focal_px, focal_px, 1.0])
        seen = camera @ homography
        seen /= seen[2, 2]
        return np.asarray(shift(-self.x * focal_px, -self.y * focal_px) @ seen, np.float64)


def draw_pose(
    rng: np.random.Generator, difficulty: float, x: float, y: float, roll: float = 0.0
) -> Pose:
    """A turn as street signs have it: strong about the vertical, slight otherwise.

    Args:
        rng: Where chance comes from.
        difficulty: 0 faces the camera upright; 1 is ICDAR2015's spread of angles.
        x: Where the centre is seen, in focal lengths.
        y: The same.
        roll: The camera's own roll, common to all planes of a picture.
    """
    d = difficulty
    if d <= 0.02:
        return Pose(0.0, 0.0, 0.0, x, y)
    yaw = float(np.clip(rng.normal(0, 0.52 * d), -0.95, 0.95))
    pitch = float(np.clip(rng.normal(0, 0.20 * d), -0.6, 0.6))
    own = float(rng.normal(0, 0.012 + 0.045 * d))
    pick = rng.random()
    if pick < 0.015 * d:
        own = float(rng.uniform(-np.pi, np.pi))
    elif pick < 0.05 * d:
        own = float(rng.choice([-np.pi / 2, np.pi / 2]) + rng.normal(0, 0.06))
    elif pick < 0.14 * d:
        own = float(rng.normal(0, 0.26))
    return Pose(yaw, pitch, roll + own, x, y)


def warp_mask(mask: Pixels, matrix: Matrix, size: tuple[int, int], scale: float) -> Pixels:
    """Warp coverage by a homography without aliasing.

    Args:
        mask: [h, w] uint8.
        matrix: From mask to picture.
        size: Width and height of the picture.
        scale: Roughly how many picture pixels one mask pixel covers.
    """
    if scale < 0.75:
        height, width = mask.shape
        shrunk = (max(1, round(width * scale * 1.2)), max(1, round(height * scale * 1.2)))
        matrix = matrix @ zoom(width / shrunk[0], height / shrunk[1])
        mask = np.asarray(cv2.resize(mask, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.warpPerspective(mask, _FROM_CENTRE @ matrix @ _TO_CENTRE, size), np.uint8)


def cover_polygon(corners: Quad, size: tuple[int, int]) -> Pixels:
    """Coverage of a convex polygon, with soft edges, in a picture of width, height."""
    cover = np.zeros((size[1], size[0]), np.uint8)
    # The shift gives sixteenths of a pixel; minus a half goes to OpenCV's pixel centres.
    spots = np.round((corners - 0.5) * 16).astype(np.int32)
    cv2.fillConvexPoly(cover, spots, 255, cv2.LINE_AA, 4)
    return cover
