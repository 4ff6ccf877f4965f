"""A word crop: a small image with one word's quad and text, rendered or cut from a photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Word(Protocol):
    """What a renderer of words gives (scenes.WordPatch, :class:`Crop`)."""

    @property
    def image(self) -> Image: ...
    @property
    def quad(self) -> Floats: ...
    @property
    def text(self) -> str: ...


Renderer = Callable[[np.random.Generator, float], Word]


@dataclass(frozen=True, slots=True)
class Crop:
    """A word and a little of what surrounds it.

    Attributes:
        image: [H, W, 3] BGR.
        quad: [4, 2] corners in crop pixels, clockwise from the text's top left.
        text: the transcription as given, original case.
        sharp: cut at full resolution (True) or from a photo stored at 960x640.
    """

    image: Image
    quad: Floats
    text: str
    sharp: bool = True


def quad_height(quad: Floats) -> float:
    """Mean length of a quad's left and right sides, px."""
    tl, tr, br, bl = quad
    return float((np.linalg.norm(bl - tl) + np.linalg.norm(br - tr)) / 2)


def surroundings(image: Image, quad: Floats) -> Crop | None:
    """Cut the quad's neighbourhood (half its height on each side) out of a photo; text empty."""
    margin = 0.5 * quad_height(quad) + 4
    h, w = image.shape[:2]
    x1, y1 = np.maximum(np.floor(quad.min(0) - margin), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(quad.max(0) + margin), [w, h]).astype(int)
    if x2 - x1 < 4 or y2 - y1 < 4:
        return None
    return Crop(image[y1:y2, x1:x2].copy(), (quad - np.array([x1, y1])).astype(np.float32), "")
