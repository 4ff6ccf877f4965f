"""Leak check: nothing of the photos kept for measuring may be among the training inputs.

    python -m jobs.training leaks --data DIR --held-out DIR [DIR ...] [--labels TSV]

A held-out folder is a set that is measured on (street photos, receipts, plates), or a data set of
which some pages are kept aside for measuring (see :mod:`kept_aside`): those of its pages.

Photos are compared by the hash of the file and by a perceptual hash of the picture; words, whether
they come as crops or lie in photos, by a perceptual hash of the word laid upright. So a held-out
photo is seen when it was copied, scaled or compressed again, and a piece of one by its words.

What it cannot see: a mirrored or strongly turned photo; a photo cut to a part that holds none of
its transcribed words; words without contrast; and about one in fifteen single crops of a held-out
word (measured: of 417 full-resolution crops of photos 801-900, 94 % are told from the photos' own
words; of 3,542 crops of other photos one is taken for another's, an EXIT sign of the same make), so
a leak of one or two crops may pass, and a word that is named should be looked at.
Rendered words are made from chance and not compared. Only folders that are given are looked at.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jobs.training.data import datasets
from jobs.training.data.datasets import ByteArray, FloatArray
from jobs.training.data.kept_aside import SPLITS, Split, names_for
from jobs.training.data.located_labels import read_labels
from jobs.training.detector.sources import load_world
from jobs.training.detector.train import mixture
from jobs.training.reader import crops as reader_crops
from jobs.training.reader.cutting import cut
from textspot_ray.errors import SourceError

PHOTO_BITS = 24  # of 256; hashes of photos this close count as the same photo
WORD_BITS = 56  # the same of words: crops are cut by hand and at another resolution
WORD_CORRELATION = 0.8  # and their pixels agree: letters alike in shape are not alike in light
_MASKED = ("mlt_english_masks", "mlt_french_masks")
_NUMBERED = re.compile(r"^img_\d+$")
LEAST_CONTRAST = 4.0  # grey levels of spread; hashes of flatter words mean nothing


@dataclass(frozen=True, slots=True)
class Leak:
    """A training input that is (nearly) one of those kept for measuring."""

    training: str
    held_out: str
    distance_bits: int  # 0 for equal files


@dataclass(frozen=True, slots=True)
class NamedWord:
    """A word in some image.

    Attributes:
        name: What to call it in a message.
        image: [H, W, 3] BGR.
        quad: [4, 2] its corners, clockwise from the text's top left.
    """

    name: str
    image: ByteArray
    quad: FloatArray


def perceptual_hash(image: ByteArray) -> int:
    """256-bit difference hash (dHash, Krawetz 2013) of an image.

    Survives scaling, re-compression and small colour changes; unrelated photos differ in
    about half of the bits.
    """
    return int.from_bytes(_hash_bits(image).tobytes(), "big")


def _hash_bits(image: ByteArray) -> ByteArray:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    small = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits((small[:, 1:] > small[:, :-1]).ravel())


def photo_leaks(
    training: Iterable[Path], held_out: Sequence[Path], max_distance_bits: int = PHOTO_BITS
) -> list[Leak]:
    """Compare training photos with held-out ones, by file hash and by perceptual hash.

    Args:
        training: Image files used for training.
        held_out: Image files that must not be among them.
        max_distance_bits: Perceptual hashes this close (of 256 bits) count as the same photo.

    Returns:
        The pairs that are too close, empty if all is well.
    """
    exact = {datasets.file_sha256(path): path for path in held_out}
    hashes = [_hash_bits(datasets.read_image(path)) for path in held_out]
    packed = np.array(hashes, np.uint8).reshape(-1, 32)
    leaks = []
    for path in training:
        same = exact.get(datasets.file_sha256(path))
        if same is not None:
            leaks.append(Leak(str(path), str(same), 0))
            continue
        if not len(packed):
            continue
        bits = _hash_bits(datasets.read_image(path))
        distance = np.unpackbits(packed ^ bits, axis=1).sum(1)
        nearest = int(distance.argmin())
        if distance[nearest] <= max_distance_bits:
            leaks.append(Leak(str(path), str(held_out[nearest]), int(distance[nearest])))
    return leaks


def word_leaks(
    training: Iterable[NamedWord],
    held_out: Iterable[NamedWord],
    max_distance_bits: int = WORD_BITS,
) -> list[Leak]:
    """Compare training words with the words of held-out photos, each laid upright.

    Args:
        training: Words used for training.
        held_out: Words that must not be among them.
        max_distance_bits: Hashes this close (of 256 bits) count as the same word.

    Returns:
        The pairs that are too close, empty if all is well.
    """
    kept = [(word.name, sign) for word in held_out if (sign := _Signature.of(word)) is not None]
    if not kept:
        return []
    packed = np.stack([sign.bits for _, sign in kept])
    pixels = np.stack([sign.pixels for _, sign in kept])
    leaks = []
    for word in training:
        own = _Signature.of(word)
        if own is None:
            continue
        distance = np.unpackbits(packed ^ own.bits, axis=1).sum(1).astype(np.int64)
        distance[pixels @ own.pixels < WORD_CORRELATION] = 256
        nearest = int(distance.argmin())
        if distance[nearest] <= max_distance_bits:
            leaks.append(Leak(word.name, kept[nearest][0], int(distance[nearest])))
    return leaks


@dataclass(frozen=True, slots=True)
class _Signature:
    """A word laid upright: its hash, and its grey pixels (mean 0, length 1) in 48 x 12."""

    bits: ByteArray
    pixels: FloatArray

    @classmethod
    def of(cls, word: NamedWord) -> _Signature | None:
        """None where the word has too little contrast to be told from others."""
        patch, _ = cut(word.image, word.quad)
        grey = np.asarray(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY), np.uint8)
        if float(grey.std()) < LEAST_CONTRAST:
            return None
        small = cv2.resize(grey, (48, 12), interpolation=cv2.INTER_AREA).astype(np.float32)
        small = small.ravel() - small.mean()
        length = max(float(np.linalg.norm(small)), 1e-3)
        return cls(_hash_bits(grey), np.asarray(small / length, np.float32))


def training_photos(data: Path) -> Iterator[Path]:
    """Pictures below ``data`` that detector, refiner, reader or rendered scenes learn from."""
    if (data / "icdar2015_train").is_dir():
        for photo in datasets.icdar2015_training(data / "icdar2015_train"):
            yield photo.path
    for folder in ("icdar2003_train/images", "mlt_english_masks/images", "backgrounds"):
        if (data / folder).is_dir():
            yield from datasets.image_files(data / folder)
    for name in mixture(0).worlds:
        if (data / name).is_dir():
            for photo in load_world(data / name):
                yield photo.path


def training_words(data: Path, labels: Path | None) -> Iterator[NamedWord]:
    """Words below ``data`` that the reader learns from, MLT's where there are ``labels``."""
    last = reader_crops.LAST_TRAIN_PHOTO
    for name in ("icdar2015_words", "icdar2015_train", "icdar2003_train", *_MASKED):
        folder = data / name
        if not folder.is_dir():
            continue
        if name == "icdar2015_words":
            crops = reader_crops.word_crops(folder, 1, last)
        elif name == "icdar2015_train":
            crops = reader_crops.photo_crops(folder, 1, last)
        elif name == "icdar2003_train":
            crops = reader_crops.photo_crops(folder, 0, 10**9, None, None)
        else:
            crops = reader_crops.labelled_crops(folder, labels) if labels else []
        for crop in crops:
            yield NamedWord(f"{name}: {crop.text}", crop.image, crop.quad)
    for kind in reader_crops.world_sets(data):
        for crop in kind.crops:
            yield NamedWord(f"{kind.name}: {crop.text}", crop.image, crop.quad)


