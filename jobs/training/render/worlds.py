"""All that is rendered, in one mixture: street scenes, documents, number plates.

python -m jobs.training render OUT [--world plate] [--backgrounds DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from jobs.training.render.documents import render_document
from jobs.training.render.fonts import FontLibrary, find_fonts
from jobs.training.render.plates import render_plate_scene
from jobs.training.render.scenes import Scene, gt_lines, render_scene
from jobs.training.render.surfaces import BackgroundLibrary, load_backgrounds
from jobs.training.render.words import Vocabulary, load_vocabulary


class World(Enum):
    """Sorts of rendered pictures."""

    STREET = "signs in photographs"
    DOCUMENT = "receipts, letters, forms, screens, labels"
    PLATE = "number plates on cars"


SHARES: Mapping[World, float] = {World.STREET: 0.5, World.DOCUMENT: 0.33, World.PLATE: 0.17}
# Street scenes without distortion: large, sharp words are rare in street photographs and easy for
# people, who expect them to be found.
CLEAN_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Props:
    """What pictures are made of: faces, words, photographs to draw on (or made-up surfaces)."""

    fonts: FontLibrary
    words: Vocabulary
    backgrounds: BackgroundLibrary | None = None


def draw_world(rng: np.random.Generator, shares: Mapping[World, float] = SHARES) -> World:
    """One of the worlds, by shares that need not add up to 1."""
    weights = np.array([shares.get(world, 0.0) for world in World])
    return list(World)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def render_picture(rng: np.random.Generator, props: Props, world: World | None = None) -> Scene:
    """Render a whole picture of any difficulty, as a detector learns from.

    Args:
        rng: Where all chance comes from.
        props: What it is made of.
        world: Its sort; drawn by `SHARES` when None.
    """
    world = draw_world(rng) if world is None else world
    difficulty = float(rng.random())
    parts = (props.fonts, props.words, props.backgrounds)
    if world is World.DOCUMENT:
        return render_document(rng, difficulty, *parts)
    if world is World.PLATE:
        return render_plate_scene(rng, 800, 520, difficulty, *parts, plates=int(rng.integers(1, 4)))
    return render_scene(rng, 960, 640, difficulty, *parts, clean=rng.random() < CLEAN_SHARE)


def write_pictures(out: Path, count: int, seed: int, props: Props, world: World | None) -> int:
    """Write img_1.jpg .. img_N.jpg to out/images and their words to out/gt.

    Returns:
        How many words were written.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "gt").mkdir(parents=True, exist_ok=True)
    total = 0
    for number in range(1, count + 1):
        scene = render_picture(np.random.default_rng([seed, number]), props, world)
        _, data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (out / "images" / f"img_{number}.jpg").write_bytes(data.tobytes())
        gt = out / "gt" / f"gt_img_{number}.txt"
        gt.write_text(gt_lines(scene.words), encoding="utf-8", newline="")
        total += len(scene.words)
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="worlds", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", choices=[world.name.lower() for world in World])
    parser.add_argument("--backgrounds", type=Path, help="folder of textless photographs")
    args = parser.parse_args(argv)
    library = load_backgrounds(args.backgrounds) if args.backgrounds else None
    if library is not None:  # picture n then depends on the seed and n alone
        library = BackgroundLibrary(library.photos, pool_size=1, keep_uses=1)
    world = World[args.world.upper()] if args.world else None
    props = Props(find_fonts(), load_vocabulary(), library)
    total = write_pictures(args.out, args.count, args.seed, props, world)
    print(f"{args.count} pictures with {total} words in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
