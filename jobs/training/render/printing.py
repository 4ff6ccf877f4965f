"""What printer, stamp, scanner and camera do to a page, its words carried along."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.render import photometry, surfaces
from jobs.training.render.fonts import FontLibrary
from jobs.training.render.homography import Pose, box_corners, project, shift
from jobs.training.render.lettering import draw_word
from jobs.training.render.paint import blend
from jobs.training.render.placing import SceneWord
from jobs.training.render.sheets import Sheet
from jobs.training.render.surfaces import BackgroundLibrary
from jobs.training.render.words import Vocabulary

Pixels = NDArray[np.uint8]


def printed(rng: np.random.Generator, sheet: Sheet, d: float, colourful: bool) -> Pixels:
    """Ink on paper: colours, gaps of a print head, faint places.

    Args:
        rng: Where chance comes from.
        sheet: What is set.
        d: Difficulty, 0..1: how bad the printer is.
        colourful: Whether paper and ink may have any colours.

    Returns:
        [H, W, 3] BGR.
    """
    height, width = sheet.ink.shape
    paper = np.full(3, float(rng.uniform(215, 255)), np.float32) + rng.normal(0, 4, 3).astype(
        np.float32
    )
    ink = np.full(3, float(rng.uniform(0, 90)), np.float32)
    if rng.random() < 0.15:
        ink += np.array([rng.uniform(20, 120), 0, 0], np.float32)
    if colourful and rng.random() < 0.7:
        for _ in range(10):
            paper, ink = surfaces.plain_colour(rng), surfaces.plain_colour(rng)
            if abs(float(paper.mean() - ink.mean())) > 90:
                break
        else:
            paper, ink = np.full(3, 250, np.float32), np.full(3, 20, np.float32)
    image = surfaces.flat(width, height, paper.clip(0, 255))
    cover = sheet.ink.astype(np.float32) / np.float32(255)
    if rng.random() < 0.35 * d:  # dots of the head that are dead, or a paper that slipped
        for _ in range(int(rng.integers(1, 4))):
            column = int(rng.integers(width))
            cover[:, column : column + int(rng.integers(1, 3))] *= float(rng.uniform(0, 0.5))
    if rng.random() < 0.25 * d:
        step = int(rng.integers(2, 4))
        cover[::step] *= float(rng.uniform(0.35, 0.8))
    if rng.random() < 0.5 * d:  # faint and strong places
        cells = rng.uniform(1 - 0.7 * d, 1.0, (int(rng.integers(2, 7)), int(rng.integers(2, 5))))
        field_ = cv2.resize(
            cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )
        cover = cover * field_.clip(0.25, 1)
    if rng.random() < 0.3 * d:  # ink that did not take everywhere
        grain = rng.random((height, width), np.float32) < rng.uniform(0.03, 0.15)
        cover = np.where(grain, cover * 0.3, cover)
    printed = blend(image, ink, np.ascontiguousarray(cover, np.float32))
    if rng.random() < 0.15:
        printed = np.asarray(cv2.dilate(255 - printed, np.ones((2, 2), np.uint8)), np.uint8)
        printed = np.asarray(255 - printed, np.uint8)
    return printed


def inverted(
    rng: np.random.Generator, image: Pixels, found: list[SceneWord], share: float
) -> tuple[Pixels, list[SceneWord]]:
    """Turn bands of the page to negative; words that lie across an edge count no more.

    Args:
        rng: Where chance comes from.
        image: The page, [H, W, 3].
        found: Its words.
        share: How often there are bands at all.
    """
    image = image.copy()
    height = image.shape[0]
    for _ in range(int(rng.integers(1, 3)) if rng.random() < share else 0):
        top = int(rng.integers(height))
        low = top + int(rng.integers(20, 80))
        image[top:low] = 255 - image[top:low]

        def cut(word: SceneWord, edges: tuple[int, int] = (top, low)) -> bool:
            y0, y1 = float(word.quad[:, 1].min()), float(word.quad[:, 1].max())
            return any(y0 < edge < y1 for edge in edges)

        found = [SceneWord(w.quad, w.text, w.legible and not cut(w)) for w in found]
    return image, found


def bilevel(rng: np.random.Generator, image: Pixels) -> Pixels:
    """As an old scanner or a fax stores it: black and white, with specks."""
    grey = cv2.GaussianBlur(
        cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), float(rng.uniform(0.3, 0.9))
    )
    level = float(np.median(grey)) * float(rng.uniform(0.6, 0.85))
    black = (grey < level).astype(np.uint8)
    specks = rng.random(black.shape, np.float32) < float(rng.uniform(0, 0.003))
    flat = np.where(black ^ specks.astype(np.uint8), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(flat, cv2.COLOR_GRAY2BGR), np.uint8)


def stamped(
    rng: np.random.Generator,
    image: Pixels,
    found: list[SceneWord],
    fonts: FontLibrary,
    words: Vocabulary,
) -> tuple[Pixels, list[SceneWord]]:
    """Press a stamp onto the page, turned; what it hides is no longer legible.

    Args:
        rng: Where chance comes from.
        image: The page, [H, W, 3].
        found: Its words.
        fonts: Faces.
        words: What it says when not PAID or its like.
    """
    height, width = image.shape[:2]
    size = int(rng.integers(22, 60))
    text = str(rng.choice(["PAID", "RECEIVED", "COPY", "APPROVED", "VOID"]))
    text = text if rng.random() < 0.6 else words.draw(rng, 9, plain=True).upper()
    ink = draw_word(fonts.open(fonts.draw(rng, text), size), text)
    if ink is None or ink.mask.shape[1] + 40 > width or ink.mask.shape[0] + 40 > height:
        return image, found
    high, wide = ink.mask.shape
    pad = size // 3
    mask = cv2.copyMakeBorder(ink.mask, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    cv2.rectangle(mask, (1, 1), (mask.shape[1] - 2, mask.shape[0] - 2), 255, max(2, size // 14))
    angle = float(rng.normal(0, 0.25))
    x = float(rng.uniform(0.5 * wide + 20, width - 0.5 * wide - 20))
    y = float(rng.uniform(0.5 * high + 20, height - 0.5 * high - 20))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, x], [s, c, y], [0, 0, 1.0]])
    matrix = turn @ shift(-mask.shape[1] / 2, -mask.shape[0] / 2)
    warped = cv2.warpPerspective(
        mask, shift(-0.5, -0.5) @ matrix @ shift(0.5, 0.5), (width, height)
    )
    colour = np.array(
        [[40, 30, 190], [170, 60, 30], [90, 30, 120]][int(rng.integers(3))], np.float32
    )
    cover = warped.astype(np.float32) * np.float32(float(rng.uniform(0.5, 0.95)) / 255)
    image = blend(image, colour, cover)
    quad = project(matrix, box_corners(np.array([pad, pad, pad + wide, pad + high], np.float32)))
    whole = project(matrix, box_corners(np.array([0, 0, *mask.shape[::-1]], np.float32)))
    seen = []
    for word in found:
        shared, _ = cv2.intersectConvexConvex(whole, word.quad)
        hidden = float(shared) > 0.05 * float(cv2.contourArea(word.quad))
        seen.append(SceneWord(word.quad, word.text, word.legible and not hidden))
    inside = bool((quad > 0).all() and (quad < [width, height]).all())
    return image, [*seen, SceneWord(quad, text, True)] if inside else seen


def laid_down(
    rng: np.random.Generator,
    image: Pixels,
    found: list[SceneWord],
    d: float,
    backgrounds: BackgroundLibrary | None,
) -> tuple[Pixels, list[SceneWord]]:
    """Scan the page a little turned, or photograph it on a table.

    Args:
        rng: Where chance comes from.
        image: The page, [H, W, 3].
        found: Its words.
        d: Difficulty, 0..1: how far a photographed page is turned, how uneven its light.
        backgrounds: What it lies on; a made-up surface when None.

    Returns:
        The picture and the words that are whole in it.
    """
    height, width = image.shape[:2]
    photographed = rng.random() < 0.3
    turned = float(rng.normal(0, 0.012 + 0.03 * d * photographed))
    pose = Pose(
        float(rng.normal(0, 0.12 * d)) if photographed else 0.0,
        float(rng.normal(0, 0.12 * d)) if photographed else 0.0,
        turned,
        0.0,
        0.0,
    )
    margin = int(rng.integers(0, 60)) if photographed else int(rng.integers(0, 16))
    size = (width + 2 * margin, height + 2 * margin)
    if photographed and backgrounds is not None:
        ground = backgrounds.cut(rng, *size)
    elif photographed:
        ground = surfaces.shaded(rng, *size, 0.5)
    else:
        ground = surfaces.flat(*size, np.full(3, rng.uniform(200, 255), np.float32))
    centre = shift(size[0] / 2, size[1] / 2)
    matrix = centre @ pose.matrix(1.2 * max(size)) @ shift(-width / 2, -height / 2)
    centred = shift(-0.5, -0.5) @ matrix @ shift(0.5, 0.5)
    ink = cv2.warpPerspective(image, centred, size, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpPerspective(np.full((height, width), 255, np.uint8), centred, size)
    laid = np.asarray(ground.copy(), np.uint8)
    cv2.copyTo(np.asarray(ink, np.uint8), cover, laid)
    if photographed:
        laid = photometry.uneven_light(rng, laid, 0.25 * d)
    moved = []
    for word in found:
        quad = project(matrix, word.quad)
        if (quad >= 0).all() and (quad <= size).all():
            moved.append(SceneWord(quad, word.text, word.legible))
    return laid, moved
