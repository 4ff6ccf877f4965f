"""Number plates: layouts of many countries, with what stands between and around the characters.

A plate says what its country's pattern allows, so that a reader learns from rendered ones where a
letter stands and where a digit: on most plates O and 0, I and 1 look alike. Emblems, stickers and
seals between the groups are drawn and are no part of the text.

In patterns ``L`` is a letter, ``0`` a digit, ``@`` an emblem, seal or sticker, ``-`` a hyphen or
dot, ``.`` a gap too small to part words, ``_`` one that does, ``/`` a new line.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.ImageFont import FreeTypeFont

from jobs.training.render import photometry, surfaces
from jobs.training.render.clutter import add_structures
from jobs.training.render.fonts import FontFace, FontLibrary
from jobs.training.render.homography import (
    Matrix,
    Pose,
    Quad,
    box_corners,
    cover_polygon,
    project,
    shift,
    side_lengths,
    zoom,
)
from jobs.training.render.lettering import draw_word
from jobs.training.render.paint import blend, luminance
from jobs.training.render.placing import LEGIBLE_PX, SceneWord
from jobs.training.render.scenes import Scene
from jobs.training.render.surfaces import BackgroundLibrary
from jobs.training.render.words import Vocabulary, target_of

Pixels = NDArray[np.uint8]
Colour = NDArray[np.float32]

_GLYPH_PX = 110  # size that characters are drawn at before they are fitted into their cells
_FOCAL = 0.85  # a phone camera's focal length over the picture's width
_PLAIN_FACE = 0.75  # plainness of faces that plates may be lettered in
# Many countries leave these out, since they look like digits or like each other.
_DOUBTFUL = "IOQ"
_NARROW_GLYPHS = "1I"

_STATES_TEXT = """
ALABAMA ALASKA ARIZONA ARKANSAS CALIFORNIA COLORADO CONNECTICUT DELAWARE FLORIDA GEORGIA HAWAII
IDAHO ILLINOIS INDIANA IOWA KANSAS KENTUCKY LOUISIANA MAINE MARYLAND MASSACHUSETTS MICHIGAN
MINNESOTA MISSISSIPPI MISSOURI MONTANA NEBRASKA NEVADA OHIO OKLAHOMA OREGON TEXAS PENNSYLVANIA
TENNESSEE UTAH VERMONT VIRGINIA WASHINGTON WISCONSIN WYOMING NEW_YORK NEW_JERSEY NORTH_DAKOTA
SOUTH_CAROLINA RHODE_ISLAND NEW_MEXICO ONTARIO QUEBEC ALBERTA
"""
_STATES = tuple(name.replace("_", " ") for name in _STATES_TEXT.split())
_COUNTRIES_TEXT = "D F I E GB NL B A PL S DK N FIN P CZ H RO IRL CH TR"
_COUNTRIES = tuple(_COUNTRIES_TEXT.split())


@dataclass(frozen=True, slots=True)
class PlateLayout:
    """How the plates of some countries look.

    Attributes:
        share: Relative frequency.
        size: Width and height of the plate, mm.
        cap_mm: Height of the characters.
        narrow: Range of a character's width over its height.
        patterns: What the number may be; see the module's head.
        style: "state" has a name above, coloured ground and pictures; "band" a blue band with a
            country's letters; "plain" neither.
    """

    share: float
    size: tuple[int, int]
    cap_mm: int
    narrow: tuple[float, float]
    patterns: tuple[str, ...]
    style: str


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STATE = _patterns(
    "LL0@L0L LL0@L0L LLL@0000 LLL@0000 LLL@000 000@LLL 0LL@000 00L@0LL LLL-0000 LLL-000 000-LLL "
    "0LLL000 LLL0000 LLL.000 LLL.0000 000.LLL L00.000 LL.0000 00.0000 000@0000 LL@0000 L00-00L "
    "LL@000 000LLL LLLLLL LLLLL LLLL0 00-LLL 0LL000 LL00000 0LL.L00 L00@LLL 0000.LL LL@00000 "
    "0L.LL000 L000000 00@LLL"
)
LAYOUTS = (
    PlateLayout(0.55, (305, 152), 70, (0.42, 0.60), _STATE, "state"),
    PlateLayout(
        0.17,
        (520, 112),
        76,
        (0.50, 0.64),
        _patterns(
            "LL@LL0000 L@LL000 LLL@L00 L_LL_000 LL-000-LL LL000LL LL_000LL 00-LLL-0 LL-000-L "
            "0000_LLL LL.00000 LLL.000 LLL_00L LL_000000 L00.LLLL 00_LLL_00 LL_00.000 0L0_0000"
        ),
        "band",
    ),
    PlateLayout(
        0.14,
        (520, 112),
        78,
        (0.52, 0.66),
        _patterns("LL00.LLL LL00_LLL L000_LLL LLL_000 LL00_LL_0000 LL00LL0000 L_00000 LL00L0000"),
        "plain",
    ),
    PlateLayout(
        0.08,
        (300, 200),
        70,
        (0.48, 0.62),
        _patterns("LL00/LLL LL_00/L_0000 LL00L/0000 LL-00/LL-00 LLL/0000 LL@L/0000"),
        "plain",
    ),
    PlateLayout(
        0.06,
        (400, 130),
        66,
        (0.48, 0.64),
        _patterns("LLL-0000 LLL0L00 LLL-00L LLL_000 000_LLL LLL.00L LL00.LL"),
        "state",
    ),
)


@dataclass(frozen=True, slots=True)
class Plate:
    """A plate from straight in front, a pixel a millimetre.

    Attributes:
        image: [H, W, 3] BGR.
        words: The number's words, then what else is written on it; quads in its pixels.
    """

    image: Pixels
    words: tuple[SceneWord, ...]


def draw_number(rng: np.random.Generator, pattern: str) -> str:
    """A pattern with its letters and digits filled in; separators stay."""
    letters = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in _DOUBTFUL or rng.random() < 0.2]
    filled = {
        "L": lambda: letters[int(rng.integers(len(letters)))],
        "0": lambda: str(int(rng.integers(10))),
    }
    return "".join(filled[c]() if c in filled else c for c in pattern)


def draw_plate(rng: np.random.Generator, fonts: FontLibrary, words: Vocabulary) -> Plate:
    """Draw a plate of some country.

    Args:
        rng: Where chance comes from.
        fonts: Faces; only plain ones are used for the number.
        words: What vanity plates, mottos and dealers' frames say.
    """
    shares = np.array([layout.share for layout in LAYOUTS])
    layout = LAYOUTS[int(rng.choice(len(LAYOUTS), p=shares / shares.sum()))]
    pattern = layout.patterns[int(rng.integers(len(layout.patterns)))]
    number = draw_number(rng, pattern)
    if set(pattern) == {"L"} and rng.random() < 0.7:
        number = words.draw(rng, 7, plain=True).upper()
    ground, ink, image = _ground(rng, layout)
    face = _plain_face(rng, fonts)
    lines = number.split("/")
    width, height = layout.size
    left = 12 + (42 if layout.style == "band" else 0)
    top, bottom = (30, height - 22) if layout.style == "state" else (12, height - 12)
    if layout.style == "state" and rng.random() < 0.25:
        top, bottom = 22, height - 14
    each = (bottom - top) / len(lines)
    found: list[SceneWord] = []
    for row, line in enumerate(lines):
        cap = min(layout.cap_mm * float(rng.uniform(0.88, 1.05)), 0.94 * each)
        area = (left, width - 12, top + (row + 0.5) * each)
        image, new = _set_number(rng, image, line, area, cap, layout, fonts, face, ink)
        found += new
    image = _decorate(rng, image, layout, ground)
    if layout.style == "state":
        image, new = _captions(rng, image, fonts, words, ink)
        found += new
    return Plate(image, tuple(found))


def _plain_face(rng: np.random.Generator, fonts: FontLibrary) -> FontFace:
    for _ in range(20):
        face = fonts.draw(rng, "A-1")
        if face.plainness >= _PLAIN_FACE:
            break
    return face


def _ground(rng: np.random.Generator, layout: PlateLayout) -> tuple[Colour, Colour, Pixels]:
    """Ground and ink colours, BGR, and the bare plate."""
    width, height = layout.size
    dark = np.asarray(rng.uniform(5, 70, 3), np.float32)
    white = np.asarray(rng.uniform(205, 255) + rng.normal(0, 6, 3), np.float32).clip(0, 255)
    yellow = np.array([rng.uniform(10, 90), rng.uniform(170, 220), rng.uniform(215, 250)])
    ground = yellow.astype(np.float32) if rng.random() < 0.25 else white
    ink = dark
    if layout.style == "state":
        if rng.random() < 0.35:
            ground = np.asarray(rng.uniform(140, 255, 3), np.float32)
        if rng.random() < 0.7:
            for _ in range(10):
                ink = surfaces.plain_colour(rng)
                if luminance(ground) - luminance(ink) > 90:
                    break
            else:
                ink = dark
    if rng.random() < 0.07:
        ground, ink = dark, white
    image = surfaces.flat(width, height, ground)
    if layout.style == "state" and rng.random() < 0.6:
        image = _pale_picture(rng, image)
    return ground, ink, image


def _pale_picture(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Bands of colour above and below, hills or clouds, paled so that the number stands out."""
    height, width = image.shape[:2]
    other = surfaces.plain_colour(rng)
    kind = rng.random()
    cover = np.zeros((height, width), np.float32)
    if kind < 0.55:
        rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        edge = float(rng.uniform(0.12, 0.4))
        soft = float(rng.uniform(0.02, 0.25))
        cover += np.clip((edge - rows) / soft, 0, 1) * (rng.random() < 0.7)
        cover += np.clip((rows - 1 + edge) / soft, 0, 1) * (rng.random() < 0.7)
    else:
        xs = np.linspace(0, width, int(rng.integers(4, 12)))
        ys = height * rng.uniform(0.35, 0.95, len(xs))
        hill = np.concatenate([np.column_stack([xs, ys]), [[width, height], [0, height]]])
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [hill.astype(np.int32)], 255, cv2.LINE_AA)
        cover += mask.astype(np.float32) / 255
    return blend(image, other, cover.clip(0, 1) * np.float32(rng.uniform(0.2, 0.75)))


