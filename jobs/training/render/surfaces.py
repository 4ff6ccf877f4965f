"""What words are drawn on: plain, shaded and textured surfaces, cuts of real photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from textspot_ray.errors import SourceError

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


# OpenCV's hues (0..180), each as often as it is listed.
_HUES = (0, 0, 3, 177, 8, 14, 22, 28, 45, 62, 75, 92, 105, 108, 112, 118, 140, 165)


@dataclass(frozen=True, slots=True)
class BackgroundPhoto:
    """A photograph to draw on.

    Attributes:
        path: The image file.
        erase: [n, 4, 2] quads of words in it, in fractions of width and height; painted over.
    """

    path: Path
    erase: NDArray[np.float32]


@dataclass(slots=True)
class BackgroundLibrary:
    """Photographs to cut backgrounds from.

    Decoded photographs are kept and used many times over; one in `keep_uses` draws decodes a
    new one, so a library of any size costs bounded memory and little time. What is drawn thus
    depends on earlier draws too, unless `keep_uses` is 1: then on the generator alone.

    Args:
        photos: Photographs; must not be empty.
        pool_size: Decoded photographs kept.
        keep_uses: Mean number of draws between two decodings.
    """

    photos: Sequence[BackgroundPhoto]
    pool_size: int = 48
    keep_uses: int = 12
    _pool: list[Pixels] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        if not self.photos:
            raise ValueError("a BackgroundLibrary needs at least one photograph")

    def photo(self, rng: np.random.Generator) -> Pixels:
        """One of the photographs, whole, BGR, its own words painted over."""
        anew = rng.random() * self.keep_uses < 1
        filling = len(self._pool) < min(self.pool_size, len(self.photos))
        if filling or anew:
            image = self._decode(rng)
            if filling:
                self._pool.append(image)
            else:
                self._pool[int(rng.integers(len(self._pool)))] = image
            return image
        return self._pool[int(rng.integers(len(self._pool)))]

    def _decode(self, rng: np.random.Generator) -> Pixels:
        for _ in range(16):
            photo = self.photos[int(rng.integers(len(self.photos)))]
            image = cv2.imread(str(photo.path), cv2.IMREAD_COLOR)
            if image is not None and min(image.shape[:2]) >= 16:
                return erase_quads(np.asarray(image, dtype=np.uint8), photo.erase)
        raise SourceError(
            f"no image can be decoded among the backgrounds in {self.photos[0].path.parent}"
        )

    def cut(
        self, rng: np.random.Generator, width: int, height: int, smallest_scale: float = 0.3
    ) -> Pixels:
        """A piece of a photograph at a random scale, width x height.

        Args:
            rng: Where chance comes from.
            width: Of the piece, px.
            height: Of the piece, px.
            smallest_scale: Photograph pixels a pixel of the piece covers at the least, where
                the photograph is large enough.
        """
        photo = self.photo(rng)
        full_h, full_w = photo.shape[:2]
        largest = min(full_w / width, full_h / height)
        smallest = min(smallest_scale, 0.6 * largest)
        scale = float(smallest * (largest / smallest) ** rng.random())
        cut_w = min(full_w, max(2, int(width * scale)))
        cut_h = min(full_h, max(2, int(height * scale)))
        x = int(rng.integers(0, full_w - cut_w + 1))
        y = int(rng.integers(0, full_h - cut_h + 1))
        piece = photo[y : y + cut_h, x : x + cut_w]
        how = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_LINEAR
        piece = cv2.resize(piece, (width, height), interpolation=how)
        return np.asarray(piece[:, ::-1] if rng.random() < 0.5 else piece, dtype=np.uint8).copy()


def erase_quads(image: Pixels, quads: NDArray[np.float32]) -> Pixels:
    """Paint over quads (in fractions of the sides) with what is around them, softly."""
    if not len(quads):
        return image
    height, width = image.shape[:2]
    hole = np.zeros((height, width), np.uint8)
    for quad in quads * np.array([width, height], np.float32):
        # Annotated quads are tight; a rim of ink would be left otherwise.
        middle = quad.mean(axis=0)
        wider = middle + (quad - middle) * 1.1 + np.sign(quad - middle) * 2
        cv2.fillConvexPoly(hole, cv2.convexHull(np.round(wider).astype(np.int32)), 255)
    # At a quarter of the size: smooth is all that is wanted, and it is 16 times faster.
    small = (max(1, width // 4), max(1, height // 4))
    hole_small = (cv2.resize(hole, small, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    rough = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    filled = cv2.inpaint(rough, hole_small, 3, cv2.INPAINT_TELEA)
    patch = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    out = image.copy()
    cv2.copyTo(patch, hole, out)
    return out


def load_backgrounds(
    folder: Path, gt: Path | None = None, gt_size: tuple[int, int] | None = None
) -> BackgroundLibrary:
    """List the images in a folder, recursively.

    Args:
        folder: Photographs: without words, unless gt says where they are.
        gt: Folder of ICDAR2015 ground truth (gt_NAME.txt for NAME.jpg), by default the folder's
            own gt/, where it has one. Photographs without a file there are left out; in the others
            all words, legible or not, are painted over.
        gt_size: Width and height that the ground truth's coordinates are for; the image's own
            when None.

    Raises:
        SourceError: No image is left.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    nothing = np.zeros((0, 4, 2), np.float32)
    if gt is None and (folder / "gt").is_dir():
        gt = folder / "gt"
    photos = []
    for path in paths:
        if gt is None:
            photos.append(BackgroundPhoto(path, nothing))
            continue
        truth = gt / f"gt_{path.stem}.txt"
        if truth.is_file():
            photos.append(BackgroundPhoto(path, _read_quads(truth, gt_size or _size_of(path))))
    if not photos and paths:
        raise SourceError(f"no image of {folder} has a gt_NAME.txt in {gt}")
    if not photos:
        raise SourceError(f"no images in {folder}: name a folder of photographs without words")
    return BackgroundLibrary(tuple(photos))


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _read_quads(truth: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    quads = []
    for line in truth.read_text(encoding="utf-8-sig").splitlines():
        numbers = line.split(",", 8)[:8]
        if len(numbers) == 8:
            quads.append(np.array(numbers, np.float32).reshape(4, 2))
    places = np.array(quads, np.float32).reshape(-1, 4, 2)
    return np.asarray(places / np.array(size, np.float32), np.float32)


def plain_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """A surface's colour, BGR: white, grey and black more often than colours."""
    kind = rng.random()
    if kind < 0.17:
        base = np.full(3, rng.uniform(185, 255))
        return np.asarray(base + rng.normal(0, 6, 3), dtype=np.float32).clip(0, 255)
    if kind < 0.32:
        base = np.full(3, rng.uniform(0, 70))
        return np.asarray(base + rng.normal(0, 8, 3), dtype=np.float32).clip(0, 255)
    if kind < 0.45:
        base = np.full(3, rng.uniform(60, 190))
        return np.asarray(base + rng.normal(0, 10, 3), dtype=np.float32).clip(0, 255)
    # Paints and prints are red, orange, blue and green before they are pink or violet.
    hue = (_HUES[int(rng.integers(len(_HUES)))] + rng.normal(0, 7)) % 180
    saturation = 255 * rng.beta(1.8, 1.3)
    value = rng.uniform(40, 255)
    pixel = np.array([[[hue, saturation, value]]], dtype=np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0], dtype=np.float32)


