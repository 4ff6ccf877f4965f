"""Augmented crops of photographs and the target maps a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.data.datasets import ByteArray, FloatArray, PhotoWord
from jobs.training.detector.network import INPUT_SHAPES, MAX_STRETCH

STRIDE_PX = 4  # of the detector's maps
MIN_HEIGHT_PX = 7.0  # lower words than this, as the trunk sees them, are ignored
# A word's positive core: this part of its height, its ends cut by END_CUT heights (at most
# a third of the word each).
CORE_HEIGHT = 0.5
RIM_HEIGHT = 0.8  # between core and this the score is not trained
END_CUT = 0.25
# score, score weight, 4 distances, cos, sin, geometry weight, gap, gap weight
TARGET_CHANNELS = 11
# Two words of one line stand next to each other if their ends are no further apart than this, in
# heights; nearer than the other, and one of them is part of the other.
GAP_HEIGHTS = (-0.3, 1.5)
GAP_REACH = 0.15  # heights by which a gap reaches into the words beside it


@dataclass(frozen=True, slots=True)
class Rect:
    """A turned rectangle; cos and sin are those of the reading direction."""

    cx: float
    cy: float
    width: float
    height: float
    cos: float
    sin: float


def rect_of_quad(quad: NDArray[np.floating]) -> Rect:
    """Fit a rectangle to a quad [4, 2]: the mean of opposite sides, in the reading direction."""
    q = np.asarray(quad, np.float64)
    along = (q[1] - q[0]) + (q[2] - q[3])
    length = float(np.hypot(*along))
    c, s = (along / length) if length > 1e-6 else (1.0, 0.0)
    u = q @ np.array([c, s])
    v = q @ np.array([-s, c])
    left, right = (u[0] + u[3]) / 2, (u[1] + u[2]) / 2
    top, bottom = (v[0] + v[1]) / 2, (v[2] + v[3]) / 2
    um, vm = (left + right) / 2, (top + bottom) / 2
    return Rect(
        float(um * c - vm * s), float(um * s + vm * c),
        float(right - left), float(bottom - top), float(c), float(s),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CropRules:
    """How crops are drawn from a source. Heights and sizes are pixels that the trunk sees.

    Attributes:
        size_px: Side of the square crop.
        scale_range: Range of the random scale about the photo's size at inference, log-uniform.
        by_word: Share of crops whose scale is set by a word, so that its height falls in
            `height_range_px`, log-uniform.
        height_range_px: See `by_word`.
        tilt_deg: Free rotation, uniform within plus and minus this.
        quarter_turns: Share of crops turned by 90, 180 or 270 degrees on top.
    """

    size_px: int = 448
    scale_range: tuple[float, float] = (0.55, 1.8)
    by_word: float = 0.4
    height_range_px: tuple[float, float] = (11.0, 130.0)
    tilt_deg: float = 15.0
    quarter_turns: float = 0.04


def input_shape(width: int, height: int) -> tuple[tuple[int, int], float]:
    """The input shape that shows a picture largest without distortion, and the scale it does so at.

    Args:
        width: Of the picture, px.
        height: Of the picture, px.
    """
    scales = [min(w / width, h / height) for w, h in INPUT_SHAPES]
    best = int(np.argmax(scales))
    return INPUT_SHAPES[best], scales[best]


def base_scale(width: int, height: int) -> FloatArray:
    """Scale in x and y at which the trunk sees a picture."""
    fitted = fitted_size(width, height)
    return np.array([fitted[0] / width, fitted[1] / height], np.float32)


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture in its input, which it fills if it is nearly of its aspect."""
    shape, scale = input_shape(width, height)
    fitted = (min(round(width * scale), shape[0]), min(round(height * scale), shape[1]))
    fills = max(shape[0] / fitted[0], shape[1] / fitted[1]) <= MAX_STRETCH
    return shape if fills else fitted


