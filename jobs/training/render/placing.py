"""Signs hung in a picture: panel and ink painted, each word's quad and legibility noted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.training.render import paint, surfaces
from jobs.training.render.homography import (
    Matrix,
    Quad,
    box_corners,
    cover_polygon,
    project,
    shift,
    side_lengths,
    warp_mask,
    zoom,
)
from jobs.training.render.signs import Block, Sign, SignKind, block_boxes
from jobs.training.render.surfaces import BackgroundLibrary

Pixels = NDArray[np.uint8]

# Ink lower than this cannot be read, whatever the light.
LEGIBLE_PX = 7.5


@dataclass(frozen=True, slots=True)
class SceneWord:
    """One word of a scene.

    Attributes:
        quad: [4, 2] float32, tight around the ink, clockwise from the text's top left.
        text: As drawn, case and punctuation kept.
        legible: Whether a person could read it; "###" in ICDAR's form where not.
    """

    quad: Quad
    text: str
    legible: bool


def hang_sign(
    rng: np.random.Generator,
    image: Pixels,
    sign: Sign,
    matrix: Matrix,
    d: float,
    backgrounds: BackgroundLibrary | None,
    clean: bool,
) -> tuple[Pixels, list[SceneWord]]:
    """Paint one sign into the picture (in place) and give its words.

    Args:
        rng: Where chance comes from.
        image: BGR; changed.
        sign: What to hang.
        matrix: From the sign's pixels to the picture's.
        d: Difficulty, 0..1.
        backgrounds: Where photographs on posters come from.
        clean: Plain panels and flat ink only.
    """
    panel = project(matrix, box_corners(np.array([0, 0, sign.width, sign.height], np.float32)))
    height, width = image.shape[:2]
    x0, y0 = np.floor(panel.min(axis=0) - 6).astype(int).clip(0, None)
    x1, y1 = np.ceil(panel.max(axis=0) + 6).astype(int).clip(None, (width, height))
    window = image[y0:y1, x0:x1]
    size = (int(x1 - x0), int(y1 - y0))
    local = shift(-float(x0), -float(y0)) @ matrix
    if sign.panel:
        corners = project(local, box_corners(np.array([0, 0, sign.width, sign.height], np.float32)))
        cover = cover_polygon(corners, size).astype(np.float32) / np.float32(255)
        poster = sign.kind is SignKind.POSTER and rng.random() < 0.3 and not clean
        face = (
            surfaces.any_surface(rng, *size, 1.0, backgrounds)
            if poster
            else surfaces.shaded(rng, *size, 0.3 if clean else max(d, 0.1))
        )
        window = paint.blend(window, face, cover)
        if rng.random() < 0.3:
            window = paint.lay_rim(rng, window, corners, int(rng.integers(1, 5)))
    found: list[SceneWord] = []
    for block in sign.blocks:
        window, new = _lay_block(rng, window, block, local, size, d, clean)
        found += new
    image[y0:y1, x0:x1] = window
    back = np.array([x0, y0], np.float32)
    return image, [SceneWord(word.quad + back, word.text, word.legible) for word in found]


def _lay_block(
    rng: np.random.Generator,
    window: Pixels,
    block: Block,
    local: Matrix,
    size: tuple[int, int],
    d: float,
    clean: bool,
) -> tuple[Pixels, list[SceneWord]]:
    to_sign = shift(block.x, block.y) @ zoom(block.scale * block.stretch, block.scale)
    mask = warp_mask(block.lettering.mask, local @ to_sign, size, block.scale)
    quads = [project(local, box_corners(box)) for box in block_boxes(block)]
    everything = np.concatenate(quads)
    contrast = float(rng.uniform(110 - 75 * d, 150 - 60 * d))
    ground = paint.mean_under(window, everything)
    ink = paint.ink_colour(rng, ground, contrast)
    heights = [side_lengths(quad)[1] for quad in quads]
    window = paint.lay_ink(rng, 0.0 if clean else d, window, mask, ink, min(heights))
    clear = abs(paint.luminance(ground) - paint.luminance(ink)) >= 22
    found = []
    for quad, text, high in zip(quads, block.lettering.texts, heights, strict=True):
        wide_enough = side_lengths(quad)[0] >= 3.0 * len(text)
        found.append(SceneWord(quad, text, clear and high >= LEGIBLE_PX and wide_enough))
    return window, found