def _set_number(
    rng: np.random.Generator,
    image: Pixels,
    line: str,
    area: tuple[float, float, float],
    cap: float,
    layout: PlateLayout,
    fonts: FontLibrary,
    face: FontFace,
    ink: Colour,
) -> tuple[Pixels, list[SceneWord]]:
    """Letter one line, centred between left and right about a middle row; its words."""
    left, right, middle = area
    font = fonts.open(face, _GLYPH_PX)
    pitch = cap * float(rng.uniform(*layout.narrow))
    gap = cap * float(rng.uniform(0.06, 0.2))
    between = {
        "@": cap * float(rng.uniform(0.3, 0.75)),
        "-": cap * float(rng.uniform(0.25, 0.45)),
        ".": cap * float(rng.uniform(0.25, 0.5)),
        "_": cap * float(rng.uniform(0.55, 0.9)),
    }
    widths = [
        between[c] if c in between else pitch * (0.55 if c in _NARROW_GLYPHS else 1.0) for c in line
    ]
    total = sum(widths) + gap * (len(line) - 1)
    squeeze = min(1.0, (right - left) / total)
    x = left + (right - left - total * squeeze) / 2
    slashed = rng.random() < 0.12
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    runs: list[tuple[str, float, float]] = []
    text, began, ended = "", x, x
    for char, wide in zip(line, widths, strict=True):
        wide *= squeeze
        if char == "_":
            runs.append((text, began, ended))
            text = ""
        elif char == "@":
            image = _emblem(rng, image, (x + wide / 2, middle), 0.92 * wide, cap)
        elif char == "-":
            if rng.random() < 0.8:
                spot = (round(x + 0.15 * wide), round(middle - 0.05 * cap))
                end = (round(x + 0.85 * wide), round(middle + 0.05 * cap))
                cv2.rectangle(mask, spot, end, 255, -1)
        elif char != ".":
            _fit_glyph(mask, font, char, (x, middle - cap / 2, wide, cap), slashed)
            began = began if text else x
            text, ended = text + char, x + wide
        x += wide + gap * squeeze
    runs.append((text, began, ended))
    image = _emboss(rng, image, mask, ink)
    words = []
    for text, x0, x1 in runs:
        if target_of(text):
            box = np.array([x0, middle - cap / 2, x1, middle + cap / 2], np.float32)
            words.append(SceneWord(box_corners(box), text, True))
    return image, words


