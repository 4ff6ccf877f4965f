"""Word crops for the reader's training: real ones, rendered ones, and what is done to them.

A crop is a small image with one word's quad and text. Real crops come from ICDAR2015 (word crops at
full resolution and the photos themselves) and ICDAR2003; rendered ones from
:func:`textspot_ray.training.scenes.render_word`. A training example is a crop, distorted a little
(light, focus, scale), cut along a quad that is off the true one as a detector's would be.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.errors import SourceError
from textspot_ray.training import datasets
from textspot_ray.training import network as net
from textspot_ray.training.photometry import motion_blur

# Photos 801-900 choose thresholds and checkpoints, 901-1000 are for measuring: never trained on.
LAST_TRAIN_PHOTO = 800
LAST_VALIDATION_PHOTO = 900
MAX_TARGET = 25

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples ready for the network.

    Attributes:
        pixels: [K, 56, 224, 3] uint8, BGR.
        codes: [K, 2] float32 shape codes of :func:`network.sampling_grid`.
        texts: targets.
        rendered: [K] bool; False for real crops.
    """

    pixels: Image
    codes: Floats
    texts: list[str]
    rendered: NDArray[np.bool_]


def target_of(text: str) -> str:
    """What the reader should say: lower case, accents dropped, only a-z and 0-9."""
    plain = unicodedata.normalize("NFKD", text).lower()
    return re.sub("[^a-z0-9]", "", plain)


def is_care_word(text: str) -> bool:
    """Whether word spotting counts a word: three letters or more, no digit, no inner space."""
    return re.fullmatch(r"\W*[A-Za-z]{3,}('s)?\W*", text) is not None


@dataclass(frozen=True, slots=True)
class Wave:
    """How letters are squeezed along a word and lifted off its line, as by another hand or a bent
    surface; a plain quad has none.

    Attributes:
        squeeze: local change of letter width, share; below 1 so that letters keep their order.
        lift: how far the line leaves its middle, share of the height.
        periods: waves along the word, of squeeze and lift.
        phases: where they begin, radians.
    """

    squeeze: float
    lift: float
    periods: tuple[float, float]
    phases: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> Wave:
        """A random one."""
        periods, phases = rng.uniform(0.5, 2.0, 2), rng.uniform(0, 2 * np.pi, 2)
        return cls(
            squeeze=float(np.clip(rng.normal(0, 0.25 * strength), -0.6, 0.6)),
            lift=float(np.clip(rng.normal(0, 0.04 * strength), -0.1, 0.1)),
            periods=(float(periods[0]), float(periods[1])),
            phases=(float(phases[0]), float(phases[1])),
        )