def held_out_photos(folder: Path) -> list[Path]:
    """Pictures of a set kept for measuring, or a data set's that are kept aside for it."""
    paths = datasets.image_files(folder / "images")
    if not SPLITS.get(folder.name, Split()).measure:
        return paths
    wanted = names_for("measure", [path.stem for path in paths], folder)
    return [path for path in paths if path.stem in wanted]


def held_out_words(folder: Path) -> Iterator[NamedWord]:
    """Words of a set kept for measuring: ICDAR2015's, the boxes of ``plates.tsv``; of documents
    none, whose ground truth is lines or whose words are like any other's."""
    if (folder / "plates.tsv").is_file():
        for row in (folder / "plates.tsv").read_text(encoding="utf-8").splitlines():
            file, *box, text = row.split("\t")
            if file == "file" or not (folder / "images" / file).is_file():
                continue
            x, y, width, height = (float(v) for v in box)
            quad = datasets.rect_corners((x + width / 2, y + height / 2), (width, height), 0.0)
            image = datasets.read_image(folder / "images" / file)
            yield NamedWord(f"{file}: {text}", image, datasets.number_band(quad))
        return
    if not all(_NUMBERED.search(path.stem) for path in datasets.image_files(folder / "images")):
        return
    for photo in datasets.icdar_photos(folder, gt_size=datasets.ICDAR2015_GT_SIZE):
        image = photo.pixels()
        for word in photo.words:
            if word.legible:
                x, y = word.quad[0]
                yield NamedWord(f"{photo.path}: {word.text} at {x:.0f},{y:.0f}", image, word.quad)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 1 when something leaked.

    Raises:
        SourceError: A folder holds nothing to compare, or lacks photos that the labels name.
    """
    parser = argparse.ArgumentParser(prog="leaks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the training sets")
    parser.add_argument(
        "--held-out", type=Path, required=True, nargs="+", help="folders: images/ and gt/"
    )
    parser.add_argument("--labels", type=Path, help="transcriptions of MLT words (.tsv)")
    args = parser.parse_args(argv)
    photos = list(training_photos(args.data))
    if not photos:
        raise SourceError(f"{args.data}: none of the training sets; unpack them there")
    if args.labels:
        there = {path.name for path in photos}
        lost = {label.file for label in read_labels(args.labels)} - there
        if lost:
            raise SourceError(
                f"{args.data}: {len(lost)} photos of {args.labels} are missing, {min(lost)} first"
            )
    words = list(training_words(args.data, args.labels))
    kept = [path for folder in args.held_out for path in held_out_photos(folder)]
    leaks = photo_leaks(photos, kept)
    leaks += word_leaks(words, (w for folder in args.held_out for w in held_out_words(folder)))
    for leak in leaks:
        print(f"LEAK {leak.training} is {leak.held_out} ({leak.distance_bits} of 256 bits differ)")
    print(
        f"{len(photos)} pictures and {len(words)} words compared with {len(kept)} pictures, "
        f"{len(leaks)} leaks"
    )
    return 1 if leaks else 0


if __name__ == "__main__":
    raise SystemExit(main())
