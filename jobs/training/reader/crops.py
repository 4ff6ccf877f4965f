"""Real words for the reader: out of photographs, documents, plates and lists of word crops.

ICDAR2015's come twice: as crops at full resolution and from the photos as the detector sees them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jobs.training.data import datasets
from jobs.training.data.datasets import number_band
from jobs.training.data.kept_aside import names_for
from jobs.training.data.located_labels import Label, read_labels
from jobs.training.data.word_crop import Crop, Floats, Image, quad_height, surroundings
from jobs.training.render.words import target_of
from textspot_ray.errors import SourceError

# Photos 801-900 choose thresholds and checkpoints, 901-1000 are for measuring: never trained on.
LAST_TRAIN_PHOTO = datasets.VALIDATION_IDS.start - 1
LAST_VALIDATION_PHOTO = datasets.VALIDATION_IDS.stop - 1
MAX_TARGET = 25
DETECTOR_SIZE = (1280, 768)  # width, height that the detector sees a photo at


def photo_crops(
    folder: Path,
    first: int,
    last: int,
    gt_size: tuple[int, int] | None = datasets.ICDAR2015_GT_SIZE,
    input_size: tuple[int, int] | None = DETECTOR_SIZE,
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
    for image, words in _photos(folder, first, last):
        scale = np.ones(2)
        if gt_size:
            scale = np.array([image.shape[1] / gt_size[0], image.shape[0] / gt_size[1]])
        if input_size:
            scale = scale * [input_size[0] / image.shape[1], input_size[1] / image.shape[0]]
            image = np.asarray(cv2.resize(image, input_size), np.uint8)
        for word in words:
            if not word.legible or not _readable(word.text):
                continue
            crop = surroundings(image, (word.quad * scale).astype(np.float32))
            if crop is not None:
                crops.append(Crop(crop.image, crop.quad, word.text, sharp=False))
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

    Raises:
        SourceError: the folder has no photos.
    """
    rng = np.random.default_rng(len(str(folder.name)))
    crops = []
    to_input = np.array(DETECTOR_SIZE) / np.array(datasets.ICDAR2015_GT_SIZE)
    for photo, words in _photos(folder, first, last):
        image = np.asarray(cv2.resize(photo, DETECTOR_SIZE), np.uint8)
        crops += empty_places(rng, image, [word.quad * to_input for word in words], per_photo)
    return crops


def empty_places(
    rng: np.random.Generator, image: Image, quads: Sequence[Floats], tries: int
) -> list[Crop]:
    """Places of a word's size and slope that no word is near, of so many tries.

    Args:
        rng: Where chance comes from.
        image: [H, W, 3] uint8, H and W at least 200.
        quads: [4, 2] corners of all words in it, legible or not.
        tries: Places tried; those on a word or at the rim are passed over.
    """
    crops = []
    taken = np.zeros(image.shape[:2], np.uint8)
    for quad in quads:
        centre = quad.mean(0)
        cv2.fillConvexPoly(taken, ((quad - centre) * 1.3 + centre).round().astype(np.int32), 1)
    for _ in range(tries):
        quad = _drawn_quad(rng, image.shape[1], image.shape[0])
        here = np.zeros_like(taken)
        cv2.fillConvexPoly(here, quad.round().astype(np.int32), 1)
        if (here & taken).any():
            continue
        crop = surroundings(image, quad)
        if crop is not None:
            crops.append(Crop(crop.image, crop.quad, "", sharp=False))
    return crops


def _drawn_quad(rng: np.random.Generator, width_px: int, height_px: int) -> Floats:
    """A quad [4, 2] of a word's size and slope, anywhere in a picture but at its rim."""
    height = float(np.exp(rng.uniform(np.log(9), np.log(60))))
    width = height * float(np.exp(rng.uniform(np.log(0.8), np.log(7))))
    angle = rng.normal(0, 0.15)
    c, s = np.cos(angle), np.sin(angle)
    corners = np.array([[-width, -height], [width, -height], [width, height]]) / 2
    corners = np.concatenate((corners, [[-width / 2, height / 2]]))
    quad = corners @ np.array([[c, s], [-s, c]])
    return np.asarray(quad + rng.uniform([60, 60], [width_px - 60, height_px - 60]), np.float32)


