"""Makes 12-megapixel photos out of small ones, most without text, and large pages of small text.

There are no free large photos whose words are known. A made-up one is a background photo,
mirrored to fill the picture, with the grain of a sensor; some carry street photos, receipts or
pages at a size at which their words are small. Equal arguments give equal files.

    python -m jobs.bench.large_photos OUT --backgrounds DIR --street DIR --pages DIR --receipts DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Quad = NDArray[np.float64]  # 4 x 2, px

WIDTH, HEIGHT = 4000, 3000
STREET_GT = (1280, 720)  # px that ICDAR2015's ground truth belongs to, whatever the file's size
GRAIN = 3.0  # standard deviation of a sensor's noise, grey levels
QUALITY = 92
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A photo or page with its words, or a picture made of such.

    Attributes:
        image: H x W x 3, BGR.
        quads: Of the words, px.
        texts: Of the words; ``###`` where illegible.
    """

    image: Pixels
    quads: list[Quad]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Files to make photos of; each folder of words holds ``images`` and ``gt``.

    Attributes:
        backgrounds: Photos without text.
        street: Photos with words.
        pages: Printed pages.
        receipts: Scanned ones.
    """

    backgrounds: Sequence[Path]
    street: Sequence[Path]
    pages: Sequence[Path]
    receipts: Sequence[Path]


def textless(sources: Sources, rng: np.random.Generator) -> Labelled:
    """A background, mirrored two to four times along each side."""
    photo = _read(sources.backgrounds[rng.integers(len(sources.backgrounds))])
    times = int(rng.integers(2, 5))
    cell = cv2.resize(photo, (-(-WIDTH // times), -(-HEIGHT // times)), interpolation=CUBIC)
    row = np.concatenate([cell if i % 2 == 0 else cell[:, ::-1] for i in range(times)], 1)
    whole = np.concatenate([row if i % 2 == 0 else row[::-1] for i in range(times)], 0)
    return Labelled(_grainy(whole[:HEIGHT, :WIDTH], rng), [], [])


def street(sources: Sources, rng: np.random.Generator) -> Labelled:
    """A street photo that fills the picture, or one or two that fill a part of it."""
    ground = textless(sources, rng)
    scale = float(rng.choice([WIDTH / STREET_GT[0], 1.8, 1.0]))
    for _ in range(1 if scale > 1 else 2):
        photo = _labelled(sources.street[rng.integers(len(sources.street))], STREET_GT)
        ground = _pasted(ground, photo, scale, rng)
    return ground


def receipt(sources: Sources, rng: np.random.Generator) -> Labelled:
    """A receipt at its own size, photographed from further away than one should."""
    one = _labelled(sources.receipts[rng.integers(len(sources.receipts))])
    return _pasted(textless(sources, rng), one, float(rng.uniform(0.8, 1.4)), rng)


def page(sources: Sources, rng: np.random.Generator) -> Labelled:
    """Printed pages beside and below each other, as on a newspaper's sheet."""
    across, down = (2, 2) if rng.random() < 0.5 else (4, 2)
    cell_w, cell_h = 1000, 1300
    sheet = Labelled(np.full((down * cell_h, across * cell_w, 3), 255, np.uint8), [], [])
    for y in range(down):
        for x in range(across):
            one = _labelled(sources.pages[rng.integers(len(sources.pages))])
            scale = min(1.0, cell_w / one.image.shape[1], cell_h / one.image.shape[0])
            _paste_at(sheet, one, scale, x * cell_w, y * cell_h)
    return sheet


KINDS: dict[str, Callable[[Sources, np.random.Generator], Labelled]] = {
    "textless": textless,
    "street": street,
    "receipt": receipt,
    "page": page,
}
CUBIC = cv2.INTER_CUBIC


