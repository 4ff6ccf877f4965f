"""Rendered pictures of words and the words' exact places, for training the embedded bundle.

Places are quads in continuous pixel coordinates: the pixel in column i covers i .. i + 1. A quad
runs clockwise from the text's own top left, so its first edge points in reading direction
whatever the angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.training import photometry, surfaces
from textspot_ray.training.fonts import FontLibrary
from textspot_ray.training.lettering import Lettering, bend, set_lines
from textspot_ray.training.surfaces import BackgroundLibrary
from textspot_ray.training.words import Vocabulary

Quad = NDArray[np.float32]
Pixels = NDArray[np.uint8]

# Letters are drawn at one of these sizes and shrunk, as a lens shrinks them (no hinting).
_DRAW_SIZES_PX = (40, 80, 160)


@dataclass(frozen=True, slots=True)
class WordPatch:
    """One word in its surroundings.

    Attributes:
        image: [H, W, 3] uint8, BGR.
        quad: [4, 2] float32, tight around the ink, clockwise from the text's top left.
        text: As drawn, case and punctuation kept.
    """

    image: Pixels
    quad: Quad
    text: str


def render_word(
    rng: np.random.Generator,
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    backgrounds: BackgroundLibrary | None = None,
) -> WordPatch:
    """Render a window around one word.

    Args:
        rng: Where all chance comes from: the same state gives the same patch.
        difficulty: 0 is at most four letters or digits, >= 24 px high, high contrast, on a plain
            surface; 1 is as hard as the incidental photographs of ICDAR2015.
        fonts: Faces to draw with.
        words: What to write.
        backgrounds: Real photographs; made-up surfaces only when None.

    Returns:
        The patch; its text always has a letter or digit, and the quad lies inside the image.
    """
    d = float(np.clip(difficulty, 0.0, 1.0))
    while True:
        text = words.draw(rng, 4 + int(round(d * 18)), plain=d < 0.15 or rng.random() > d)
        lettering, at = _set_word(rng, d, fonts, words, text)
        if lettering is None:
            continue
        box = lettering.boxes[at]
        if box[2] - box[0] >= 2 and box[3] - box[1] >= 4:
            break
    height = _text_height(rng, d)
    box_h = float(box[3] - box[1])
    if not any(
        char.isalnum() and (char.isupper() or char.isdigit() or char in "bdfhklt") for char in text
    ):
        height = max(height * 0.78, 7.0)
    to_patch, size = _place(rng, d, box, height, lettering)
    mask, to_patch = _warp(lettering.mask, to_patch, size, height / box_h)
    quad = project(to_patch, box_corners(box))
    sign_corners = project(to_patch, box_corners(_padded_extent(rng, lettering)))
    image = surfaces.any_surface(rng, size[0], size[1], d, backgrounds)
    if rng.random() < 0.25 * d:
        image = _lay_plate(rng, image, sign_corners)
    ground = _mean_under(image, quad)
    ink = ink_colour(rng, ground, contrast=_contrast(rng, d))
    image = _paint(rng, d, image, mask, ink, height)
    image = photometry.photograph(rng, image, d, height)
    return WordPatch(image, quad, text)


def _text_height(rng: np.random.Generator, d: float) -> float:
    """Ink height of a word with tall letters: 24..48 px when easy, 8..48 with a low mode when hard."""
    low = 24.0 - 16.0 * d
    spread = rng.random() ** (1.0 + 0.9 * d)
    return float(low * (48.0 / low) ** spread)


def _contrast(rng: np.random.Generator, d: float) -> float:
    """Least difference in luminance (0..255) between ink and ground."""
    return float(rng.uniform(110 - 80 * d, 150 - 60 * d))


def _set_word(
    rng: np.random.Generator, d: float, fonts: FontLibrary, words: Vocabulary, text: str
) -> tuple[Lettering | None, int]:
    size = _DRAW_SIZES_PX[1]
    font = fonts.open(fonts.draw(rng), size)
    spacing = 0.0
    if rng.random() < 0.35 * d:
        spacing = size * float(rng.choice([rng.uniform(-0.04, 0.0), rng.uniform(0.02, 0.3)]))
    lines: list[list[str]] = [[text]]
    at = 0
    if rng.random() < 0.55 * d:
        space = rng.random
        if space() < 0.45:
            lines[0].insert(0, words.draw(rng, 10))
            at = 1
        if space() < 0.45:
            lines[0].append(words.draw(rng, 10))
        if space() < 0.35:
            lines.insert(0, [words.draw(rng, 10) for _ in range(int(rng.integers(1, 3)))])
            at += len(lines[0])
        if space() < 0.35:
            lines.append([words.draw(rng, 10) for _ in range(int(rng.integers(1, 3)))])
    lettering = set_lines(
        font,
        lines,
        spacing_px=spacing,
        space_px=size * float(rng.uniform(0.22, 0.6)),
        leading_px=size * float(rng.uniform(0.95, 1.7)),
        align=float(rng.choice([0.0, 0.5, 0.5, 1.0])),
    )
    if lettering is None or text not in lettering.texts[at : at + 1]:
        return None, 0
    if len(text) >= 4 and rng.random() < 0.08 * d:
        lettering = bend(lettering, size * float(rng.uniform(-0.3, 0.3)))
    return lettering, at


def _padded_extent(rng: np.random.Generator, lettering: Lettering) -> NDArray[np.float32]:
    x0, y0 = lettering.boxes[:, :2].min(axis=0)
    x1, y1 = lettering.boxes[:, 2:].max(axis=0)
    pad_x, pad_y = rng.uniform(0.1, 0.8, 2) * _DRAW_SIZES_PX[1]
    return np.array([x0 - pad_x, y0 - pad_y, x1 + pad_x, y1 + pad_y], np.float32)


def box_corners(box: NDArray[np.float32]) -> Quad:
    """Corners of x0, y0, x1, y1, clockwise from the top left."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def project(matrix: NDArray[np.float64], points: Quad) -> Quad:
    """Apply a 3x3 homography to [n, 2] points."""
    lifted = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray(lifted[:, :2] / lifted[:, 2:], dtype=np.float32)