def random_crop(
    rng: np.random.Generator,
    image: ByteArray,
    words: Sequence[PhotoWord],
    rules: CropRules,
    stretch: FloatArray,
) -> tuple[ByteArray, list[PhotoWord]]:
    """Draw one augmented crop.

    Args:
        rng: Source of chance.
        image: [H, W, 3] BGR.
        words: With quads in pixels of `image`.
        rules: See `CropRules`.
        stretch: Scale in x and y that brings the photo to inference size.

    Returns:
        The crop [size, size, 3] and the words that reach into it, in its pixels. Words of which
        more than a quarter is cut off come back as not legible.
    """
    size = rules.size_px
    legible = [w for w in words if w.legible]
    word = legible[rng.integers(len(legible))] if legible and rng.random() < 0.75 else None
    scale = np.exp(rng.uniform(*np.log(rules.scale_range)))
    if word is not None and rng.random() < rules.by_word:
        height = rect_of_quad(word.quad * stretch).height
        wanted = np.exp(rng.uniform(*np.log(rules.height_range_px)))
        scale = float(np.clip(wanted / max(height, 1.0), 0.2, 3.0))
    sx, sy = stretch * scale * np.exp(rng.uniform(-0.1, 0.1, 2))
    if max(sx, sy) < 0.5:  # a bilinear warp would alias
        half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        halved = [PhotoWord(w.quad * np.float32(0.5), w.text, w.legible) for w in words]
        return random_crop(rng, np.asarray(half, np.uint8), halved, rules, stretch * 2)
    angle = np.deg2rad(rng.uniform(-rules.tilt_deg, rules.tilt_deg))
    if rng.random() < rules.quarter_turns:
        angle += rng.choice([0.5, 0.5, 1.0, 1.5, 1.5]) * np.pi
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([sx, sy])
    if word is not None:  # the word lands anywhere in the crop
        anchor = word.quad.mean(0)
        target = rng.uniform(0.15, 0.85, 2) * size
    else:
        anchor = rng.uniform(0.1, 0.9, 2) * np.array(image.shape[1::-1])
        target = np.full(2, size / 2.0)
    offset = target - linear @ anchor
    if rng.random() < 0.85:  # else the photo's rim may show
        offset += linear @ _overhang(linear, offset, size, image.shape[1], image.shape[0])
    # cv2 counts from pixel centres, we from pixel edges
    matrix = np.column_stack([linear, offset + linear @ [0.5, 0.5] - 0.5])
    border = cv2.BORDER_REPLICATE if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    crop = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    moved = []
    for w in words:
        quad = (w.quad @ linear.T + offset).astype(np.float32)
        inside = _share_inside(quad, size)
        if inside > 0:
            moved.append(PhotoWord(quad, w.text, w.legible and inside > 0.75))
    return np.asarray(crop, np.uint8), moved


def _overhang(
    linear: NDArray[np.floating], offset: NDArray[np.floating], size: int, width: int, height: int
) -> NDArray[np.floating]:
    """How far the photo must move, in its own pixels, to fill the crop as far as it can."""
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    seen = (square - offset) @ np.linalg.inv(linear).T
    low, high, limit = seen.min(0), seen.max(0), np.array([width, height])
    inside = np.minimum(low, 0) + np.maximum(high - limit, 0)
    return np.asarray(np.where(high - low > limit, (low + high - limit) / 2, inside))


def _share_inside(quad: FloatArray, size: int) -> float:
    area = float(cv2.contourArea(quad))
    if area <= 0 or quad.max() <= 0 or quad.min(0).max() >= size:
        return 0.0
    clipped, _ = cv2.intersectConvexConvex(
        cv2.convexHull(quad),
        np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32),
    )
    return float(clipped) / area


