"""Rendered pictures of words and the words' exact places, for training the embedded bundle.

Places are quads in continuous pixel coordinates: the pixel in column i covers i .. i + 1. A quad
runs clockwise from the text's own top left, so its first edge points in reading direction
whatever the angle.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.training.reader.word_patches import WordPatch, render_word
from jobs.training.render import clutter, photometry, surfaces
from jobs.training.render.fonts import FontLibrary, find_fonts
from jobs.training.render.homography import (
    Matrix,
    Pose,
    Quad,
    box_corners,
    draw_pose,
    project,
    shift,
    side_lengths,
)
from jobs.training.render.placing import SceneWord, hang_sign
from jobs.training.render.signs import Sign, SignKind, block_boxes, compose_sign
from jobs.training.render.surfaces import BackgroundLibrary, load_backgrounds
from jobs.training.render.words import Vocabulary, load_vocabulary

__all__ = ["Scene", "SceneWord", "WordPatch", "render_scene", "render_word", "write_scenes"]

Pixels = NDArray[np.uint8]

# A phone camera's focal length over the picture's width.
_FOCAL = 0.85
# Cells of the grid in which signs find free places, px.
_CELL = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """A photograph-like picture and all its words.

    Attributes:
        image: [H, W, 3] uint8, BGR.
        words: Every word drawn, legible or not; no quad leaves the picture.
    """

    image: Pixels
    words: tuple[SceneWord, ...]


def render_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    backgrounds: BackgroundLibrary | None = None,
    *,
    clean: bool = False,
    base: Scene | None = None,
) -> Scene:
    """Render a picture with signs.

    Args:
        rng: Where all chance comes from: the same state gives the same scene.
        width: Picture width, px.
        height: Picture height, px.
        difficulty: 0 is a few large, plain words; 1 is like ICDAR2015's incidental photographs.
        fonts: Faces to draw with.
        words: What to write.
        backgrounds: Real photographes to draw on; made-up surfaces only when None.
        clean: Ink at least 16 px high, high contrast, no distortion but rotations up to 5
            degrees: for measuring a reader, not for training one.
        base: A photograph of width x height with its words, to hang more signs in; its words
            stay, uncovered, before the new ones.
    """
    d = float(np.clip(difficulty, 0.0, 1.0))
    if clean:
        d = 0.0
    unit = height / 720.0
    image = _backdrop(rng, width, height, d, backgrounds) if base is None else base.image.copy()
    taken = np.zeros((height // _CELL + 1, width // _CELL + 1), np.uint8)
    camera_roll = 0.0 if clean else float(rng.normal(0, 0.05 * d))
    found: list[SceneWord] = []
    for word in base.words if base is not None else ():
        _occupy(taken, word.quad)
    wanted = int(np.clip(rng.lognormal(np.log(6 + 9 * d), 0.45), 2, 60))
    for _ in range(12 + 3 * wanted):
        if len(found) >= wanted:
            break
        kind, cap_px = _draw_kind(rng, d, unit, clean)
        floor = 23.0 if clean else max(4.5, (18.0 - 13.0 * d) * unit)
        sign = compose_sign(rng, kind, cap_px, d, fonts, words, floor)
        if sign is None:
            continue
        placed = _find_place(rng, sign, d, (width, height), taken, camera_roll, clean)
        if placed is None:
            continue
        image, new = hang_sign(rng, image, sign, placed, d, backgrounds, clean)
        found += new
    kept = base.words if base is not None else ()
    if clean:
        return Scene(image, (*kept, *found))
    heights = sorted(side_lengths(word.quad)[1] for word in found) or [20.0]
    usual = max(10.0 * unit, heights[len(heights) // 3])
    # A photograph has been through a camera once already.
    again = d if base is None else 0.4 * d
    return Scene(photometry.photograph(rng, image, again, usual), (*kept, *found))


def _backdrop(
    rng: np.random.Generator,
    width: int,
    height: int,
    d: float,
    backgrounds: BackgroundLibrary | None,
) -> Pixels:
    if backgrounds is not None and rng.random() < 0.85:
        image = backgrounds.cut(rng, width, height, smallest_scale=0.6)
        if rng.random() < 0.5 * d:
            image = clutter.add_structures(rng, image, d)
        return image
    if d <= 0.02 and rng.random() < 0.5:
        return surfaces.shaded(rng, width, height, 0.3)
    return clutter.add_structures(rng, surfaces.textured(rng, width, height), d)


def _draw_kind(
    rng: np.random.Generator, d: float, unit: float, clean: bool
) -> tuple[SignKind, float]:
    """What comes next, and how high its capitals are."""
    shares = [0.30, 0.27, 0.15, 0.08, 0.20]
    kind = list(SignKind)[int(rng.choice(len(shares), p=shares))]
    low = 26.0 if clean else (26.0 - 13.0 * d) * unit
    cap = low * float(np.exp(rng.gamma(1.6, 0.45)))
    if kind is SignKind.POSTER:
        cap *= 1.5
    return kind, min(cap, 130.0 * unit)


def _find_place(
    rng: np.random.Generator,
    sign: Sign,
    d: float,
    size: tuple[int, int],
    taken: Pixels,
    camera_roll: float,
    clean: bool,
) -> Matrix | None:
    """A homography from the sign to a free place in the picture, which is then taken."""
    width, height = size
    focal = _FOCAL * width
    for _ in range(6):
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        if clean:
            pose = Pose(0.0, 0.0, float(np.radians(rng.uniform(-5, 5))), 0.0, 0.0)
        else:
            there = ((x - width / 2) / focal, (y - height / 2) / focal)
            pose = draw_pose(rng, d, *there, roll=camera_roll)
        middle = shift(-sign.width / 2, -sign.height / 2)
        matrix = shift(x, y) @ pose.matrix(focal) @ middle
        whole = np.array([0, 0, sign.width, sign.height], np.float32)
        panel = project(matrix, box_corners(whole))
        spots = [project(matrix, box_corners(b)) for at in sign.blocks for b in block_boxes(at)]
        inks = np.concatenate(spots)
        if inks.min() < 1 or (inks > np.array([width - 1, height - 1])).any():
            continue
        if _folded(panel, sign):
            continue
        spot = np.zeros_like(taken)
        _occupy(spot, panel)
        if (spot & taken).any():
            continue
        taken |= spot
        return matrix
    return None


def _occupy(taken: Pixels, quad: Quad) -> None:
    """Mark the cells that a convex quad touches."""
    cv2.fillConvexPoly(taken, np.round(quad / _CELL - 0.5).astype(np.int32), 1)


def _folded(panel: Quad, sign: Sign) -> bool:
    """Whether the plane is seen edge-on, or reaches behind the camera."""
    across, down = side_lengths(panel)
    area = float(cv2.contourArea(panel, oriented=True))
    return area < 0.15 * sign.width * sign.height or max(across, down) > 4 * max(
        sign.width, sign.height
    )


def gt_lines(words: Sequence[SceneWord]) -> str:
    """Words in ICDAR2015's form: eight whole coordinates and the text, "###" where illegible."""
    lines = []
    for word in words:
        numbers = ",".join(str(round(float(v))) for v in word.quad.reshape(-1))
        lines.append(f"{numbers},{word.text if word.legible else '###'}\r\n")
    return "".join(lines)


