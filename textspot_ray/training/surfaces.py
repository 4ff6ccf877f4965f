"""What words are drawn on: plain, shaded and textured surfaces, cuts of real photographs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import SourceError

Pixels = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(slots=True)
class BackgroundLibrary:
    """Textless photographs to cut backgrounds from.

    Decoded photographs are kept and used many times over; one in `keep_uses` draws decodes a
    new one, so a library of any size costs bounded memory and little time.

    Args:
        paths: Image files; must not be empty.
        pool_size: Decoded photographs kept.
        keep_uses: Mean number of draws between two decodings.
    """

    paths: tuple[Path, ...]
    pool_size: int = 48
    keep_uses: int = 12
    _pool: list[Pixels] = field(init=False, repr=False, default_factory=list)

    def photo(self, rng: np.random.Generator) -> Pixels:
        """One of the photographs, whole, BGR."""
        filling = len(self._pool) < min(self.pool_size, len(self.paths))
        if filling or rng.random() * self.keep_uses < 1:
            image = self._decode(rng)
            if filling:
                self._pool.append(image)
            else:
                self._pool[int(rng.integers(len(self._pool)))] = image
            return image
        return self._pool[int(rng.integers(len(self._pool)))]

    def _decode(self, rng: np.random.Generator) -> Pixels:
        for _ in range(16):
            path = self.paths[int(rng.integers(len(self.paths)))]
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is not None and min(image.shape[:2]) >= 16:
                return np.asarray(image, dtype=np.uint8)
        raise SourceError(
            f"no image can be decoded among the backgrounds in {self.paths[0].parent}"
        )

    def cut(self, rng: np.random.Generator, width: int, height: int) -> Pixels:
        """A piece of a photograph at a random scale, width x height."""
        photo = self.photo(rng)
        full_h, full_w = photo.shape[:2]
        # At the largest scale the piece is the whole photograph, at the smallest one pixel of
        # it covers about three.
        largest = min(full_w / width, full_h / height)
        scale = largest * float(np.exp(rng.uniform(np.log(min(0.3 / largest, 0.5)), 0.0)))
        scale = min(scale, largest)
        cut_w, cut_h = max(2, int(width * scale)), max(2, int(height * scale))
        x = int(rng.integers(0, full_w - cut_w + 1))
        y = int(rng.integers(0, full_h - cut_h + 1))
        piece = photo[y : y + cut_h, x : x + cut_w]
        how = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_LINEAR
        piece = cv2.resize(piece, (width, height), interpolation=how)
        return np.asarray(piece[:, ::-1] if rng.random() < 0.5 else piece, dtype=np.uint8)


def load_backgrounds(folder: Path) -> BackgroundLibrary:
    """List the images in a folder, recursively.

    Raises:
        SourceError: There is none.
    """
    paths = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES))
    if not paths:
        raise SourceError(f"no images in {folder}: name a folder of textless photographs")
    return BackgroundLibrary(paths)


def plain_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """A surface's colour, BGR: white, grey and black more often than colours."""
    kind = rng.random()
    if kind < 0.22:
        base = np.full(3, rng.uniform(185, 255))
        return np.asarray(base + rng.normal(0, 6, 3), dtype=np.float32).clip(0, 255)
    if kind < 0.40:
        base = np.full(3, rng.uniform(0, 70))
        return np.asarray(base + rng.normal(0, 8, 3), dtype=np.float32).clip(0, 255)
    if kind < 0.58:
        base = np.full(3, rng.uniform(60, 190))
        return np.asarray(base + rng.normal(0, 10, 3), dtype=np.float32).clip(0, 255)
    hue = rng.uniform(0, 180)
    saturation = 255 * rng.beta(2.0, 1.6)
    value = rng.uniform(40, 255)
    pixel = np.array([[[hue, saturation, value]]], dtype=np.uint8)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0], dtype=np.float32)


def flat(width: int, height: int, colour: NDArray[np.float32]) -> Pixels:
    """A surface of one colour."""
    return np.broadcast_to(colour.astype(np.uint8), (height, width, 3)).copy()


def shaded(rng: np.random.Generator, width: int, height: int, strength: float) -> Pixels:
    """One colour under uneven light with faint blotches; strength 0..1."""
    colour = plain_colour(rng)
    corners = rng.normal(0, 22 * strength, (2, 2, 1)) + rng.normal(0, 5 * strength, (2, 2, 3))
    light = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if strength > 0.2 and rng.random() < 0.6:
        cells = int(rng.integers(3, 12))
        blotches = rng.normal(0, rng.uniform(1, 10) * strength, (cells, cells * 2))
        spread = cv2.resize(
            blotches.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        light += spread[:, :, None]
    return np.asarray((light + colour).clip(0, 255), dtype=np.uint8)


def textured(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """A made-up wall: shaded, with stripes, bricks, panes or stray shapes."""
    surface = shaded(rng, width, height, 1.0)
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
    busy = rng.random() < 0.45 * difficulty
    if not busy:
        return shaded(rng, width, height, difficulty)
    if backgrounds is not None and rng.random() < 0.75:
        return backgrounds.cut(rng, width, height)
    return textured(rng, width, height)