def _photos(
    folder: Path, first: int, last: int
) -> Iterator[tuple[Image, tuple[datasets.PhotoWord, ...]]]:
    """Pixels and words (in gt coordinates) of photos ``first``..``last`` that have a gt file."""
    paths = sorted((folder / "images").glob("*.jpg")) if folder.is_dir() else []
    if not paths:
        raise SourceError(f"{folder}: no images/*.jpg; give the folder of an unpacked ICDAR set")
    for path in paths:
        gt = folder / "gt" / f"gt_{path.stem}.txt"
        if first <= datasets.image_number(path) <= last and gt.exists():
            text = gt.read_text(encoding="utf-8-sig")
            yield datasets.read_image(path), datasets.parse_gt(text, str(gt))


def _readable(text: str) -> bool:
    """Whether a transcription leaves the reader something to say, and not too much."""
    return 0 < len(target_of(text)) <= MAX_TARGET


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
            if not _readable(row[10]):
                continue
            image = cv2.imread(str(folder / "words" / row[0]), cv2.IMREAD_COLOR)
            if image is not None:
                quad = np.array([float(n) for n in row[2:10]], np.float32).reshape(4, 2)
                crops.append(Crop(image, quad, row[10]))
    return crops


def labelled_crops(folder: Path, labels: Path) -> list[Crop]:
    """Words of photos with masks, transcribed by :mod:`jobs.training.data.pseudo_labels`.

    Args:
        folder: holds ``images/`` and ``masks/``.
        labels: the transcriptions; those of photos that the folder lacks are passed over.

    Raises:
        SourceError: a folder or the labels are missing, or a label lies on no word of its photo.
    """
    by_file: dict[str, list[Label]] = {}
    for label in read_labels(labels):
        by_file.setdefault(label.file, []).append(label)
    crops = []
    for photo in datasets.mlt_photos(folder):
        wanted = by_file.get(photo.path.name, [])
        if not wanted:
            continue
        image = photo.pixels()
        quads = [word.quad.astype(np.float32) for word in photo.words]
        middles = [(float(x), float(y)) for x, y in (quad.mean(0) for quad in quads)]
        texts = {label.nearest(middles): label.text for label in reversed(wanted)}
        for i, (word, quad) in enumerate(zip(photo.words, quads, strict=True)):
            text = texts.get(i, "")
            crop = surroundings(image, quad) if word.legible and _readable(text) else None
            if crop is not None:
                crops.append(Crop(crop.image, crop.quad, text))
    return crops


def train_crops(data: Path, labels: Path | None = None) -> list[Crop]:
    """Words of street photographs below ``data``: ICDAR2015 up to photo 800, ICDAR2003, and both
    MLT sets' where there are ``labels`` for them."""
    crops = word_crops(data / "icdar2015_words", 1, LAST_TRAIN_PHOTO)
    crops += photo_crops(data / "icdar2015_train", 1, LAST_TRAIN_PHOTO)
    crops += photo_crops(data / "icdar2003_train", 0, 10**9, None, None)
    if labels is not None:
        for name in ("mlt_english_masks", "mlt_french_masks"):
            if (data / name).is_dir():
                crops += labelled_crops(data / name, labels)
    return crops


