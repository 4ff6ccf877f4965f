"""Real photographs with their words: loading and the validation split.

Coordinates are continuous pixels throughout training: pixel ``i`` covers ``[i, i + 1)``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.data.kept_aside import names_for
from textspot_ray.errors import SourceError

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

IGNORED_TEXT = "###"
ICDAR2015_GT_SIZE = (1280, 720)  # width, height that ICDAR2015 coordinates refer to
VALIDATION_IDS = range(801, 901)  # thresholds and checkpoints are chosen on these photos
# The word regions of the MLT masks are the words' quads scaled about their centre by this factor
# (measured on the masks: both sides are 0.68 to 0.73 of the word's).
MLT_MASK_SCALE = 0.7


@dataclass(frozen=True, slots=True)
class PhotoWord:
    """A word in a photograph.

    Attributes:
        quad: [4, 2] corners in pixels, clockwise from the text's top left.
        text: As written in the ground truth, ``""`` where unknown.
        legible: False for regions that count neither for nor against a detector.
    """

    quad: FloatArray
    text: str
    legible: bool = True


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph on disk; word quads are in pixels of the stored file."""

    path: Path
    words: tuple[PhotoWord, ...]

    def pixels(self) -> ByteArray:
        """Decode the photograph.

        Returns:
            [H, W, 3] BGR.

        Raises:
            SourceError: the file cannot be decoded.
        """
        return read_image(self.path)


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> ByteArray:
    """Decode an image file; EXIF orientation is not applied, as ground truths ignore it.

    Raises:
        SourceError: the file is missing or no image.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such image; unpack the data set again")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image: Any = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise SourceError(f"{path}: cannot be decoded; unpack the data set again")
    return np.asarray(image, np.uint8)


def parse_gt(text: str, where: str = "ground truth") -> tuple[PhotoWord, ...]:
    """Parse ground truth in the ICDAR2015 form, ``x1,y1,...,x4,y4,text`` a line.

    The text may hold commas; ``###`` marks an illegible region.

    Raises:
        SourceError: a line has fewer than eight numbers; the message names `where` and the line.
    """
    words = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split(",", 8)
        try:
            quad = np.array([float(p) for p in parts[:8]], np.float32).reshape(4, 2)
        except ValueError:
            raise SourceError(f"{where}, line {number}: not x1,y1,...,x4,y4,text") from None
        word = parts[8].strip() if len(parts) > 8 else ""
        words.append(PhotoWord(quad, word, word != IGNORED_TEXT))
    return tuple(words)


def image_number(path: Path) -> int:
    """Return the number in a name like ``img_12.jpg``.

    Raises:
        SourceError: the name has no number.
    """
    found = re.search(r"(\d+)$", path.stem)
    if found is None:
        raise SourceError(f"{path}: expected a name like img_12{path.suffix}")
    return int(found.group(1))


def icdar_photos(
    root: Path,
    ids: Callable[[int], bool] | None = None,
    gt_size: tuple[int, int] | None = None,
) -> list[Photo]:
    """Load a folder with ``images/img_N.*`` and ``gt/gt_img_N.txt``.

    Args:
        root: The folder.
        ids: Which photo numbers to take; all by default.
        gt_size: Width and height that the coordinates refer to, where it is not the file's own.

    Raises:
        SourceError: no images, or a photo without ground truth.
    """
    photos = []
    for path in sorted(image_files(root / "images"), key=image_number):
        number = image_number(path)
        if ids is not None and not ids(number):
            continue
        gt = root / "gt" / f"gt_img_{number}.txt"
        if not gt.is_file():
            raise SourceError(f"{gt}: missing, but {path.name} is there")
        words = parse_gt(gt.read_text(encoding="utf-8-sig"), str(gt))
        if gt_size is not None:
            height, width = read_image(path).shape[:2]
            scale = np.array([width / gt_size[0], height / gt_size[1]], np.float32)
            words = tuple(PhotoWord(w.quad * scale, w.text, w.legible) for w in words)
        photos.append(Photo(path, words))
    return photos


def icdar2015_training(root: Path) -> list[Photo]:
    """ICDAR2015 training photos without those kept for validation."""
    return icdar_photos(root, lambda n: n not in VALIDATION_IDS, ICDAR2015_GT_SIZE)


def icdar2015_validation(root: Path) -> list[Photo]:
    """The ICDAR2015 photos on which thresholds and checkpoints are chosen."""
    return icdar_photos(root, lambda n: n in VALIDATION_IDS, ICDAR2015_GT_SIZE)


def words_of_mask(mask: ByteArray, min_height_px: float = 4.0) -> tuple[PhotoWord, ...]:
    """Recover word quads from a mask of shrunken word regions.

    Each white component's smallest rectangle is scaled back about its centre. A reading direction
    is not in a mask: the side nearest to the x axis is taken as the top. Components of which that
    is doubtful (taller than wide) or that are tiny become ignored regions.

    Args:
        mask: [H, W], white = word.
        min_height_px: Regions lower than this, as drawn, are ignored.
    """
    words = []
    contours, _ = cv2.findContours(
        (mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    for contour in contours:
        # pixel centres to continuous coordinates, half a pixel of rim on each side
        (cx, cy), (w, h), angle = cv2.minAreaRect(contour.astype(np.float32) + 0.5)
        w, h = w + 1, h + 1
        if angle > 45:
            w, h, angle = h, w, angle - 90
        elif angle < -45:
            w, h, angle = h, w, angle + 90
        legible = h >= min_height_px and w >= 0.8 * h
        rect = ((cx, cy), (w / MLT_MASK_SCALE, h / MLT_MASK_SCALE), angle)
        words.append(PhotoWord(rect_corners(*rect), "", legible))
    return tuple(words)


def rect_corners(
    centre: tuple[float, float], size: tuple[float, float], angle_deg: float
) -> FloatArray:
    """Corners [4, 2] of a turned rectangle, clockwise from its own top left."""
    a = np.deg2rad(angle_deg)
    u = np.array([np.cos(a), np.sin(a)]) * size[0] / 2
    v = np.array([-np.sin(a), np.cos(a)]) * size[1] / 2
    c = np.asarray(centre)
    return np.stack([c - u - v, c + u - v, c + u + v, c - u + v]).astype(np.float32)


def pages(root: Path, role: str = "train") -> list[Photo]:
    """Load documents and web graphics: ``images/*`` and ``gt/gt_<stem>.txt``, at their own size.

    What holds neither letter nor digit (rules, bullets, brackets) becomes an ignored region: the
    reader has no symbol for it.

    Args:
        root: The data set; its name says which files are kept aside, see :mod:`kept_aside`.
        role: "train", "validate" or "measure".

    Raises:
        SourceError: no images, or ground truth in another form.
    """
    paths = image_files(root / "images")
    wanted = names_for(role, [path.stem for path in paths], root)
    photos = []
    for path in paths:
        gt = root / "gt" / f"gt_{path.stem}.txt"
        if path.stem not in wanted or not gt.is_file():
            continue
        words = parse_gt(gt.read_text(encoding="utf-8-sig"), str(gt))
        words = tuple(
            PhotoWord(w.quad, w.text, w.legible and any(c.isalnum() for c in w.text)) for w in words
        )
        photos.append(Photo(path, words))
    return photos


# Where the number stands on a US plate, shares of its width and height: the state's name is above
# it, a motto below (looked at on 30 of the crops).
NUMBER_BAND = (0.04, 0.27, 0.96, 0.76)


def number_band(plate: FloatArray) -> FloatArray:
    """The part [4, 2] of a plate's quad [4, 2] that holds the number."""
    x0, y0, x1, y1 = NUMBER_BAND
    return _part(plate, x0, y0, x1, y1)


def _part(quad: FloatArray, x0: float, y0: float, x1: float, y1: float) -> FloatArray:
    """A part of a quad, by shares of its sides."""
    tl, tr, br, bl = quad
    at = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
    u, v = at[:, :1], at[:, 1:]
    return np.asarray((tl * (1 - u) + tr * u) * (1 - v) + (bl * (1 - u) + br * u) * v, np.float32)


def plate_crops(root: Path) -> list[Photo]:
    """Load whole plates (``words.tsv``): the number is a word, what is about it ignored."""
    photos = []
    lines = (root / "words.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip()]
    wanted = names_for("train", [Path(row[0]).stem for row in rows], root)
    for file, _, corners, text in rows:
        if Path(file).stem not in wanted:
            continue
        quad = np.array([float(n) for n in corners.split(",")], np.float32).reshape(4, 2)
        _, y0, _, y1 = NUMBER_BAND
        rest = [_part(quad, 0, 0, 1, y0), _part(quad, 0, y1, 1, 1)]
        words = [PhotoWord(number_band(quad), text), *(PhotoWord(q, "", False) for q in rest)]
        photos.append(Photo(root / "words" / file, tuple(words)))
    return photos


def plate_photos(root: Path) -> list[Photo]:
    """Load photos whose ground truth has a box a number plate.

    A plate in one run of characters is a word. One that is written in several words or lines is
    an ignored region, since where its words lie is not known.
    """
    photos = []
    for photo in pages(root):
        words = []
        for w in photo.words:
            width, height = np.ptp(w.quad[:, 0]), np.ptp(w.quad[:, 1])
            whole = w.legible and " " not in w.text.strip() and width > 2.8 * height
            words.append(PhotoWord(w.quad, w.text, bool(whole)))
        photos.append(Photo(photo.path, tuple(words)))
    return photos


def mlt_photos(root: Path) -> list[Photo]:
    """Load a folder with ``images/*`` and ``masks/<same stem>.png``.

    Raises:
        SourceError: no images, or a photo without mask.
    """
    photos = []
    for path in image_files(root / "images"):
        mask = read_image(root / "masks" / f"{path.stem}.png", cv2.IMREAD_GRAYSCALE)
        photos.append(Photo(path, words_of_mask(mask)))
    return photos


def background_photos(root: Path) -> list[Photo]:
    """Load a folder of photos (nearly) without text."""
    return [Photo(path, ()) for path in image_files(root)]


def image_files(folder: Path) -> list[Path]:
    """Image files of a folder, by name.

    Raises:
        SourceError: there are none.
    """
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = (
        sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)
        if folder.is_dir()
        else []
    )
    if not files:
        raise SourceError(f"{folder}: no images; unpack the data set there")
    return files


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