def recolour(rng: np.random.Generator, image: ByteArray) -> ByteArray:
    """Change lighting, colour, sharpness and noise at random."""
    out = image
    if rng.random() < 0.15:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.4)), np.uint8)
    if rng.random() < 0.08:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1.0 / length
        if rng.random() < 0.5:
            kernel = kernel.T
        out = np.asarray(cv2.filter2D(out, -1, kernel), np.uint8)
    if rng.random() < 0.1:
        quality = int(rng.integers(30, 85))
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    table = np.arange(256, dtype=np.float32)[:, None].repeat(3, 1) / 255
    if rng.random() < 0.5:
        table = table ** np.exp(rng.uniform(-0.5, 0.5))
    contrast, shift = rng.uniform(0.6, 1.35), rng.uniform(-0.2, 0.2)
    tint = 1 + rng.uniform(-0.12, 0.12, 3)
    table = ((table - 0.5) * contrast + 0.5 + shift) * tint
    if rng.random() < 0.05:
        table = 1 - table
    lut = np.clip(table * 255, 0, 255).astype(np.uint8)[None]
    out = np.asarray(cv2.LUT(out, lut), np.uint8)
    if rng.random() < 0.08:
        grey = cv2.cvtColor(out, cv2.COLOR_BGR2GRAY)
        out = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    elif rng.random() < 0.1:
        out = np.ascontiguousarray(out[..., rng.permutation(3)])
    if rng.random() < 0.2:
        # a small noise field tiled by random shifts is far cheaper than a fresh one
        field = rng.normal(0, rng.uniform(2, 12), (128, 128, 3)).astype(np.int16)
        tiles = [-(-n // 128) for n in out.shape[:2]]
        noise = np.tile(field, (*tiles, 1))[: out.shape[0], : out.shape[1]]
        out = np.clip(out.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return out


def target_maps(words: Sequence[PhotoWord], size_px: int) -> FloatArray:
    """Render what the detector should say.

    Args:
        words: In pixels of the crop.
        size_px: Side of the crop.

    Returns:
        [11, size/4, size/4]: score; its weight; distances to top, right, bottom, left in the word's
        frame (pixels); cos; sin; geometry weight (0 outside cores; small words weigh more per
        pixel, so that words count rather than pixels); gap between two words of a line; its weight.
    """
    cells = size_px // STRIDE_PX
    maps = np.zeros((TARGET_CHANNELS, cells, cells), np.float32)
    maps[1] = maps[10] = 1.0
    # large words first: where words overlap, the smaller one owns the pixel
    rects = [(rect_of_quad(w.quad), w.legible) for w in words]
    for rect, legible in sorted(rects, key=lambda r: -r[0].width * r[0].height):
        around = _around(rect, STRIDE_PX, cells)
        if around is None:
            continue
        rows, columns, u, v = around
        half_w, half_h = rect.width / 2, rect.height / 2
        window = maps[:, rows, columns]
        inside = (np.abs(u) <= half_w) & (np.abs(v) <= half_h)
        if not legible or rect.height < MIN_HEIGHT_PX or rect.width < MIN_HEIGHT_PX:
            window[0][inside] = 0
            window[1][inside] = 0
            window[8][inside] = 0
            window[10][inside] = 0
            continue
        # every word owns at least the pixels within 0.55 strides of its middle line
        core_v = max(CORE_HEIGHT * half_h, 0.55 * STRIDE_PX)
        core_u = half_w - min(END_CUT * rect.height, rect.width / 3)
        core_u = max(core_u, 0.55 * STRIDE_PX)
        rim = (np.abs(u) <= half_w) & (np.abs(v) <= max(RIM_HEIGHT * half_h, core_v))
        core = (np.abs(u) <= core_u) & (np.abs(v) <= core_v)
        window[0][rim] = 0
        window[1][rim] = 0
        window[8][rim] = 0
        count = int(core.sum())
        if not count:
            continue
        weight = float(np.clip(np.sqrt(60.0 / count), 0.3, 3.0))
        window[0][core] = 1
        window[1][core] = weight
        window[2][core] = (v + half_h)[core]
        window[3][core] = (half_w - u)[core]
        window[4][core] = (half_h - v)[core]
        window[5][core] = (u + half_w)[core]
        window[6][core] = rect.cos
        window[7][core] = rect.sin
        window[8][core] = weight
    for gap in gaps_between([rect for rect, _ in rects]):
        _draw_gap(maps, gap, cells)
    return maps


def gaps_between(rects: Sequence[Rect]) -> list[Rect]:
    """Find the gaps between neighbouring words of a line, as rectangles of the words' height.

    The words' own ends, which their cores leave out, were not trained at all before, so that cells
    between two words said anything, boxes around both among it.
    """
    if len(rects) < 2:
        return []
    table = np.array([[r.cx, r.cy, r.width, r.height, r.cos, r.sin] for r in rects])
    cx, cy, width, height, cos, sin = table.T
    dx, dy = cx[None] - cx[:, None], cy[None] - cy[:, None]  # from the row's word
    u, v = dx * cos[:, None] + dy * sin[:, None], dy * cos[:, None] - dx * sin[:, None]
    tall = np.maximum(height[:, None], height[None])
    between = u - (width[:, None] + width[None]) / 2
    low, high = GAP_HEIGHTS
    near = (between > low * tall) & (between < high * tall) & (np.abs(v) < 0.35 * tall)
    near &= (u > 0) & (np.minimum(height[:, None], height[None]) > 0.5 * tall)
    near &= cos[:, None] * cos[None] + sin[:, None] * sin[None] > 0.95
    found = []
    for a in np.flatnonzero(near.any(1)):
        b = int(np.argmin(np.where(near[a], between[a], np.inf)))
        low_height = min(height[a], height[b])
        span = max(float(between[a, b]), 0.0) + 2 * GAP_REACH * low_height
        along = (width[a] + between[a, b]) / 2
        across = v[a, b] / 2
        found.append(
            Rect(
                float(cx[a] + along * cos[a] - across * sin[a]),
                float(cy[a] + along * sin[a] + across * cos[a]),
                float(span), float(low_height), float(cos[a]), float(sin[a]),
            )
        )  # fmt: skip
    return found


def _draw_gap(maps: FloatArray, gap: Rect, cells: int) -> None:
    if gap.height < MIN_HEIGHT_PX:
        return
    around = _around(gap, 2 * STRIDE_PX, cells)
    if around is None:
        return
    rows, columns, u, v = around
    u, v = np.abs(u), np.abs(v)
    half_u = max(gap.width / 2, 0.55 * STRIDE_PX)
    half_v = max(CORE_HEIGHT * gap.height / 2, 0.55 * STRIDE_PX)
    window = maps[:, rows, columns]
    window[10][(u <= half_u + STRIDE_PX) & (v <= RIM_HEIGHT * gap.height / 2 + STRIDE_PX)] = 0
    core = (u <= half_u) & (v <= half_v)
    count = int(core.sum())
    if not count:
        return
    weight = float(np.clip(np.sqrt(12.0 / count), 0.3, 3.0))
    window[9][core] = 1
    window[10][core] = weight
    window[0][core] = 0
    window[1][core] = weight
    window[8][core] = 0


def _around(
    rect: Rect, margin_px: float, cells: int
) -> tuple[slice, slice, NDArray[np.floating], NDArray[np.floating]] | None:
    """Rows and columns of the cells around a rectangle, and where they are in its frame, px.

    None where it lies outside the maps.
    """
    reach = np.hypot(rect.width, rect.height) / 2 + margin_px
    x0, x1 = _span(rect.cx, reach, cells)
    y0, y1 = _span(rect.cy, reach, cells)
    if x0 >= x1 or y0 >= y1:
        return None
    px = (np.arange(x0, x1) + 0.5) * STRIDE_PX - rect.cx
    py = ((np.arange(y0, y1) + 0.5) * STRIDE_PX - rect.cy)[:, None]
    u, v = px * rect.cos + py * rect.sin, -px * rect.sin + py * rect.cos
    return slice(y0, y1), slice(x0, x1), u, v


def _span(centre: float, reach: float, cells: int) -> tuple[int, int]:
    low = int(np.floor((centre - reach) / STRIDE_PX))
    high = int(np.ceil((centre + reach) / STRIDE_PX)) + 1
    return max(low, 0), min(high, cells)