def _place(
    rng: np.random.Generator,
    d: float,
    box: NDArray[np.float32],
    height: float,
    lettering: Lettering,
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Where the word's box goes: a homography and the patch's size."""
    box_w, box_h = float(box[2] - box[0]), float(box[3] - box[1])
    width = height * box_w / box_h
    stretch = float(np.exp(rng.normal(0, 0.22 * d)))
    width *= stretch
    angle = _angle(rng, d)
    slant = float(rng.normal(0, 0.14 * d)) if rng.random() < 0.6 else 0.0
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    corners -= corners.mean(axis=0)
    corners[:, 0] -= slant * corners[:, 1]
    if rng.random() < 0.7 * d:
        # Seen from aside: one end is farther away, so smaller; from below: the top narrows.
        tilt = float(np.clip(rng.normal(0, 0.16 * d), -0.3, 0.3))
        tilt /= max(1.0, np.sqrt(width / height) * 0.6)
        nod = float(np.clip(rng.normal(0, 0.05 * d), -0.12, 0.12))
        far = 1.0 + tilt * np.sign(corners[:, 0]) + nod * np.array([-1.0, -1.0, 1.0, 1.0])
        corners *= far[:, None]
        corners[:, 1] += float(rng.normal(0, 0.05 * d)) * corners[:, 0]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = corners @ turn
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = height * rng.uniform(0.25, 0.3 + 0.9 * d, (2, 2)) + 4.0
    shift = -low + margin[0] + rng.random(2)
    target = (corners + shift).astype(np.float32)
    span = high - low + margin.sum(axis=0) + 1.0
    size = (int(np.ceil(span[0])), int(np.ceil(span[1])))
    matrix = cv2.getPerspectiveTransform(box_corners(box), target)
    return np.asarray(matrix, np.float64), size


def _angle(rng: np.random.Generator, d: float) -> float:
    """Reading direction in radians, counter-clockwise positive: mostly near level."""
    if d <= 0.02:
        return 0.0
    pick = rng.random()
    if pick < 0.04 * d:
        return float(rng.uniform(-np.pi, np.pi))
    if pick < 0.09 * d:
        return float(rng.choice([-np.pi / 2, np.pi / 2]) + rng.normal(0, 0.05))
    if pick < 0.25:
        return float(rng.normal(0, np.radians(2 + 16 * d)))
    return float(rng.normal(0, np.radians(0.5 + 4.5 * d)))


def _warp(
    mask: Pixels, matrix: NDArray[np.float64], size: tuple[int, int], scale: float
) -> tuple[Pixels, NDArray[np.float64]]:
    """Warp a mask by a homography of continuous coordinates, without aliasing.

    Args:
        mask: Coverage.
        matrix: From mask to picture.
        size: Width and height of the picture.
        scale: Roughly how many picture pixels a mask pixel covers.

    Returns:
        The warped mask, and the matrix that really was applied.
    """
    if scale < 0.75:
        shrunk = (
            max(1, round(mask.shape[1] * scale * 1.25)),
            max(1, round(mask.shape[0] * scale * 1.25)),
        )
        back = np.diag([mask.shape[1] / shrunk[0], mask.shape[0] / shrunk[1], 1.0])
        mask = np.asarray(cv2.resize(mask, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
        applied = matrix @ back
    else:
        applied = matrix
    # OpenCV puts a pixel's centre at its whole coordinate, we at a half.
    to_centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    from_centre = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    warped = cv2.warpPerspective(mask, from_centre @ applied @ to_centre, size)
    return np.asarray(warped, np.uint8), matrix


def _mean_under(image: Pixels, quad: Quad) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    x0, y0 = np.floor(quad.min(axis=0)).astype(int).clip(0, None)
    x1, y1 = np.ceil(quad.max(axis=0)).astype(int)
    piece = image[y0 : min(y1, height), x0 : min(x1, width)]
    return np.asarray(cv2.mean(piece)[:3], np.float32)


def luminance(colour: NDArray[np.float32]) -> float:
    """Luma of a BGR colour, 0..255 (ITU-R BT.601 weights)."""
    return float(colour @ np.array([0.114, 0.587, 0.299], np.float32))


def ink_colour(
    rng: np.random.Generator, ground: NDArray[np.float32], contrast: float
) -> NDArray[np.float32]:
    """A colour at least `contrast` (luminance, 0..255) away from the ground's."""
    base = luminance(ground)
    for _ in range(12):
        colour = surfaces.plain_colour(rng)
        if abs(luminance(colour) - base) >= contrast:
            return colour
    # No luck: the far end of the grey scale, or as much of it as is asked for.
    goal = base - contrast if base > 127 else base + contrast
    return np.full(3, float(np.clip(goal, 0, 255)), np.float32)


def _lay_plate(rng: np.random.Generator, image: Pixels, corners: Quad) -> Pixels:
    """A plate under the lettering, with or without a rim."""
    fill = tuple(float(v) for v in surfaces.plain_colour(rng))
    spots = np.round(corners * 16).astype(np.int32)
    image = image.copy()
    cv2.fillConvexPoly(image, spots, fill, cv2.LINE_AA, 4)
    if rng.random() < 0.5:
        rim = tuple(float(v) for v in surfaces.plain_colour(rng))
        cv2.polylines(image, [spots], True, rim, int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    return image


def blend(image: Pixels, colour: NDArray[np.float32], alpha: NDArray[np.float32]) -> Pixels:
    """Lay a colour over the picture with coverage alpha [H, W] in 0..1."""
    cover = alpha[:, :, None]
    mixed = image + (colour - image.astype(np.float32)) * cover
    return np.asarray(mixed.clip(0, 255), dtype=np.uint8)


def _paint(
    rng: np.random.Generator,
    d: float,
    image: Pixels,
    mask: Pixels,
    ink: NDArray[np.float32],
    height: float,
) -> Pixels:
    """Lay the ink down, with shadow, glow or outline below it now and then."""
    opposite = np.full(3, 0.0 if luminance(ink) > 127 else 255.0, np.float32)
    pick = rng.random()
    if pick < 0.10 * d and height >= 12:
        # Drop shadow: the mask moved and softened.
        offset = rng.uniform(0.03, 0.12, 2) * height * rng.choice([-1, 1], 2)
        move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
        shadow = cv2.warpAffine(mask, move, (mask.shape[1], mask.shape[0]))
        if rng.random() < 0.6:
            shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.4, 0.05 * height))
        cover = shadow.astype(np.float32) * (float(rng.uniform(0.3, 0.9)) / 255.0)
        image = blend(image, opposite * 0.8, cover)
    elif pick < 0.17 * d and height >= 14:
        reach = 2 * max(1, round(height * float(rng.uniform(0.02, 0.07)))) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        outline = cv2.dilate(mask, kernel)
        colour = opposite if rng.random() < 0.7 else surfaces.plain_colour(rng)
        image = blend(image, colour, outline.astype(np.float32) / 255.0)
    elif pick < 0.21 * d:
        halo = cv2.GaussianBlur(mask, (0, 0), max(0.8, 0.15 * height))
        cover = halo.astype(np.float32) * (float(rng.uniform(0.3, 0.8)) / 255.0)
        image = blend(image, ink if rng.random() < 0.5 else opposite, cover)
    opacity = 1.0 if rng.random() > 0.3 * d else float(rng.uniform(0.65, 1.0))
    return blend(image, ink, mask.astype(np.float32) * (opacity / 255.0))
