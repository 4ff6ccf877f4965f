"""The pictures that files are made of: words on a ground, with a ramp that shows lost bits."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def words(width: int = 160, height: int = 96) -> Pixels:
    """H x W x 3 uint8, RGB: dark words on a light, coloured ground, a full ramp at the foot."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = (250, 244, 220)
    scale = width / 160
    for line, text in enumerate(("HELLO", "2026", "STREET")):
        colour = ((20, 30, 90), (120, 10, 20), (10, 80, 20))[line]
        at = (round(8 * scale), round((24 + 24 * line) * scale))
        cv2.putText(
            picture,
            text,
            at,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.75 * scale,
            colour,
            max(1, round(2 * scale)),
        )
    ramp = np.linspace(0, 255, width).round().astype(np.uint8)
    picture[height - 12 :, :, 0] = ramp
    picture[height - 12 :, :, 1] = ramp[::-1]
    picture[height - 12 :, :, 2] = np.minimum(ramp, 255 - ramp) * 2
    return picture


def grey(picture: Pixels) -> Pixels:
    """H x W uint8: the green channel, which spans the whole range."""
    return np.ascontiguousarray(picture[..., 1])


def bilevel(picture: Pixels) -> NDArray[np.bool_]:
    """H x W bool: paper True, ink False."""
    paper: NDArray[np.bool_] = grey(picture) > 127
    return paper


def alpha(picture: Pixels) -> Pixels:
    """H x W uint8: opaque but for a transparent strip at the right."""
    mask = np.full(picture.shape[:2], 255, np.uint8)
    mask[:, -16:] = 0
    return mask


def on_ground(picture: Pixels, mask: Pixels, ground: int = 255) -> Pixels:
    """The picture laid on a grey ground."""
    weight = mask[..., None].astype(np.float64) / 255
    laid: Pixels = np.rint(picture * weight + ground * (1 - weight)).astype(np.uint8)
    return laid
