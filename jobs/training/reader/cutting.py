"""A word cut out of a small image by OpenCV, as the graph's GridSample would lay it upright."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from jobs.training.data.word_crop import Floats, Image
from jobs.training.refiner.rectification import (
    LEVEL_STRIDES,
    MAX_ROW_STEP,
    READER_PATCH,
    PatchShape,
)


@dataclass(frozen=True, slots=True)
class Wave:
    """How letters are squeezed along a word and lifted off its line, as by another hand or a bent
    surface; a plain quad has none.

    Attributes:
        squeeze: local change of letter width, share; below 1 so that letters keep their order.
        lift: how far the line leaves its middle, share of the height.
        periods: waves along the word, of squeeze and lift.
        phases: where they begin, radians.
    """

    squeeze: float
    lift: float
    periods: tuple[float, float]
    phases: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> Wave:
        """A random one."""
        periods, phases = rng.uniform(0.5, 2.0, 2), rng.uniform(0, 2 * np.pi, 2)
        return cls(
            squeeze=float(np.clip(rng.normal(0, 0.25 * strength), -0.6, 0.6)),
            lift=float(np.clip(rng.normal(0, 0.04 * strength), -0.1, 0.1)),
            periods=(float(periods[0]), float(periods[1])),
            phases=(float(phases[0]), float(phases[1])),
        )


def cut(
    image: Image,
    quad: Floats,
    wave: Wave | None = None,
    shape: PatchShape = READER_PATCH,
    enlargement: float = 1.0,
) -> tuple[Image, Floats]:
    """:func:`rectification.rectify` for one small image, by OpenCV.

    Args:
        image: [H, W, 3] uint8.
        quad: [4, 2] corners.
        wave: bends the sampling lines.
        shape: of the patch.
        enlargement: how much larger the picture is than its own pixels, as in `planar_grid`.

    Returns:
        Pixels [height, width, 3] uint8 and shape codes [2].
    """
    tl, tr, br, bl = quad.astype(np.float32)
    width = max(float(np.linalg.norm((tr - tl + br - bl) / 2)), 1.0)
    height = max(float(np.linalg.norm((bl - tl + br - tr) / 2)), 1.0)
    rows = (np.arange(shape.height, dtype=np.float32) + 0.5) / shape.height
    cols = (np.arange(shape.width, dtype=np.float32) + 0.5) / shape.width
    margin = min(shape.margin_x * height / width, shape.max_margin)
    v = (rows * (1 + 2 * shape.margin_y) - shape.margin_y)[:, None, None]
    u = (cols * (1 + 2 * margin) - margin)[None, :, None]
    if wave is not None:
        (k1, k2), (p1, p2) = wave.periods, wave.phases
        bent = wave.squeeze / (2 * np.pi * k1) * np.sin(2 * np.pi * k1 * u + p1)
        # The ends stay where they are: taper to nothing at u = 0 and 1.
        v = v + wave.lift * np.sin(2 * np.pi * k2 * u + p2)
        u = u + bent * np.clip(np.minimum(u, 1 - u) * 6, 0, 1)
    points = (tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v
    step = height / enlargement * (1 + 2 * shape.margin_y) / shape.height / MAX_ROW_STEP
    stride = 1
    while step > stride and stride < LEVEL_STRIDES[-1]:
        stride *= 2
    if stride > 1:
        h, w = (-(-n // stride) * stride for n in image.shape[:2])
        padded = cv2.copyMakeBorder(
            image, 0, h - image.shape[0], 0, w - image.shape[1], cv2.BORDER_REPLICATE
        )
        image = cv2.resize(padded, (w // stride, h // stride), interpolation=cv2.INTER_AREA)
    points = (points / stride - 0.5).astype(np.float32)
    pixels = cv2.remap(
        image,
        np.ascontiguousarray(points[..., 0]),
        np.ascontiguousarray(points[..., 1]),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    codes = np.array([np.log2(width / height), np.log2(height / 16)], np.float32)
    return pixels, codes