def cut(
    image: Image,
    quad: Floats,
    wave: Wave | None = None,
    shape: net.PatchShape = net.READER_PATCH,
) -> tuple[Image, Floats]:
    """:func:`network.rectify` for one small image, by OpenCV.

    Args:
        image: [H, W, 3] uint8.
        quad: [4, 2] corners.
        wave: bends the sampling lines.
        shape: of the patch.

    Returns:
        Pixels [height, width, 3] uint8 and shape codes [2].
    """
    tl, tr, br, bl = quad.astype(np.float32)
    width = max(float(np.linalg.norm((tr - tl + br - bl) / 2)), 1.0)
    height = max(float(np.linalg.norm((bl - tl + br - tr) / 2)), 1.0)
    rows = (np.arange(shape.height, dtype=np.float32) + 0.5) / shape.height
    cols = (np.arange(shape.width, dtype=np.float32) + 0.5) / shape.width
    margin = min(shape.margin_x * height / width, shape.max_margin)
    v = (rows * (1 + 2 * shape.margin_y) - shape.margin_y)[:, None, None]
    u = (cols * (1 + 2 * margin) - margin)[None, :, None]
    if wave is not None:
        (k1, k2), (p1, p2) = wave.periods, wave.phases
        bent = wave.squeeze / (2 * np.pi * k1) * np.sin(2 * np.pi * k1 * u + p1)
        # The ends stay where they are: taper to nothing at u = 0 and 1.
        v = v + wave.lift * np.sin(2 * np.pi * k2 * u + p2)
        u = u + bent * np.clip(np.minimum(u, 1 - u) * 6, 0, 1)
    points = (tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v
    step = height * (1 + 2 * shape.margin_y) / shape.height / net.MAX_ROW_STEP
    stride = 1
    while step > stride and stride < net.LEVEL_STRIDES[-1]:
        stride *= 2
    if stride > 1:
        h, w = (-(-n // stride) * stride for n in image.shape[:2])
        padded = cv2.copyMakeBorder(
            image, 0, h - image.shape[0], 0, w - image.shape[1], cv2.BORDER_REPLICATE
        )
        image = cv2.resize(padded, (w // stride, h // stride), interpolation=cv2.INTER_AREA)
    points = (points / stride - 0.5).astype(np.float32)
    pixels = cv2.remap(
        image,
        np.ascontiguousarray(points[..., 0]),
        np.ascontiguousarray(points[..., 1]),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    codes = np.array([np.log2(width / height), np.log2(height / 16)], np.float32)
    return pixels, codes


def jitter_quad(rng: np.random.Generator, quad: Floats, strength: float = 1.0) -> Floats:
    """A quad as an imperfect detector would give it.

    As the embedded detector's quads lie on the words of photos 801-900 (324 words, an hour before
    its training ended): half of the ends are within 0.11 heights of the true ones and a tenth
    further off than 0.35, tops and bottoms spread by 0.1, angles by 7 degrees.
    """
    tl, tr, br, bl = quad
    across, down = (tr - tl + br - bl) / 2, (bl - tl + br - tr) / 2
    width = max(float(np.linalg.norm(across)), 1.0)
    height = max(float(np.linalg.norm(down)), 1.0)
    ex, ey = across / width, down / height
    far = rng.random(2) < 0.2
    ends = np.where(
        far,
        np.clip(rng.normal(0.1, 0.3, 2), -0.35, 0.7),
        np.clip(rng.normal(0.02, 0.13, 2), -0.25, 0.4),
    )
    ends = ends * strength * height
    sides = np.clip(rng.normal(-0.01, 0.09, 2), -0.22, 0.25) * strength * height
    moved = np.stack(
        [
            tl - ex * ends[0] - ey * sides[0],
            tr + ex * ends[1] - ey * sides[0],
            br + ex * ends[1] + ey * sides[1],
            bl - ex * ends[0] + ey * sides[1],
        ]
    )
    # Long words leave a turned quad sooner: the ends stay within about half the height.
    spread = min(5.0, float(np.degrees(np.arctan(0.25 * height / width))))
    angle = np.radians(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)) * strength
    c, s = np.cos(angle), np.sin(angle)
    centre = moved.mean(0)
    turned = (moved - centre) @ np.array([[c, s], [-s, c]]) + centre
    turned += rng.normal(0, 0.015 * strength, (4, 2)) * height
    return np.asarray(turned, np.float32)


def rescale(crop: Word, factor: float) -> Crop:
    """Resize a crop: averaged when it shrinks, bicubic or bilinear when it grows."""
    h, w = crop.image.shape[:2]
    size = (max(2, round(w * factor)), max(2, round(h * factor)))
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(crop.image, size, interpolation=mode)
    quad = crop.quad * np.array([size[0] / w, size[1] / h], np.float32)
    return Crop(image, quad.astype(np.float32), crop.text)


def quad_height(quad: Floats) -> float:
    """Mean length of a quad's left and right sides, px."""
    tl, tr, br, bl = quad
    return float((np.linalg.norm(bl - tl) + np.linalg.norm(br - tr)) / 2)


def change_light(rng: np.random.Generator, image: Image, strength: float = 1.0) -> Image:
    """Contrast, brightness, gamma, colour, polarity, noise, blur and JPEG, each now and then."""
    if rng.random() < 0.6:
        ramp = np.arange(256, dtype=np.float32) / 255
        luts = np.empty((256, 3), np.float32)
        gain = 1 + rng.uniform(-0.5, 0.3) * strength
        gamma = np.exp(rng.normal(0, 0.25) * strength)
        for channel in range(3):
            tint = 1 + rng.normal(0, 0.08) * strength
            shift = rng.normal(0, 0.06) * strength
            luts[:, channel] = ((ramp**gamma - 0.5) * gain * tint + 0.5 + shift) * 255
        if rng.random() < 0.15:
            luts = 255 - luts
        if rng.random() < 0.1:
            luts = luts[:, rng.permutation(3)]
        image = cv2.LUT(image, np.clip(luts, 0, 255).astype(np.uint8).reshape(256, 1, 3))
    if rng.random() < 0.3 * strength:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    elif rng.random() < 0.1 * strength:
        length, angle = float(rng.uniform(1.5, 4.0)), float(rng.uniform(0, np.pi))
        image = motion_blur(image, length, angle)
    if rng.random() < 0.3 * strength:
        sigma = rng.uniform(2, 12)
        cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's noise comes from its own generator
        noise = cv2.randn(np.empty(image.shape, np.int16), 0, sigma)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.3 * strength:
        quality = int(rng.integers(25, 90))
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if ok:
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image


def real_example(rng: np.random.Generator, crop: Crop, strength: float) -> tuple[Image, Floats]:
    """One distorted view of a real crop: pixels [56, 224, 3], shape codes [2]."""
    height = quad_height(crop.quad)
    factor = float(np.exp(rng.normal(0.0, 0.25)))
    if crop.sharp and rng.random() < 0.5:
        # As the photos are stored (960x640 of 1280x720), then as the detector sees them.
        crop = rescale(crop, 0.75)
        factor /= 0.75
    elif height > 20 and rng.random() < 0.4:  # as from further away: most words of photos are small
        factor = float(rng.uniform(9, 20)) / height
    factor = max(factor, 8 / max(height, 1.0)) if height * factor < 8 else factor
    view = rescale(crop, factor) if abs(factor - 1) > 0.03 else crop
    image = change_light(rng, view.image, strength)
    quad = view.quad.astype(np.float32)
    if rng.random() < 0.25:  # stretched or sheared a little, as another face would be
        h = quad_height(quad)
        skew = np.float32(rng.normal(0, 0.12) * h)
        along = (quad[1] - quad[0]) / max(float(np.linalg.norm(quad[1] - quad[0])), 1.0)
        quad = quad + np.stack([along, along, -along, -along]).astype(np.float32) * (skew / 2)
    wave = Wave.draw(rng, strength) if rng.random() < 0.5 else None
    return cut(image, jitter_quad(rng, np.asarray(quad, np.float32), strength), wave)


def rendered_example(rng: np.random.Generator, word: Word, strength: float) -> tuple[Image, Floats]:
    """One distorted view of a rendered word, gentler in its light: the renderer did that."""
    factor = float(np.exp(rng.normal(0, 0.15)))
    if quad_height(word.quad) * factor >= 8 and rng.random() < 0.5:
        word = rescale(word, factor)
    image = change_light(rng, word.image, 0.5 * strength)
    wave = Wave.draw(rng, strength) if rng.random() < 0.3 else None
    return cut(image, jitter_quad(rng, word.quad, strength), wave)


def surroundings(image: Image, quad: Floats) -> Crop | None:
    """Cut the quad's neighbourhood (half its height on each side) out of a photo; text empty."""
    margin = 0.5 * quad_height(quad) + 4
    h, w = image.shape[:2]
    x1, y1 = np.maximum(np.floor(quad.min(0) - margin), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(quad.max(0) + margin), [w, h]).astype(int)
    if x2 - x1 < 4 or y2 - y1 < 4:
        return None
    return Crop(image[y1:y2, x1:x2].copy(), (quad - np.array([x1, y1])).astype(np.float32), "")


def read_gt(path: Path) -> list[tuple[Floats, str]]:
    """Lines ``x1,y1,...,x4,y4,text`` of an ICDAR gt file: quads and texts (``###`` included)."""
    words = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        parts = line.split(",", 8)
        if len(parts) == 9:
            quad = np.array([float(n) for n in parts[:8]], np.float32).reshape(4, 2)
            words.append((quad, parts[8]))
    return words


def photo_crops(
    folder: Path,
    first: int,
    last: int,
    gt_size: tuple[int, int] | None = (1280, 720),
    input_size: tuple[int, int] | None = (1280, 768),
) -> list[Crop]:
    """Legible words of photos ``img_N.jpg``, as the detector sees them.

    Args:
        folder: holds ``images/`` and ``gt/gt_img_N.txt``.
        first: first N.
        last: last N.
        gt_size: size that gt coordinates refer to; None: the photo's own.
        input_size: size the photo is stretched to; None: kept.

    Returns:
        Crops with a non-empty target, marked as not sharp.

    Raises:
        SourceError: the folder has no photos.
    """
    crops = []
    photos = sorted((folder / "images").glob("*.jpg")) if folder.is_dir() else []
    if not photos:
        raise SourceError(f"{folder}: no images/*.jpg; give the folder of an unpacked ICDAR set")
    for path in photos:
        number = re.search(r"(\d+)$", path.stem)
        if number and not first <= int(number[1]) <= last:
            continue
        gt = folder / "gt" / f"gt_{path.stem}.txt"
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None or not gt.exists():
            continue
        scale = np.ones(2)
        if gt_size:
            scale = np.array([image.shape[1] / gt_size[0], image.shape[0] / gt_size[1]])
        if input_size:
            scale = scale * [input_size[0] / image.shape[1], input_size[1] / image.shape[0]]
            image = cv2.resize(image, input_size)
        for quad, text in read_gt(gt):
            if text == "###" or not 0 < len(target_of(text)) <= MAX_TARGET:
                continue
            crop = surroundings(image, (quad * scale).astype(np.float32))
            if crop is not None:
                crops.append(Crop(crop.image, crop.quad, text, sharp=False))
    return crops


def empty_crops(folder: Path, first: int, last: int, per_photo: int = 3) -> list[Crop]:
    """Places in photos that hold no text, shaped as words: what the reader must call "".

    A detector's false boxes look like these; a word read as "" is dropped.

    Args:
        folder: as for :func:`photo_crops`.
        first: first N of ``img_N.jpg``.
        last: last N.
        per_photo: crops a photo.

    Returns:
        Crops with empty text, away from every word of the gt, legible or not.
    """
    rng = np.random.default_rng(len(str(folder.name)))
    crops = []
    for path in sorted((folder / "images").glob("*.jpg")):
        number = re.search(r"(\d+)$", path.stem)
        gt = folder / "gt" / f"gt_{path.stem}.txt"
        if not number or not first <= int(number[1]) <= last or not gt.exists():
            continue
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            continue
        image = cv2.resize(image, (1280, 768))
        taken = np.zeros(image.shape[:2], np.uint8)
        for quad, _ in read_gt(gt):
            centre = quad.mean(0)
            wide = (quad - centre) * 1.3 + centre
            cv2.fillConvexPoly(taken, (wide * [1, 768 / 720]).round().astype(np.int32), 1)
        for _ in range(per_photo):
            height = float(np.exp(rng.uniform(np.log(9), np.log(60))))
            width = height * float(np.exp(rng.uniform(np.log(0.8), np.log(7))))
            angle = rng.normal(0, 0.15)
            c, s = np.cos(angle), np.sin(angle)
            corners = np.array([[-width, -height], [width, -height], [width, height]]) / 2
            corners = np.concatenate((corners, [[-width / 2, height / 2]]))
            quad = corners @ np.array([[c, s], [-s, c]])
            quad = (quad + rng.uniform([60, 60], [1220, 708])).astype(np.float32)
            here = np.zeros_like(taken)
            cv2.fillConvexPoly(here, quad.round().astype(np.int32), 1)
            if (here & taken).any():
                continue
            crop = surroundings(image, quad)
            if crop is not None:
                crops.append(Crop(crop.image, crop.quad, "", sharp=False))
    return crops


def word_crops(folder: Path, first: int, last: int) -> list[Crop]:
    """Word crops of ``words.tsv`` from photos ``first``..``last``; targets non-empty."""
    crops = []
    table = folder / "words.tsv"
    if not table.exists():
        raise SourceError(f"{table}: not found; give the folder of the unpacked word crops")
    with table.open(encoding="utf-8", newline="") as f:
        for row in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row[0] == "file" or not first <= int(row[1]) <= last:
                continue
            if not 0 < len(target_of(row[10])) <= MAX_TARGET:
                continue
            image = cv2.imread(str(folder / "words" / row[0]), cv2.IMREAD_COLOR)
            if image is not None:
                quad = np.array([float(n) for n in row[2:10]], np.float32).reshape(4, 2)
                crops.append(Crop(image, quad, row[10]))
    return crops


def labelled_crops(folder: Path, labels: Path, reach_px: float = 3.0) -> list[Crop]:
    """Words of photos with masks, transcribed by :mod:`textspot_ray.training.pseudo_labels`.

    Args:
        folder: holds ``images/`` and ``masks/``.
        labels: the transcriptions.
        reach_px: how far a word's middle may lie from its label's.

    Raises:
        SourceError: a folder or the labels are missing.
    """
    if not labels.is_file():
        raise SourceError(f"{labels}: no such file; make it with train_embedded.py labels")
    by_file: dict[str, list[tuple[Floats, str]]] = {}
    with labels.open(encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE):
            middle = np.array([float(row["x"]), float(row["y"])], np.float32)
            by_file.setdefault(row["file"], []).append((middle, row["text"]))
    crops = []
    for photo in datasets.mlt_photos(folder):
        wanted = by_file.get(photo.path.name, [])
        if not wanted:
            continue
        image = photo.pixels()
        for word in photo.words:
            quad = word.quad.astype(np.float32)
            near = [t for at, t in wanted if np.abs(quad.mean(0) - at).max() < reach_px]
            crop = surroundings(image, quad) if word.legible else None
            if crop is not None and near and 0 < len(target_of(near[0])) <= MAX_TARGET:
                crops.append(Crop(crop.image, crop.quad, near[0]))
    return crops


def train_crops(data: Path, labels: Path | None = None) -> list[Crop]:
    """All real training words below ``data``: ICDAR2015 up to photo 800, ICDAR2003, and MLT's
    where there are ``labels`` for them."""
    crops = word_crops(data / "icdar2015_words", 1, LAST_TRAIN_PHOTO)
    crops += photo_crops(data / "icdar2015_train", 1, LAST_TRAIN_PHOTO)
    crops += photo_crops(data / "icdar2003_train", 0, 10**9, None, None)
    if labels is not None:
        crops += labelled_crops(data / "mlt_english_masks", labels)
    return crops


def train_empties(data: Path) -> list[Crop]:
    """Places without text in the training photos below ``data``."""
    return empty_crops(data / "icdar2015_train", 1, LAST_TRAIN_PHOTO)


class WordSource:
    """Endless batches of rendered and real examples.

    Rendering costs more than distorting, so rendered words live in a pool, of which a share is
    replaced with every batch; each word is seen a few times, each time distorted anew.
    """

    def __init__(
        self,
        renderer: Renderer,
        crops: Sequence[Crop],
        seed: int,
        batch: int,
        reuse: float = 3.0,
        pool: int = 6000,
        empties: Sequence[Crop] = (),
    ) -> None:
        """Prepare; nothing is rendered yet.

        Args:
            renderer: gives a word for a generator and a difficulty 0..1.
            crops: real words; may be empty.
            seed: of the generator.
            batch: examples in a batch.
            reuse: how often a rendered word is seen on average.
            pool: rendered words kept.
            empties: places without text, to be read as "".
        """
        self.renderer = renderer
        self.crops = crops
        self.empties = empties
        self.rng = np.random.default_rng(seed)
        self.batch = batch
        self.reuse = reuse
        self.pool_size = pool
        self.pool: list[Word] = []
        self._debt = 0.0

    def _render(self, difficulty: float) -> Word:
        while True:
            # Denser towards the present difficulty, with easier words never gone.
            word = self.renderer(self.rng, difficulty * float(self.rng.random()) ** 0.3)
            if len(target_of(word.text)) <= MAX_TARGET:
                return word

    def next(self, difficulty: float, real_share: float, empty_share: float = 0.0) -> Batch:
        """Make a batch.

        Args:
            difficulty: 0..1 of newly rendered words.
            real_share: share of real crops.
            empty_share: share of places without text.
        """
        n_empty = self._whole(self.batch * empty_share) if self.empties else 0
        n_real = n_empty + (self._whole(self.batch * real_share) if self.crops else 0)
        n_rendered = self.batch - n_real
        self._debt += n_rendered / self.reuse
        while self._debt >= 1 or (n_rendered and len(self.pool) < self.batch):
            self._debt -= 1
            word = self._render(difficulty)
            if len(self.pool) < self.pool_size:
                self.pool.append(word)
            else:
                self.pool[int(self.rng.integers(len(self.pool)))] = word
        pixels = np.empty((self.batch, net.PATCH_HEIGHT, net.PATCH_WIDTH, 3), np.uint8)
        codes = np.empty((self.batch, 2), np.float32)
        texts: list[str] = []
        strength = min(1.0, 0.4 + difficulty)
        for i in range(self.batch):
            if i < n_real:
                real = self.empties if i < n_empty else self.crops
                crop = real[int(self.rng.integers(len(real)))]
                pixels[i], codes[i] = real_example(self.rng, crop, strength)
                texts.append(target_of(crop.text))
            else:
                word = self.pool[int(self.rng.integers(len(self.pool)))]
                pixels[i], codes[i] = rendered_example(self.rng, word, strength)
                texts.append(target_of(word.text))
        return Batch(pixels, codes, texts, np.arange(self.batch) >= n_real)

    def _whole(self, share: float) -> int:
        """A whole number that is right on average."""
        return int(share + self.rng.random())

    def state(self) -> dict[str, Any]:
        """The generator's state (the pool is rendered anew after a resume)."""
        return dict(self.rng.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Set the generator's state."""
        self.rng.bit_generator.state = state


def exact_batch(words: Sequence[Word]) -> Batch:
    """Words cut along their true quads, undistorted: for measuring."""
    views = [cut(w.image, w.quad) for w in words]
    return Batch(
        np.stack([p for p, _ in views]),
        np.stack([c for _, c in views]),
        [target_of(w.text) for w in words],
        np.ones(len(views), np.bool_),
    )