def _fit_glyph(
    mask: Pixels,
    font: FreeTypeFont,
    char: str,
    cell: tuple[float, float, float, float],
    slashed: bool,
) -> None:
    """Draw a character so that its ink fills a cell x, y, width, height, as stamped ones do."""
    ink = draw_word(font, char)
    if ink is None:
        return
    x, y, wide, high = (round(v) for v in cell)
    glyph = cv2.resize(ink.mask, (max(2, wide), max(4, high)), interpolation=cv2.INTER_AREA)
    if char == "0" and slashed:
        cv2.line(
            glyph, (wide // 4, high * 3 // 4), (wide * 3 // 4, high // 4), 255, max(2, wide // 9)
        )
    x0, y0 = max(x, 0), max(y, 0)
    window = mask[y0 : y + glyph.shape[0], x0 : x + glyph.shape[1]]
    np.maximum(window, glyph[: window.shape[0], : window.shape[1]], out=window)


def _emboss(rng: np.random.Generator, image: Pixels, mask: Pixels, ink: Colour) -> Pixels:
    """Lay ink, bolder or finer now and then, with the light and dark seams of stamped metal."""
    pick = rng.random()
    if pick < 0.25:
        mask = np.asarray(cv2.dilate(mask, np.ones((3, 3), np.uint8)), np.uint8)
    elif pick < 0.35:
        mask = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)), np.uint8)
    if rng.random() < 0.5:
        step = int(rng.integers(1, 3))
        for sign, shade in ((-1, 255.0), (1, 40.0)):
            moved = np.roll(mask, (sign * step, sign * step), (0, 1)).astype(np.float32) / 255
            image = blend(image, np.full(3, shade, np.float32), moved * np.float32(0.4))
    return blend(image, ink, mask.astype(np.float32) / np.float32(255))