def write_photos(
    folder: Path, sources: Sources, kinds: Sequence[str], seed: int
) -> list[tuple[str, int]]:
    """Write one photo of each named kind, in order, with its ground truth.

    Args:
        folder: Gets ``images`` and ``gt`` in ICDAR2015's form, coordinates those of the images.
        sources: Files to take from.
        kinds: Of `KINDS`; photo ``i`` is the same whatever the others are.
        seed: Of the choices.

    Returns:
        Name and number of legible words of each.
    """
    for name in ("images", "gt"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    made = []
    for number, kind in enumerate(kinds):
        photo = KINDS[kind](sources, np.random.default_rng((seed, number)))
        name = f"{kind}_{number:03d}"
        done, data = cv2.imencode(".jpg", photo.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert done
        (folder / "images" / f"{name}.jpg").write_bytes(data.tobytes())
        lines = [
            ",".join([*(str(round(float(v))) for v in quad.ravel()), text])
            for quad, text in zip(photo.quads, photo.texts, strict=True)
        ]
        (folder / "gt" / f"gt_{name}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
        made.append((name, sum(text != "###" for text in photo.texts)))
    return made


def mixed_kinds(count: int, text_share: float) -> list[str]:
    """Kinds of so many photos; of those with text each fourth is a receipt, the others street."""
    with_text, turn = round(count * text_share), ("street", "street", "street", "receipt")
    every = count / with_text if with_text else 0
    places = {int(i * every) for i in range(with_text)}
    kinds, used = [], 0
    for number in range(count):
        kinds.append(turn[used % len(turn)] if number in places else "textless")
        used += number in places
    return kinds


def _pasted(ground: Labelled, photo: Labelled, scale: float, rng: np.random.Generator) -> Labelled:
    """With a photo at a random place, cut where it does not fit."""
    spare_x = max(0, ground.image.shape[1] - round(photo.image.shape[1] * scale))
    spare_y = max(0, ground.image.shape[0] - round(photo.image.shape[0] * scale))
    x, y = int(rng.integers(spare_x + 1)), int(rng.integers(spare_y + 1))
    _paste_at(ground, photo, scale, x, y)
    return ground


def _paste_at(ground: Labelled, photo: Labelled, scale: float, x: int, y: int) -> None:
    """Cover a part of the ground with a photo; covered words go, words of its own come."""
    rows, columns = photo.image.shape[:2]
    how = cv2.INTER_AREA if scale < 1 else CUBIC
    size = (round(columns * scale), round(rows * scale))
    part = photo.image if scale == 1 else cv2.resize(photo.image, size, interpolation=how)
    part = part[: ground.image.shape[0] - y, : ground.image.shape[1] - x]
    high, wide = part.shape[:2]
    kept = [
        i for i, quad in enumerate(ground.quads) if not _meets(quad, (x, y, x + wide, y + high))
    ]
    ground.quads[:] = [ground.quads[i] for i in kept]
    ground.texts[:] = [ground.texts[i] for i in kept]
    ground.image[y : y + high, x : x + wide] = part
    for quad, text in zip(photo.quads, photo.texts, strict=True):
        moved = quad * scale + (x, y)
        if moved[:, 0].min() < x + wide and moved[:, 1].min() < y + high:
            ground.quads.append(moved)
            ground.texts.append(text)


def _meets(quad: Quad, box: tuple[int, int, int, int]) -> bool:
    low, high = quad.min(axis=0), quad.max(axis=0)
    return bool(low[0] < box[2] and high[0] > box[0] and low[1] < box[3] and high[1] > box[1])


def _labelled(path: Path, size: tuple[int, int] | None = None) -> Labelled:
    """A photo, resized to what its ground truth belongs to, and its words."""
    image = _read(path)
    if size is not None:
        image = np.asarray(cv2.resize(image, size, interpolation=CUBIC), np.uint8)
    quads, texts = [], []
    labels = path.parent.parent / "gt" / f"gt_{path.stem}.txt"
    for line in labels.read_text(encoding="utf-8-sig").splitlines():
        fields = line.split(",", 8)
        if len(fields) == 9:
            quads.append(np.array(fields[:8], np.float64).reshape(4, 2))
            texts.append(fields[8].strip())
    return Labelled(image, quads, texts)


def _grainy(image: Pixels, rng: np.random.Generator) -> Pixels:
    noise = rng.normal(0.0, GRAIN, image.shape[:2]).astype(np.float32)
    return np.clip(image.astype(np.float32) + noise[..., None] + 0.5, 0, 255).astype(np.uint8)


def _read(path: Path) -> Pixels:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} cannot be read as an image")
    return np.asarray(image, np.uint8)


def _files(folder: Path | None, least: int = 0, below: int | None = None) -> list[Path]:
    """Images of a folder, or of ``images`` in it, sorted; by number where bounds are given."""
    if folder is None:
        return []
    inner = folder / "images" if (folder / "images").is_dir() else folder
    found = sorted(p for p in inner.iterdir() if p.suffix.lower() in SUFFIXES)
    if below is None:
        return found
    return [p for p in found if least <= int(p.stem.rpartition("_")[2]) < below]


def main(argv: Sequence[str] | None = None) -> int:
    """Write photos and say how many words they have."""
    parser = argparse.ArgumentParser(prog="large_photos", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("out", type=Path)
    for name in ("backgrounds", "street", "pages", "receipts"):
        add(f"--{name}", type=Path, required=True, metavar="DIR")
    add("--count", type=int, default=50)
    add("--text-share", type=float, default=0.2)
    add("--kind", action="append", choices=tuple(KINDS), help="only these, in turn")
    add("--street-numbers", type=int, nargs=2, metavar="N", help="photos img_A to img_B-1 only")
    add("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    bounds = args.street_numbers or (0, None)
    sources = Sources(
        _files(args.backgrounds),
        _files(args.street, *bounds),
        _files(args.pages),
        _files(args.receipts),
    )
    kinds = mixed_kinds(args.count, args.text_share)
    if args.kind:
        kinds = [args.kind[i % len(args.kind)] for i in range(args.count)]
    made = write_photos(args.out, sources, kinds, args.seed)
    words = sum(count for _, count in made)
    print(f"{len(made)} photos, {sum(n > 0 for _, n in made)} with text, {words} words: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
