"""One word in a small window of its own: what the reader trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.training.render import paint, photometry, surfaces
from jobs.training.render.fonts import FontLibrary
from jobs.training.render.homography import (
    Matrix,
    Quad,
    box_corners,
    cover_polygon,
    draw_pose,
    project,
    shift,
    side_lengths,
    warp_mask,
    zoom,
)
from jobs.training.render.lettering import Lettering, bend, set_lines
from jobs.training.render.surfaces import BackgroundLibrary
from jobs.training.render.words import Vocabulary

Pixels = NDArray[np.uint8]

# Letters are drawn at one of these sizes and shrunk, as a lens shrinks them (no hinting): the
# smaller one for words up to so many pixels.
_DRAW_SIZES_PX = (40, 80)
_SMALL_TEXT_PX = 28.0
# Focal length of the camera that sees the window, px: a phone's, for a picture 1280 px wide.
_FOCAL_PX = 1100.0
_TALL = frozenset("bdfhklt")


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
        plain = d < 0.15 or rng.random() > d
        text = words.draw(rng, 4 + round(d * 18), plain)
        text_px = _text_height(rng, d, text)
        draw_px = _DRAW_SIZES_PX[0 if text_px <= _SMALL_TEXT_PX else 1]
        lettering, at = _set_word(rng, d, draw_px, fonts, words, text)
        if lettering is None:
            continue
        box = lettering.boxes[at]
        if box[2] - box[0] >= 2 and box[3] - box[1] >= 4:
            break
    to_patch, size, scale = _place(rng, d, box, text_px)
    quad = project(to_patch, box_corners(box))
    text_px = min(text_px, side_lengths(quad)[1])
    mask = warp_mask(lettering.mask, to_patch, size, scale)
    image = surfaces.any_surface(rng, size[0], size[1], d, backgrounds)
    if rng.random() < 0.25 * d:
        corners = project(to_patch, box_corners(_padded_extent(rng, lettering, draw_px)))
        cover = cover_polygon(corners, size).astype(np.float32) / np.float32(255)
        image = paint.blend(image, surfaces.shaded(rng, *size, d), cover)
        if rng.random() < 0.5:
            image = paint.lay_rim(rng, image, corners, int(rng.integers(1, 4)))
    contrast = float(rng.uniform(110 - 75 * d, 150 - 60 * d))
    ink = paint.ink_colour(rng, paint.mean_under(image, quad), contrast)
    image = paint.lay_ink(rng, d, image, mask, ink, text_px)
    image = photometry.photograph(rng, image, d, text_px)
    return WordPatch(image, quad, text)


def _text_height(rng: np.random.Generator, d: float, text: str) -> float:
    """Ink height: 24..48 px when easy, 9.5..62 px with a median near 22 when hard."""
    low, high = 24.0 - 14.5 * d, 48.0 + 14.0 * d
    height = float(low * (high / low) ** (rng.random() ** (1.0 + 0.2 * d)))
    # "sun" is lower than "SUN" and "tall" at the same type size.
    flat = not any(char.isupper() or char.isdigit() or char in _TALL for char in text)
    return max(0.78 * height, 8.0 + 10.0 * (1 - d)) if flat else height


def _set_word(
    rng: np.random.Generator,
    d: float,
    draw_px: int,
    fonts: FontLibrary,
    words: Vocabulary,
    text: str,
) -> tuple[Lettering | None, int]:
    """Set the word, with neighbours now and then; its place among the lettering's words."""
    size = draw_px
    spacing = 0.0
    if rng.random() < 0.35 * d:
        tight = rng.random() < 0.35
        spacing = size * float(rng.uniform(-0.05, 0.0) if tight else rng.uniform(0.02, 0.25))
    lines: list[list[str]] = [[text]]
    at = 0
    if rng.random() < 0.75 * d:
        if rng.random() < 0.5:
            lines[0].insert(0, words.draw(rng, 10))
            at = 1
        if rng.random() < 0.5:
            lines[0].append(words.draw(rng, 10))
        if rng.random() < 0.35:
            lines.insert(0, [words.draw(rng, 10) for _ in range(int(rng.integers(1, 3)))])
            at += len(lines[0])
        if rng.random() < 0.35:
            lines.append([words.draw(rng, 10) for _ in range(int(rng.integers(1, 3)))])
    everything = "".join(word for line in lines for word in line)
    lettering = set_lines(
        fonts.open(fonts.draw(rng, everything), size),
        lines,
        spacing_px=spacing,
        space_px=size * float(rng.uniform(0.15, 0.55)),
        leading_px=size * float(rng.uniform(0.95, 1.7)),
        align=float(rng.choice([0.0, 0.5, 0.5, 1.0])),
    )
    if lettering is None or text not in lettering.texts[at : at + 1]:
        return None, 0
    if len(text) >= 4 and rng.random() < 0.08 * d:
        lettering = bend(lettering, size * float(rng.uniform(-0.3, 0.3)))
    return lettering, at


def _padded_extent(
    rng: np.random.Generator, lettering: Lettering, draw_px: int
) -> NDArray[np.float32]:
    x0, y0 = lettering.boxes[:, :2].min(axis=0)
    x1, y1 = lettering.boxes[:, 2:].max(axis=0)
    pad_x, pad_y = rng.uniform(0.1, 0.8, 2) * draw_px
    return np.array([x0 - pad_x, y0 - pad_y, x1 + pad_x, y1 + pad_y], np.float32)


def _place(
    rng: np.random.Generator, d: float, box: NDArray[np.float32], text_px: float
) -> tuple[Matrix, tuple[int, int], float]:
    """Where the word goes: a homography, the window's width and height, the scale."""
    scale = text_px / float(box[3] - box[1])
    stretch = float(np.exp(rng.normal(-0.22 * d, 0.16 * d)))
    slant = float(rng.normal(0, 0.10 * d)) if rng.random() < 0.3 else 0.0
    lean = np.array([[1, -slant, 0], [0, 1, 0], [0, 0, 1.0]])
    middle = (box[:2] + box[2:]) / 2
    to_plane = lean @ zoom(scale * stretch, scale) @ shift(-float(middle[0]), -float(middle[1]))
    pose = draw_pose(rng, d, float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.3, 0.25)))
    seen = pose.matrix(_FOCAL_PX) @ to_plane
    spots = project(seen, box_corners(box))
    low, high = spots.min(axis=0), spots.max(axis=0)
    # Thin strips stay thin: the margin follows the letters, not the window.
    margin = text_px * rng.uniform(0.25, 0.3 + 0.9 * d, (2, 2)) + 4.0
    origin = -low + margin[0] + rng.random(2)
    span = np.ceil(high - low + margin.sum(axis=0) + 1.0).astype(int)
    to_patch = shift(float(origin[0]), float(origin[1])) @ seen
    return to_patch, (int(span[0]), int(span[1])), scale