def flat(width: int, height: int, colour: NDArray[np.float32]) -> Pixels:
    """A surface of one colour."""
    return np.broadcast_to(colour.astype(np.uint8), (height, width, 3)).copy()


def shaded(
    rng: np.random.Generator, width: int, height: int, strength: float, pale: float = 0.0
) -> Pixels:
    """One colour, paler towards its own grey by 0..1, under uneven light with faint blotches."""
    colour = plain_colour(rng)
    colour += (colour.mean() - colour) * np.float32(pale)
    corners = rng.normal(0, 22 * strength, (2, 2, 1)) + rng.normal(0, 5 * strength, (2, 2, 3))
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if strength > 0.2 and rng.random() < 0.6:
        cells = int(rng.integers(3, 12))
        blotches = rng.normal(0, rng.uniform(1, 10) * strength, (cells, cells * 2))
        spread = cv2.resize(
            blotches.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        light += spread[:, :, None]
    light += colour
    # Saturating at both ends, unlike numpy's own conversion.
    return np.asarray(cv2.add(light, 0.0, dtype=cv2.CV_8U), dtype=np.uint8)


def textured(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """A made-up wall: shaded, with stripes, bricks, panes or stray shapes; or a mottled one."""
    if rng.random() < 0.3:
        return mottled(rng, width, height)
    # Walls, floors and skies have little colour, unlike signs.
    surface = shaded(rng, width, height, 1.0, pale=float(rng.uniform(0.3, 1.0)))
    kind = int(rng.integers(0, 4))
    shade = plain_colour(rng)
    if rng.random() < 0.6:
        shade = surface.reshape(-1, 3).mean(axis=0) * float(rng.uniform(0.6, 1.4))
    colour = tuple(float(channel) for channel in shade.clip(0, 255))
    step = max(4, int(rng.uniform(0.05, 0.4) * max(width, height)))
    thickness = max(1, int(step * rng.uniform(0.02, 0.3)))
    if kind == 0:
        slope = int(rng.uniform(-1, 1) * height)
        for x in range(-abs(slope), width + abs(slope), step):
            cv2.line(surface, (x, 0), (x + slope, height), colour, thickness, cv2.LINE_AA)
    elif kind == 1:
        row = max(3, int(step * rng.uniform(0.3, 0.6)))
        for number, y in enumerate(range(0, height, row)):
            cv2.line(surface, (0, y), (width, y), colour, max(1, thickness // 3))
            for x in range((number % 2) * step // 2, width, step):
                cv2.line(surface, (x, y), (x, y + row), colour, max(1, thickness // 3))
    elif kind == 2:
        for _ in range(int(rng.integers(1, 6))):
            corners = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
            fill = tuple(float(channel) for channel in plain_colour(rng))
            hull = cv2.convexHull(corners.astype(np.int32))
            cv2.fillConvexPoly(surface, hull, fill, cv2.LINE_AA)
    else:
        for _ in range(int(rng.integers(2, 12))):
            ends = (rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)).astype(int)
            fill = tuple(float(channel) for channel in plain_colour(rng))
            start, end = (tuple(map(int, point)) for point in ends)
            cv2.line(surface, start, end, fill, int(rng.integers(1, 2 + step // 6)), cv2.LINE_AA)
    if rng.random() < 0.7:
        surface = cv2.GaussianBlur(surface, (0, 0), float(rng.uniform(0.4, 2.5)))
    return np.asarray(surface, dtype=np.uint8)


def mottled(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Foliage, gravel, stone, fur or clouds: noise whose coarse parts are the stronger.

    Octaves of noise weigh more the coarser they are, as in natural pictures, whose amplitude falls
    with frequency (Field 1987, "Relations between the statistics of natural images", eq. 2).
    """
    one, other = plain_colour(rng), plain_colour(rng)
    if rng.random() < 0.7:  # tones of one thing
        other = np.asarray((one * rng.uniform(0.3, 1.7)).clip(0, 255), np.float32)
    fall = float(rng.uniform(0.1, 1.2))
    stretch = float(np.exp(rng.normal(0, 0.4)))
    mix = np.zeros((height, width), np.float32)
    cells = int(rng.integers(2, 6))
    weight = 1.0
    while cells < max(width, height):
        down = max(2, round(cells * height / max(width, height) * stretch))
        noise = rng.normal(0, weight, (down, max(2, cells))).astype(np.float32)
        mix += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        cells *= 2
        weight *= 2.0**-fall
    mix /= max(float(mix.std()), 1e-3)
    sharpness = float(rng.uniform(0.4, 3.0))  # leaves have edges, clouds have none
    share = (0.5 + 0.5 * np.tanh(mix * sharpness))[:, :, None]
    return np.asarray(one + share * (other - one), np.uint8)


def any_surface(
    rng: np.random.Generator,
    width: int,
    height: int,
    difficulty: float,
    backgrounds: BackgroundLibrary | None,
) -> Pixels:
    """The surface behind a word: plain at difficulty 0, anything at all at 1."""
    if difficulty <= 0.02:
        return flat(width, height, plain_colour(rng))
    busy = rng.random() < 0.30 * difficulty
    if not busy:
        return shaded(rng, width, height, difficulty)
    if backgrounds is not None and rng.random() < 0.75:
        return backgrounds.cut(rng, width, height)
    return textured(rng, width, height)