def listed_crops(folder: Path, role: str = "train") -> list[Crop]:
    """Word crops that are split by name, see :mod:`kept_aside`.

    Args:
        folder: holds ``words/`` and ``words.tsv``: file, source, corners "x1,y1,..,x4,y4", text.
        role: "train" or "validate".

    Raises:
        SourceError: the table is missing.
    """
    table = folder / "words.tsv"
    if not table.exists():
        raise SourceError(f"{table}: not found; give the folder of the unpacked word crops")
    with table.open(encoding="utf-8", newline="") as f:
        rows = [row for row in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    rows = [row for row in rows if row[0] != "file"]
    wanted = names_for(role, [Path(row[0]).stem for row in rows], folder)
    crops = []
    for row in rows:
        file, _, corners, text = row
        if Path(file).stem not in wanted or not _readable(text):
            continue
        image = cv2.imread(str(folder / "words" / file), cv2.IMREAD_COLOR)
        if image is not None:
            quad = np.array([float(n) for n in corners.split(",")], np.float32).reshape(4, 2)
            crops.append(Crop(image, quad, text, sharp=quad_height(quad) > 40))
    return crops


def plate_crops(folder: Path, role: str = "train") -> list[Crop]:
    """`listed_crops` of whole number plates, their quads drawn in to the number's band."""
    return [Crop(c.image, number_band(c.quad), c.text, c.sharp) for c in listed_crops(folder, role)]


def page_crops(folder: Path, role: str = "train") -> list[Crop]:
    """Words of pages ``images/*`` with ``gt/gt_<stem>.txt``, at the pages' own size.

    Args:
        folder: the data set; its name says which pages are kept aside, see :mod:`kept_aside`.
        role: "train" or "validate".

    Raises:
        SourceError: no images, or ground truth in another form.
    """
    paths = datasets.image_files(folder / "images")
    wanted = names_for(role, [path.stem for path in paths], folder)
    crops = []
    for path in paths:
        gt = folder / "gt" / f"gt_{path.stem}.txt"
        if path.stem not in wanted or not gt.is_file():
            continue
        image = datasets.read_image(path)
        for word in datasets.parse_gt(gt.read_text(encoding="utf-8-sig"), str(gt)):
            if not word.legible or not _readable(word.text):
                continue
            crop = surroundings(image, word.quad)
            if crop is not None:
                crops.append(Crop(crop.image, crop.quad, word.text, sharp=False))
    return crops


@dataclass(frozen=True, slots=True)
class CropSet:
    """Real words of one kind.

    Attributes:
        name: of the kind.
        crops: the words.
        share: how often one of them is drawn, among all sets' shares.
    """

    name: str
    crops: list[Crop]
    share: float


_STREET = ("icdar2015_words", "icdar2015_train", "icdar2003_train")

# Name, folder, how its words are kept, share among real words; street photographs have the rest.
_WORLDS = (
    ("iiit5k", "iiit5k_train_words", listed_crops, 0.08),
    ("plates", "plates_us_words", plate_crops, 0.15),
    ("web", "born_digital_train", page_crops, 0.06),
    ("forms", "forms_train", page_crops, 0.07),
    ("pages", "pdf_pages_train", page_crops, 0.05),
    ("receipts", "receipts_words", page_crops, 0.12),
    ("packages", "packages_words", page_crops, 0.03),
)


def train_sets(data: Path, labels: Path | None = None) -> list[CropSet]:
    """All real training words below ``data``, by kind; kinds whose folder is missing are left out.

    Street photographs are left out where none of their sets is there, as for weights with free
    terms; of those sets all are needed otherwise.

    Args:
        data: folder of the unpacked data sets.
        labels: transcriptions of MLT words.

    Raises:
        SourceError: there is nothing to learn from, or a part of the street photographs only.
    """
    sets = world_sets(data)
    if not any((data / name).is_dir() for name in _STREET):
        if not sets:
            raise SourceError(f"{data}: no data set in it; unpack one, or leave --data out")
        return sets
    street = CropSet("street", train_crops(data, labels), 1.0 - sum(s.share for s in sets))
    return [street, *sets]


def world_sets(data: Path) -> list[CropSet]:
    """Training words of all kinds but street photographs, of the folders that are there."""
    return [
        CropSet(name, load(data / folder), share)
        for name, folder, load, share in _WORLDS
        if (data / folder).is_dir()
    ]


def validation_sets(data: Path) -> dict[str, list[Crop]]:
    """Words of the same kinds that are kept aside for validation, about 200 of a kind."""
    found = {}
    for name, folder, load, _ in _WORLDS:
        if (data / folder).is_dir():
            crops = load(data / folder, "validate")
            found[name] = crops[:: max(1, len(crops) // 200)]
    return found


def train_empties(data: Path) -> list[Crop]:
    """Places without text in the street photographs below ``data``; none without those."""
    if not (data / "icdar2015_train").is_dir():
        return []
    return empty_crops(data / "icdar2015_train", 1, LAST_TRAIN_PHOTO)