def _emblem(
    rng: np.random.Generator,
    image: Pixels,
    centre: tuple[float, float],
    wide: float,
    cap: float,
) -> Pixels:
    """A state's outline, a seal, a picture, one or two stickers, a star or a dot."""
    image = image.copy()
    cx, cy = centre
    colour = tuple(float(v) for v in surfaces.plain_colour(rng))
    kind = rng.random()
    if kind < 0.35:  # stickers above each other, with something small on them
        n = 1 if rng.random() < 0.4 else 2
        side = min(wide, cap * 0.42)
        for i in range(n):
            y = cy + (i - (n - 1) / 2) * side * 1.08
            x0, y0 = round(cx - side / 2), round(y - side / 2)
            x1, y1 = round(cx + side / 2), round(y + side / 2)
            fill = tuple(float(v) for v in surfaces.plain_colour(rng))
            cv2.rectangle(image, (x0, y0), (x1, y1), fill, -1)
            marks = str(int(rng.integers(1, 100)))
            size = side / 60
            dark = (0, 0, 0) if sum(fill) > 380 else (255, 255, 255)
            cv2.putText(image, marks, (x0 + 2, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, size, dark, 1)
    elif kind < 0.7:  # an outline with random corners
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 14))))
        reach = rng.uniform(0.45, 1.0, len(angles))
        tall = min(cap / 2, wide * float(rng.uniform(0.5, 1.0)))
        xs = cx + np.cos(angles) * reach * wide / 2
        ys = cy + np.sin(angles) * reach * tall
        spots = np.column_stack([xs, ys]).round().astype(np.int32)
        if rng.random() < 0.7:
            cv2.fillPoly(image, [spots], colour, cv2.LINE_AA)
        else:
            cv2.polylines(image, [spots], True, colour, 2, cv2.LINE_AA)
    elif kind < 0.85:  # a round seal
        radius = max(3, round(min(wide, cap * 0.6) / 2 * float(rng.uniform(0.5, 1.0))))
        spot = (round(cx), round(cy))
        cv2.circle(image, spot, radius, colour, -1 if rng.random() < 0.6 else 2, cv2.LINE_AA)
        ring = tuple(float(v) for v in surfaces.plain_colour(rng))
        cv2.circle(image, spot, max(1, radius * 2 // 3), ring, 1 + radius // 6, cv2.LINE_AA)
    else:  # a tree, bird or flower, as far as anybody can tell
        for _ in range(int(rng.integers(4, 12))):
            spot = (round(cx + rng.normal(0, wide / 6)), round(cy + rng.normal(0, cap / 6)))
            axes = (max(1, round(wide * rng.uniform(0.05, 0.2))), max(1, round(cap * 0.1)))
            tint = (
                tuple(float(v) for v in surfaces.plain_colour(rng) * 0.4)
                if rng.random() < 0.3
                else colour
            )
            cv2.ellipse(
                image, spot, axes, float(rng.uniform(0, 180)), 0, 360, tint, -1, cv2.LINE_AA
            )
    return image


def _decorate(
    rng: np.random.Generator, image: Pixels, layout: PlateLayout, ground: Colour
) -> Pixels:
    """Band, screws, corner stickers, rim."""
    image = image.copy()
    height, width = image.shape[:2]
    if layout.style == "band":
        cv2.rectangle(image, (0, 0), (44, height), (160, 60, 10), -1)
        for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
            spot = (round(22 + 12 * np.cos(angle)), round(32 + 12 * np.sin(angle)))
            cv2.circle(image, spot, 2, (40, 220, 250), -1, cv2.LINE_AA)
        name = _COUNTRIES[int(rng.integers(len(_COUNTRIES)))]
        at = (22 - 9 * len(name), height - 16)
        cv2.putText(image, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    if layout.style == "state":
        for x, y in ((70, 13), (width - 70, 13), (70, height - 13), (width - 70, height - 13)):
            if rng.random() < 0.7:
                shade = float(rng.uniform(10, 160))
                cv2.circle(image, (x, y), int(rng.integers(3, 8)), (shade,) * 3, -1, cv2.LINE_AA)
        for x in (6, width - 34):
            if rng.random() < 0.3:
                fill = tuple(float(v) for v in surfaces.plain_colour(rng))
                y = 4 if rng.random() < 0.7 else height - 26
                cv2.rectangle(image, (x, y), (x + 28, y + 20), fill, -1)
                cv2.putText(
                    image, str(int(rng.integers(1, 99))), (x + 3, y + 15), 0, 0.5, (0, 0, 0), 1
                )
    if rng.random() < 0.5:
        edge = tuple(float(v) for v in (ground * 0.5 if rng.random() < 0.6 else ground * 0 + 20))
        cv2.rectangle(image, (2, 2), (width - 3, height - 3), edge, int(rng.integers(1, 5)))
    return image


def _captions(
    rng: np.random.Generator, image: Pixels, fonts: FontLibrary, words: Vocabulary, ink: Colour
) -> tuple[Pixels, list[SceneWord]]:
    """The state's name above, a motto or web address below."""
    height, width = image.shape[:2]
    found: list[SceneWord] = []
    colour = ink if rng.random() < 0.5 else surfaces.plain_colour(rng)
    for y, share in ((15.0, 0.85), (height - 11.0, 0.55)):
        if rng.random() > share:
            continue
        above = y < height / 2
        text = (
            _STATES[int(rng.integers(len(_STATES)))] if above else words.draw(rng, 12, plain=True)
        )
        if not above and rng.random() < 0.5:
            text += " " + words.draw(rng, 10, plain=True)
        if rng.random() < 0.3:
            text = text.title()
        face = fonts.open(fonts.draw(rng, text), 40)
        cap = float(rng.uniform(12, 20) if above else rng.uniform(8, 13))
        drawn = [(part, draw_word(face, part)) for part in text.split()]
        parts = [(part, mask) for part, mask in drawn if mask is not None]
        scale = cap / 28
        space = 12 * scale
        total = sum(mask.mask.shape[1] * scale for _, mask in parts) + space * (len(parts) - 1)
        x = (width - total) / 2
        if x < 40:
            continue
        cover = np.zeros((height, width), np.float32)
        for part, mask in parts:
            wide, high = (max(1, round(v * scale)) for v in mask.mask.shape[::-1])
            x0, y0 = round(x), round(y - cap / 2)
            small = cv2.resize(mask.mask, (wide, high), interpolation=cv2.INTER_AREA)
            window = cover[y0 : y0 + high, x0 : x0 + wide]
            window[:] = small[: window.shape[0], : window.shape[1]].astype(np.float32) / 255
            box = np.array([x0, y0, x0 + wide, y0 + high], np.float32)
            found.append(SceneWord(box_corners(box), part, True))
            x += wide + space
        image = blend(image, colour, cover)
    return image, found


def render_plate_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    backgrounds: BackgroundLibrary | None = None,
    plates: int = 1,
) -> Scene:
    """Plates on cars, as far as a detector or reader can tell: on dark or bright bodywork.

    Args:
        rng: Where all chance comes from.
        width: Of the picture, px.
        height: Of the picture, px.
        difficulty: 0 is large and sharp, 1 far away, dim and turned.
        fonts: Faces.
        words: For vanity plates and captions.
        backgrounds: Photographs behind the bodywork.
        plates: How many, side by side in strips of the picture.
    """
    d = float(np.clip(difficulty, 0.0, 1.0))
    if backgrounds is not None and rng.random() < 0.6:
        image = backgrounds.cut(rng, width, height)
    else:
        image = add_structures(rng, surfaces.shaded(rng, width, height, 1.0), 0.5 * d)
    found: list[SceneWord] = []
    heights = []
    strip = width / plates
    for i in range(plates):
        plate = draw_plate(rng, fonts, words)
        high, wide = plate.image.shape[:2]
        most = min(0.75 * strip / wide, 0.7 * height / high)
        least = min(most, 14.0 / 70)  # characters of 14 px
        scale = least * (most / least) ** float(rng.random() ** (1 + d))
        pose = Pose(
            float(np.clip(rng.normal(0, 0.4 * d), -0.9, 0.9)),
            float(rng.normal(0, 0.15 * d)),
            float(rng.normal(0, 0.07 * d)),
            0.0,
            0.0,
        )
        x = (i + 0.5) * strip + float(rng.uniform(-0.1, 0.1)) * strip
        y = height / 2 + float(rng.uniform(-0.12, 0.12)) * height
        middle = zoom(scale, scale) @ shift(-wide / 2, -high / 2)
        matrix = shift(x, y) @ pose.matrix(_FOCAL * width) @ middle
        image, new = _mount(rng, image, plate, matrix, scale)
        found += new
        heights += [side_lengths(w.quad)[1] for w in new[:1]]
    inside = [w for w in found if (w.quad > 1).all() and (w.quad < [width - 1, height - 1]).all()]
    image = photometry.photograph(rng, image, d, min(heights))
    return Scene(image, tuple(inside))


def _mount(
    rng: np.random.Generator, image: Pixels, plate: Plate, matrix: Matrix, scale: float
) -> tuple[Pixels, list[SceneWord]]:
    """Lay bodywork, a dealer's frame and the plate into the picture."""
    size = (image.shape[1], image.shape[0])
    high, wide = plate.image.shape[:2]

    def laid(image: Pixels, grown_mm: float, colour: Colour) -> Pixels:
        box = np.array([-grown_mm, -grown_mm, wide + grown_mm, high + grown_mm], np.float32)
        cover = cover_polygon(_corners(matrix, box), size).astype(np.float32) / np.float32(255)
        return blend(image, colour, cover)

    if rng.random() < 0.8:
        image = laid(
            image, float(rng.uniform(40, 160)), surfaces.plain_colour(rng) * np.float32(0.7)
        )
    if rng.random() < 0.4:
        image = laid(image, float(rng.uniform(4, 14)), np.full(3, rng.uniform(0, 90), np.float32))
    source, to_source = plate.image, np.eye(3)
    if scale < 0.75:
        small = (max(8, round(wide * scale * 1.2)), max(8, round(high * scale * 1.2)))
        source = np.asarray(cv2.resize(source, small, interpolation=cv2.INTER_AREA), np.uint8)
        to_source = zoom(wide / small[0], high / small[1])
    centred = shift(-0.5, -0.5) @ matrix @ to_source @ shift(0.5, 0.5)
    seen = cv2.warpPerspective(source, centred, size, borderMode=cv2.BORDER_REPLICATE)
    whole = np.array([0, 0, wide, high], np.float32)
    cover = cover_polygon(_corners(matrix, whole), size).astype(np.float32) / np.float32(255)
    image = blend(image, np.asarray(seen, np.uint8), cover)
    words = []
    for word in plate.words:
        quad = project(matrix, word.quad)
        legible = side_lengths(quad)[1] >= LEGIBLE_PX
        words.append(SceneWord(quad, word.text, legible))
    return image, words


def _corners(matrix: Matrix, box: NDArray[np.float32]) -> Quad:
    return project(matrix, box_corners(box))
