"""Words set in a face: an ink mask of whole lines, and each word's ink box in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Mask = NDArray[np.uint8]

# Ink lighter than this (of 255) is a glyph's soft edge, not part of its box.
_INK_FLOOR = 40


@dataclass(frozen=True, slots=True)
class Ink:
    """One drawn word.

    Attributes:
        mask: [h, w] uint8 coverage, tight around the ink.
        left: Columns from the pen's start to the mask's first column.
        top: Rows from the baseline up to the mask's first row (negative = above it).
        advance: Columns the pen moves.
    """

    mask: Mask
    left: int
    top: int
    advance: float


@dataclass(frozen=True, slots=True)
class Lettering:
    """Lines of words as one mask.

    Attributes:
        mask: [h, w] uint8 coverage with a margin of empty pixels.
        boxes: [n, 4] float32 ink boxes x0, y0, x1, y1 (edges of pixels: x1 is exclusive).
        texts: n texts, line after line.
        lines: n line numbers.
    """

    mask: Mask
    boxes: NDArray[np.float32]
    texts: tuple[str, ...]
    lines: tuple[int, ...]


def draw_word(font: ImageFont.FreeTypeFont, text: str, spacing_px: float = 0.0) -> Ink | None:
    """Draw one word; spacing is added after every letter.

    Returns:
        The ink, or None where the face draws nothing for this text, or far outside its line.
    """
    size = int(font.size)
    if spacing_px:
        advances = [max(1.0, font.getlength(char) + spacing_px) for char in text]
    else:
        advances = [font.getlength(text)]
    pen_x, pen_y = size // 2 + 2, round(1.5 * size)
    canvas = Image.new("L", (int(sum(advances)) + 2 * pen_x, round(2.2 * size)))
    draw = ImageDraw.Draw(canvas)
    if spacing_px:
        x = float(pen_x)
        for char, advance in zip(text, advances, strict=True):
            draw.text((x, pen_y), char, font=font, fill=255, anchor="ls")
            x += advance
    else:
        draw.text((pen_x, pen_y), text, font=font, fill=255, anchor="ls")
    mask: Mask = np.asarray(canvas)
    box = ink_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    if x0 == 0 or y0 == 0 or x1 == mask.shape[1] or y1 == mask.shape[0]:
        # Swashes beyond the canvas: cut letters are worse than none.
        return None
    return Ink(mask[y0:y1, x0:x1], x0 - pen_x, y0 - pen_y, sum(advances))


def ink_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of a mask's ink, None where there is none."""
    x, y, width, height = cv2.boundingRect((mask > _INK_FLOOR).view(np.uint8))
    return (x, y, x + width, y + height) if width and height else None


def set_lines(
    font: ImageFont.FreeTypeFont,
    lines: Sequence[Sequence[str]],
    *,
    spacing_px: float = 0.0,
    space_px: float = 0.0,
    leading_px: float = 0.0,
    align: float = 0.5,
    margin_px: int = 4,
) -> Lettering | None:
    """Set lines of words on a common grid of baselines.

    Args:
        font: The face at the size to draw.
        lines: Words of each line.
        spacing_px: Extra columns after every letter.
        space_px: Columns between words.
        leading_px: Rows between the baselines of two lines.
        align: 0 lines start together, 0.5 are centred, 1 end together.
        margin_px: Empty pixels on every side.

    Returns:
        The lettering, or None where no word has ink.
    """
    placed: list[tuple[Ink, float, float, str, int]] = []
    widths: list[float] = []
    for number, line in enumerate(lines):
        x = 0.0
        for text in line:
            ink = draw_word(font, text, spacing_px)
            if ink is None:
                continue
            placed.append((ink, x + ink.left, number * leading_px + ink.top, text, number))
            x += max(ink.advance, ink.left + ink.mask.shape[1]) + space_px
        widths.append(x - space_px)
    if not placed:
        return None
    longest = max(widths)
    spots = [
        (round(x + align * (longest - widths[number])), round(y)) for _, x, y, _, number in placed
    ]
    left = min(x for x, _ in spots) - margin_px
    top = min(y for _, y in spots) - margin_px
    right = max(x + ink[0].mask.shape[1] for (x, _), ink in zip(spots, placed, strict=True))
    bottom = max(y + ink[0].mask.shape[0] for (_, y), ink in zip(spots, placed, strict=True))
    mask = np.zeros((bottom - top + margin_px, right - left + margin_px), np.uint8)
    boxes = np.empty((len(placed), 4), np.float32)
    for at, ((x, y), (ink, *_)) in enumerate(zip(spots, placed, strict=True)):
        height, width = ink.mask.shape
        window = mask[y - top : y - top + height, x - left : x - left + width]
        np.maximum(window, ink.mask, out=window)
        boxes[at] = (x - left, y - top, x - left + width, y - top + height)
    return Lettering(
        mask, boxes, tuple(item[3] for item in placed), tuple(item[4] for item in placed)
    )


def bend(lettering: Lettering, sag_px: float) -> Lettering:
    """Bend the lines into a shallow arc: the middle moves down by sag_px (up when negative)."""
    height, width = lettering.mask.shape
    reach = int(np.ceil(abs(sag_px)))
    columns = np.arange(width, dtype=np.float32)
    shift = sag_px * (1.0 - ((columns - width / 2) / (width / 2)) ** 2)
    rows = np.arange(height + reach, dtype=np.float32)[:, None]
    offset = float(reach) if sag_px < 0 else 0.0
    map_y = rows - offset - shift[None, :]
    map_x = np.broadcast_to(columns, map_y.shape)

    def bent(mask: Mask) -> Mask:
        moved = cv2.remap(mask, np.ascontiguousarray(map_x), map_y, cv2.INTER_LINEAR)
        return np.asarray(moved, np.uint8)

    boxes = lettering.boxes.copy()
    for at, (x0, y0, x1, y1) in enumerate(lettering.boxes.astype(int)):
        alone = np.zeros_like(lettering.mask)
        alone[y0:y1, x0:x1] = lettering.mask[y0:y1, x0:x1]
        box = ink_box(bent(alone))
        if box is not None:
            boxes[at] = box
    return Lettering(bent(lettering.mask), boxes, lettering.texts, lettering.lines)
