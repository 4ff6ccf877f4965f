"""Ink on surfaces: colours that stand out enough, shadows, outlines, glow, plates."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.render import surfaces
from jobs.training.render.homography import Quad

Pixels = NDArray[np.uint8]
Colour = NDArray[np.float32]

# BGR weights of luma, ITU-R BT.601.
_LUMA = np.array([0.114, 0.587, 0.299], np.float32)


def luminance(colour: Colour) -> float:
    """Luma of a BGR colour, 0..255."""
    return float(colour @ _LUMA)


def mean_under(image: Pixels, quad: Quad) -> Colour:
    """Mean colour of the picture within a quad's upright box."""
    height, width = image.shape[:2]
    x0, y0 = np.floor(quad.min(axis=0)).astype(int).clip(0, (width - 1, height - 1))
    x1, y1 = np.ceil(quad.max(axis=0)).astype(int).clip((x0 + 1, y0 + 1), None)
    return np.asarray(cv2.mean(image[y0:y1, x0:x1])[:3], np.float32)


def ink_colour(rng: np.random.Generator, ground: Colour, contrast: float) -> Colour:
    """A colour at least `contrast` (luminance, 0..255) away from the ground's.

    White, black and greys are as frequent as all other colours together; with a low contrast
    now and then a darker or lighter shade of the ground itself (cut or moulded letters).
    """
    base = luminance(ground)
    pick = rng.random()
    if pick < 0.15:
        step = contrast * float(rng.uniform(1.0, 1.6)) * (1 if rng.random() < 0.5 else -1)
        shade = ground + step
        if shade.min() >= 0 and shade.max() <= 255:
            return np.asarray(shade, np.float32)
    for _ in range(12):
        if pick < 0.55:
            bright = rng.random() < (0.7 if base < 150 else 0.2)
            grey = rng.uniform(205, 255) if bright else rng.uniform(0, 60)
            colour = np.asarray(np.clip(grey + rng.normal(0, 5, 3), 0, 255), np.float32)
        else:
            colour = surfaces.plain_colour(rng)
        if abs(luminance(colour) - base) >= contrast:
            return colour
        pick = rng.random()
    # No luck: the far end of the grey scale, or as much of it as is asked for.
    goal = base - contrast if base > 127 else base + contrast
    return np.full(3, float(np.clip(goal, 0, 255)), np.float32)


def blend(image: Pixels, colour: Colour | Pixels, alpha: NDArray[np.float32]) -> Pixels:
    """Lay a colour or a picture over the image with coverage alpha [H, W] in 0..1."""
    cover = cv2.merge([alpha, alpha, alpha])
    base = image.astype(np.float32)
    mixed = base + (colour - base) * cover
    return np.asarray(cv2.convertScaleAbs(mixed), dtype=np.uint8)


def lay_rim(rng: np.random.Generator, image: Pixels, corners: Quad, width_px: int) -> Pixels:
    """Draw a plate's rim."""
    rim = tuple(float(v) for v in surfaces.plain_colour(rng))
    spots = np.round((corners - 0.5) * 16).astype(np.int32)
    image = image.copy()
    cv2.polylines(image, [spots], True, rim, width_px, cv2.LINE_AA, 4)
    return image


def _grown(mask: Pixels, reach_px: int) -> Pixels:
    side = 2 * reach_px + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)


def lay_ink(
    rng: np.random.Generator,
    difficulty: float,
    image: Pixels,
    mask: Pixels,
    ink: Colour,
    text_px: float,
) -> Pixels:
    """Lay ink down where the mask is, with shadow, outline, depth or glow below now and then.

    Args:
        rng: Where chance comes from.
        difficulty: Scales how often there is more than flat ink.
        image: BGR.
        mask: [H, W] uint8 coverage.
        ink: Colour of the letters.
        text_px: Height of the letters in the picture.
    """
    d = difficulty
    opposite = np.full(3, 0.0 if luminance(ink) > 127 else 255.0, np.float32)
    pick = rng.random()
    if pick < 0.09 * d and text_px >= 12:
        offset = rng.uniform(0.03, 0.12, 2) * text_px * rng.choice([-1, 1], 2)
        move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
        shadow = cv2.warpAffine(mask, move, (mask.shape[1], mask.shape[0]))
        if rng.random() < 0.6:
            shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.4, 0.05 * text_px))
        cover = shadow.astype(np.float32) * (float(rng.uniform(0.3, 0.9)) / 255.0)
        image = blend(image, opposite * np.float32(0.8), cover)
    elif pick < 0.15 * d and text_px >= 14:
        outline = _grown(mask, max(1, round(text_px * float(rng.uniform(0.02, 0.07)))))
        colour = opposite if rng.random() < 0.7 else surfaces.plain_colour(rng)
        image = blend(image, colour, outline.astype(np.float32) / 255.0)
    elif pick < 0.20 * d and text_px >= 16:
        # Box letters: a side face in a darker shade of the ink.
        deep = max(1, round(text_px * float(rng.uniform(0.03, 0.12))))
        step_x, step_y = (int(v) for v in rng.integers(-1, 2, 2))
        side = mask
        for far in range(1, deep + 1):
            move = np.array([[1, 0, far * step_x], [0, 1, far * step_y]], np.float64)
            side = np.maximum(side, cv2.warpAffine(mask, move, (mask.shape[1], mask.shape[0])))
        shade = ink * np.float32(rng.uniform(0.3, 0.75))
        image = blend(image, shade, side.astype(np.float32) / 255.0)
    elif pick < 0.29 * d:
        # Lit letters: their light spills over the panel.
        halo = cv2.GaussianBlur(mask, (0, 0), max(0.8, float(rng.uniform(0.08, 0.25)) * text_px))
        cover = halo.astype(np.float32) * (float(rng.uniform(0.3, 0.9)) / 255.0)
        image = blend(image, ink if rng.random() < 0.7 else opposite, cover)
    if rng.random() < 0.06 * d and text_px >= 18:
        core = cv2.erode(mask, np.ones((3, 3), np.uint8))
        mask = np.asarray(cv2.subtract(mask, core), np.uint8)
        if rng.random() < 0.5:
            inside = core.astype(np.float32) / 255.0
            image = blend(image, surfaces.plain_colour(rng), inside)
    opacity = 1.0 if rng.random() > 0.3 * d else float(rng.uniform(0.65, 1.0))
    return blend(image, ink, mask.astype(np.float32) * np.float32(opacity / 255.0))
