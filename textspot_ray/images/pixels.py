"""Pixels of any layout as upright 8-bit BGR: depth, colour, transparency, turning.

Everything works in bands of rows, so that an image of 200 Mpx needs no second copy of itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_BAND_PIXELS = 1 << 22
_SAMPLE_PIXELS = 1 << 18  # looked at to choose a background
_THIN = 0.1
_CONTRAST = 64  # levels between an edge and its background that leave text readable
_MARGIN = 1.05  # another background than white must suit this many times more of the edge


def upright(image: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation 1..8 (CIPA DC-008, tag 0x0112)."""
    turn = _TURNS.get(orientation)
    return image if turn is None else np.ascontiguousarray(turn(image), dtype=np.uint8)


def shrunk(image: Pixels, longest_px: int | None) -> Pixels:
    """An image scaled down to at most ``longest_px`` on its longer side; None: as it is."""
    height, width = image.shape[:2]
    if longest_px is None or max(height, width) <= longest_px:
        return image
    share = longest_px / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that hold some million pixels each."""
    step = max(1, _BAND_PIXELS // max(width, 1))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


@dataclass(frozen=True, slots=True)
class Scale:
    """How stored values become 8 bits: (value - offset) x factor, cut to 0..255.

    Attributes:
        shift: Bits to drop instead, where that says it all (integers); None: use the factor.
        note: What was assumed, where the values do not fill the range that the file declares.
    """

    shift: int | None = None
    offset: float = 0.0
    factor: float = 1.0
    note: str | None = None

    def apply(self, values: NDArray[Any]) -> Pixels:
        """Values of any type as uint8."""
        if self.shift is not None:
            if self.shift == 0 and values.dtype == np.uint8:
                return values
            kept = values >> self.shift if self.shift >= 0 else values << -self.shift
            if values.dtype.kind != "u" or 8 * values.dtype.itemsize - self.shift > 8:
                kept = np.clip(kept, 0, 255)
            narrow: Pixels = kept.astype(np.uint8)
            return narrow
        real = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
        scaled: Pixels = np.clip((real - self.offset) * self.factor, 0, 255).astype(np.uint8)
        return scaled


def integer_scale(bits: int, low: int, high: int, *, signed: bool = False) -> Scale:
    """Scale of integers that are declared to have ``bits`` bits.

    Cameras, scanners and satellites put 10 to 12 bits into 16 without saying so. Values that fill
    less than a quarter of the declared range are taken to have the bits that they need.

    Args:
        bits: Bits per sample as declared.
        low: Smallest value in the image.
        high: Largest.
        signed: Two's complement; a negative value stretches the whole range from low to high.
    """
    if signed and low < 0:
        factor = 255 / (high - low) if high > low else 0.0
        return Scale(None, low, factor, f"signed values {low} to {high} stretched")
    whole = bits - signed
    if whole <= 8:
        return Scale(whole - 8)
    needed = max(8, int(high).bit_length())
    if high < 1 << (whole - 2) and needed < whole:
        return Scale(needed - 8, note=f"{needed}-bit values in {bits}-bit samples")
    return Scale(whole - 8)


def real_scale(low: float, high: float) -> Scale:
    """Scale of floats by the range that they are in.

    0..1 is taken as black to white, and so are 0..255 and the powers of two up to 65535; what
    fills less than a quarter of 0..1, or is negative or larger, is stretched from its smallest to
    its largest value.
    """
    if low >= 0 and high <= 1:
        if high >= 0.25:
            return Scale(None, 0.0, 255.0)
        return Scale(None, 0.0, 255 / high if high > 0 else 0.0, f"values 0 to {high:g} stretched")
    if low >= 0 and high <= 255:
        return Scale(None, 0.0, 1.0)
    if low >= 0 and high <= 65_535:
        needed = max(8, int(high).bit_length())
        return Scale(None, 0.0, 1 / (1 << (needed - 8)), f"{needed}-bit values in floats")
    return Scale(
        None, low, 255 / (high - low) if high > low else 0.0, f"{low:g} to {high:g} stretched"
    )


def value_range(values: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest finite value; (0, 0) if there is none."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 0.0
    return values.min().item(), values.max().item()


def from_pillow(opened: Any) -> tuple[Pixels, str | None]:
    """A loaded Pillow image of any mode as BGR, transparency laid on a background.

    Returns:
        The pixels, and a note on the depth of its values where that was assumed.
    """
    mode, (width, height) = opened.mode, opened.size
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _deep_grey(opened)
    transparent = mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in opened.info
    if transparent and mode in ("RGBA", "LA", "PA"):
        transparent = opened.getchannel("A").getextrema() != (255, 255)
    if transparent:
        return _on_background(width, height, lambda rows: _rows(opened, rows, "RGBA")), None
    out = np.empty((height, width, 3), np.uint8)
    grey = mode in ("1", "L", "LA")
    for rows in bands(height, width):
        pixels = _rows(opened, rows, "L" if grey else "RGB")
        cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if grey else cv2.COLOR_RGB2BGR, dst=out[rows])
    return out, None


def _rows(opened: Any, rows: slice, mode: str) -> NDArray[np.uint8]:
    whole = rows.start == 0 and rows.stop == opened.size[1]
    part = opened if whole else opened.crop((0, rows.start, opened.size[0], rows.stop))
    return np.asarray(part if part.mode == mode else part.convert(mode))


def _deep_grey(opened: Any) -> tuple[Pixels, str | None]:
    """Grey values of 16 or 32 bits or floats, by the range that they are in."""
    values = np.asarray(opened)
    if opened.mode.startswith("I;16"):
        values = values.astype(np.uint16, copy=False)
        scale = integer_scale(16, 0, int(values.max()))
    elif opened.mode == "I":
        low, high = value_range(values)
        # Pillow gives 16-bit samples of some files as 32: what fits is taken for 16 bits.
        bits = 16 if low >= 0 and high <= 65_535 else 32
        scale = integer_scale(bits, int(low), int(high), signed=bits == 32)
    else:
        scale = real_scale(*value_range(values))
    out = np.empty((*values.shape, 3), np.uint8)
    for rows in bands(*values.shape):
        cv2.cvtColor(scale.apply(values[rows]), cv2.COLOR_GRAY2BGR, dst=out[rows])
    return out, scale.note


def cmyk_to_bgr(cmyk: NDArray[np.uint8], out: Pixels) -> None:
    """Ink (0 = none) as BGR without a profile, by Pillow's formula.

    Args:
        cmyk: H x W x 4 uint8.
        out: H x W x 3 uint8, filled.
    """
    from PIL import Image

    height, width = cmyk.shape[:2]
    for rows in bands(height, width):
        part = np.ascontiguousarray(cmyk[rows])
        inks = Image.frombuffer("CMYK", (width, part.shape[0]), part, "raw", "CMYK", 0, 1)
        cv2.cvtColor(np.asarray(inks.convert("RGB")), cv2.COLOR_RGB2BGR, dst=out[rows])


def unmultiply(image: Pixels) -> None:
    """Divide the colours of H x W x 4 uint8 by their opacity, in place."""
    for rows in bands(*image.shape[:2]):
        part = image[rows]
        opacity = np.maximum(part[..., 3:].astype(np.uint16), 1)
        part[..., :3] = np.minimum(part[..., :3].astype(np.uint16) * 255 // opacity, 255)


def on_background(image: Pixels, code: int = cv2.COLOR_BGRA2BGR) -> Pixels:
    """Lay an image (not premultiplied) on the background that suits it; see `background_for`.

    ``code`` is OpenCV's conversion that fits the order of its channels.
    """
    height, width = image.shape[:2]
    if int(image[:, :, 3].min()) == 255:
        return np.asarray(cv2.cvtColor(image, code), np.uint8)
    return _on_background(width, height, lambda rows: image[rows], code)


def _on_background(
    width: int,
    height: int,
    read: Callable[[slice], NDArray[np.uint8]],
    code: int = cv2.COLOR_RGBA2BGR,
) -> Pixels:
    stride = max(1, math.isqrt(width * height // _SAMPLE_PIXELS))
    sample = np.concatenate(
        [read(rows)[-rows.start % stride :: stride, ::stride] for rows in bands(height, width)]
    )
    background = background_for(edge_levels(sample, code))
    out = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND_PIXELS // 64 // max(width, 1))
    for rows in bands(height, width):
        part = read(rows)
        cv2.cvtColor(part, code, dst=out[rows])
        colour = out[rows]
        for top in range(0, part.shape[0], step):  # 16-bit temporaries stay small
            opacity = part[top : top + step, :, 3:]
            if int(opacity.min()) == 255:
                continue
            weight = opacity.astype(np.uint16)
            mixed = colour[top : top + step] * weight + background * (255 - weight) + 127
            colour[top : top + step] = mixed // 255
    return out


def background_for(levels_of_edges: NDArray[np.int64]) -> int:
    """The grey level that transparent pixels are given.

    White suits dark text and most pictures; white text on a transparent background would vanish
    on it and is laid on black. Where dark and light pixels both border on transparent ones, a
    middle grey shows them both.

    Args:
        levels_of_edges: As `edge_levels` gives them.

    Returns:
        255, 0 or 128, whichever differs by a quarter of the range from most of the edge; white
        where there is little to choose.
    """
    levels = np.arange(256)
    best, most = 255, 0.0
    for background in (255, 0, 128):
        suited = float(levels_of_edges[np.abs(levels - background) >= _CONTRAST].sum())
        if suited > most * (_MARGIN if most else 1.0):
            best, most = background, suited
    return best


def edge_levels(rgba: NDArray[np.uint8], code: int = cv2.COLOR_BGRA2BGR) -> NDArray[np.int64]:
    """Grey levels of thin opaque parts beside transparent ones: letters, not panels or cut-outs.

    What stands on an opaque panel has that for its background; only the panel's outline counts.
    A part is thin if pixels within two of its edge are a tenth of it at least: strokes of up to
    some forty pixels.

    Args:
        rgba: H x W x 4 uint8, not premultiplied.
        code: OpenCV's conversion that fits the order of its channels.

    Returns:
        How many edge pixels of thin parts have each grey level 0..255.
    """
    opaque = (rgba[:, :, 3] >= 128).astype(np.uint8)
    inner = cv2.erode(opaque, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)
    edge = opaque > inner
    if not edge.any():
        return np.zeros(256, np.int64)
    count, labels = cv2.connectedComponents(opaque, connectivity=8)
    area = np.bincount(labels.ravel(), minlength=count)
    outline = np.bincount(labels[edge], minlength=count)
    thin = outline >= area * _THIN
    thin[0] = False
    chosen = edge & thin[labels]
    if not chosen.any():
        return np.zeros(256, np.int64)
    colours = np.ascontiguousarray(rgba[chosen])[None]
    grey = cv2.COLOR_RGBA2GRAY if code == cv2.COLOR_RGBA2BGR else cv2.COLOR_BGRA2GRAY
    return np.bincount(np.asarray(cv2.cvtColor(colours, grey)).ravel(), minlength=256)


def is_one_colour(image: Pixels) -> bool:
    """Whether all pixels are the same; cheap for pictures, which differ at once."""
    first = image[0, 0]
    if (image[::61, ::67] != first).any():
        return False
    return all(not (image[rows] != first).any() for rows in bands(*image.shape[:2]))
