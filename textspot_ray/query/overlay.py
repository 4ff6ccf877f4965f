"""A picture with its words drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.query.pages import Page

if TYPE_CHECKING:
    from PIL.Image import Image

_BOX_RGB = (255, 90, 0)


def draw_words(image: NDArray[np.uint8], page: Page, min_confidence: float) -> Image:
    """Outline each word and write above it what was read.

    Args:
        image: H x W x 3 pixels, BGR, of the page at any scale.
        page: The page with its words, in pixels of the whole image.
        min_confidence: Words read with less are left out.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[:2]
    scale = (width / max(page.width or width, 1), height / max(page.height or height, 1))
    drawn = Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(11, width // 90))
    for word in page.words:
        if word.text_confidence < min_confidence:
            continue
        corners = [
            (x * scale[0], y * scale[1])
            for x, y in zip(word.polygon[0::2], word.polygon[1::2], strict=True)
        ]
        pen.polygon(corners, outline=_BOX_RGB, width=2)
        left, top = min(x for x, _ in corners), min(y for _, y in corners)
        label = pen.textbbox((left, top), word.text, font=font, anchor="lb")
        # at the upper and right edge it would be outside
        place = left - min(max(0.0, label[2] - width), max(0.0, left)), top + max(0.0, -label[1])
        label = pen.textbbox(place, word.text, font=font, anchor="lb")
        pen.rectangle(label, fill=_BOX_RGB)
        pen.text(place, word.text, fill=(0, 0, 0), font=font, anchor="lb")
    return drawn
