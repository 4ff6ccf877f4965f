"""Pixels of any depth and colour model as upright 8-bit BGR."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_TURNS: dict[int, Callable[[Any], Any]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_ROWS = 512  # rows blended at a time, so that big transparent images need no big temporaries


def upright(image: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 1..8 (CIPA DC-008, tag 0x0112)."""
    turn = _TURNS.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image), dtype=np.uint8)


def to_bgr(opened: Any) -> Pixels:
    """A loaded Pillow image of any mode as BGR, transparency laid on white."""
    mode = opened.mode
    if mode.startswith("I;16"):
        grey = np.asarray(opened).astype(np.uint16, copy=False)
        return _convert((grey >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    if mode in ("I", "F"):
        return _convert(_to_8_bits(np.asarray(opened)), cv2.COLOR_GRAY2BGR)
    if mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in opened.info:
        rgba = np.asarray(opened if mode == "RGBA" else opened.convert("RGBA"))
        return on_white(_convert(rgba, cv2.COLOR_RGBA2BGRA))
    if mode in ("1", "L"):
        return _convert(np.asarray(opened.convert("L")), cv2.COLOR_GRAY2BGR)
    return _convert(np.asarray(opened.convert("RGB")), cv2.COLOR_RGB2BGR)


def _convert(pixels: Any, code: int) -> Pixels:
    converted: Pixels = cv2.cvtColor(pixels, code)
    return converted


def _to_8_bits(values: NDArray[Any]) -> Pixels:
    """Grey values of 32 bits or floats as 8 bits, by the range that they are in.

    0..1 (floats), 0..255 and 0..65535 are taken as what they usually are; anything else is
    stretched from its smallest to its largest value.
    """
    grey: NDArray[Any] = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        grey = grey * 255
    elif low >= 0 and high <= 255:
        pass
    elif low >= 0 and high <= 65_535:
        grey = grey / 256
    else:
        grey = (grey - low) * (255 / (high - low) if high > low else 0)
    result: Pixels = grey.astype(np.uint8)
    return result


def on_white(bgra: Pixels) -> Pixels:
    """Lay BGRA (not premultiplied) on a white ground."""
    out = _convert(bgra, cv2.COLOR_BGRA2BGR)
    alpha = bgra[:, :, 3]
    if int(alpha.min()) == 255:
        return out
    for row in range(0, out.shape[0], _ROWS):
        part = out[row : row + _ROWS].astype(np.uint16)
        weight = alpha[row : row + _ROWS, :, None].astype(np.uint16)
        out[row : row + _ROWS] = (part * weight + 255 * (255 - weight) + 127) // 255
    return out