def write_scenes(
    out: Path,
    count: int,
    seed: int,
    size: tuple[int, int],
    difficulty: float,
    fonts: FontLibrary,
    words: Vocabulary,
    backgrounds: BackgroundLibrary | None = None,
    *,
    clean: bool = False,
) -> int:
    """Write img_1.jpg .. img_N.jpg to out/images and gt_img_1.txt .. to out/gt.

    Picture n depends on the seed and n alone, so a longer run begins with the same pictures.

    Returns:
        How many words were written.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "gt").mkdir(parents=True, exist_ok=True)
    total = 0
    if backgrounds is not None:
        backgrounds = BackgroundLibrary(backgrounds.photos, pool_size=1, keep_uses=1)
    for number in range(1, count + 1):
        rng = np.random.default_rng([seed, number])
        scene = render_scene(rng, *size, difficulty, fonts, words, backgrounds, clean=clean)
        _, data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (out / "images" / f"img_{number}.jpg").write_bytes(data.tobytes())
        gt = out / "gt" / f"gt_img_{number}.txt"
        gt.write_text(gt_lines(scene.words), encoding="utf-8", newline="")
        total += len(scene.words)
    return total


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not WxH with sides of at least 64")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: render scenes and their ground truth to a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.training.render.scenes", description="Render scenes with words."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=_parse_size, default=(1280, 720), metavar="WxH")
    parser.add_argument("--difficulty", type=float, default=0.5, help="0 (easy) to 1")
    parser.add_argument("--clean", action="store_true", help="undistorted words of >= 16 px")
    parser.add_argument("--backgrounds", type=Path, help="folder of textless photographs")
    parser.add_argument(
        "--backgrounds-gt", type=Path, help="their ICDAR2015 ground truth: words painted over"
    )
    parser.add_argument(
        "--backgrounds-gt-size", type=_parse_size, metavar="WxH", help="size it is for"
    )
    parser.add_argument(
        "--words", type=Path, help="word list; the system's dictionary if not given"
    )
    parser.add_argument("--fonts", type=Path, action="append", help="font folder (repeatable)")
    args = parser.parse_args(argv)
    backgrounds = None
    if args.backgrounds is not None:
        backgrounds = load_backgrounds(
            args.backgrounds, args.backgrounds_gt, args.backgrounds_gt_size
        )
    total = write_scenes(
        args.out,
        args.count,
        args.seed,
        args.size,
        args.difficulty,
        find_fonts(args.fonts),
        load_vocabulary(args.words),
        backgrounds,
        clean=args.clean,
    )
    print(f"{args.count} pictures with {total} words in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
