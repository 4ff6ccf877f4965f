"""A tiny bundle of the family lines that truly reads pixels.

A stub line is a rectangle (`draw_line`) whose red channel is full: what the stub detector's map
shows. Each character is a cell as wide as `CELL` of the line's height; its middle has a colour in
green and blue that codes the character, its sides have none, which the stub recogniser takes for
blank. The recogniser looks at the middle row of its strip, every 8 pixels, so a strip that is
shifted, squeezed or upside down gives other text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from textspot_ray.spotting.bundle import BundleSpec, LinesRules, describe_files, write_spec

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789É."
CELL = 0.8
RULES = LinesRules(
    long_scale=1.0,  # its letters are as wide as they are high
    shortest_side=320,
    longest_side=1280,
    unclip_ratio=0.2,
    word_height=0.9,
    tile_factor=1.0,
)
_GREENS, _BLUES = 6, 7
_SHARP = 400.0


def draw_line(
    image: NDArray[np.uint8], text: str, x: int, y: int, height: int
) -> tuple[int, int, int, int]:
    """Draw a line of text from a corner; its box (ends exclusive)."""
    cell = CELL * height
    box = (x, y, x + round(cell * len(text)), y + height)
    image[box[1] : box[3], box[0] : box[2]] = (0, 0, 255)
    for i, character in enumerate(text):
        left, right = round(x + (i + 0.2) * cell), round(x + (i + 0.8) * cell)
        image[y : box[3], left:right] = (*_colour(character)[::-1], 255)
    return box


def dark(width: int = 640, height: int = 480, seed: int = 0) -> NDArray[np.uint8]:
    """A dark picture without text."""
    return np.random.default_rng(seed).integers(0, 30, (height, width, 3), dtype=np.uint8)


def stub_detector() -> ov.Model:
    """Maps a picture to where its red channel is full."""
    picture = ops.parameter([-1, 3, -1, -1], np.float32, name="x")
    picture.output(0).set_names({"x"})
    last = ops.gather(picture, ops.constant(np.array([2])), ops.constant(np.int64(1)))
    red = ops.sigmoid(ops.multiply(ops.subtract(last, _const(0.4)), _const(20)))
    red.output(0).set_names({"map"})
    return ov.Model([ops.result(red)], [picture], "detector")


def stub_recognizer(softmax: bool = True) -> ov.Model:
    """Reads the colours of a strip's middle row."""
    strip = ops.parameter([-1, 3, 48, -1], np.float32, name="x")
    strip.output(0).set_names({"x"})
    middle, left, right = (_every_eighth(strip, start) for start in (4, 2, 6))
    colours = ops.gather(middle, ops.constant(np.array([0, 1])), _axis(1))
    # padding is not red, and between two colours there is no character: both are blank
    red = ops.gather(middle, ops.constant(np.array([2])), _axis(1))
    pale = ops.relu(ops.subtract(_const(0.7), red))
    change = ops.reduce_sum(ops.abs(ops.subtract(left, right)), _axis(1), True)
    nothing = ops.add(pale, ops.relu(ops.subtract(change, _const(0.15))))
    steps = ops.transpose(ops.concat([colours, nothing], 1), ops.constant(np.array([0, 2, 1])))
    codes = [(0, 0), *(_colour(c) for c in CHARACTERS), _colour(" ")]
    wanted = np.array([(blue, green) for green, blue in codes], np.float32) / 127.5 - 1
    weights = np.zeros((3, len(codes)), np.float32)
    weights[:2] = 2 * _SHARP * wanted.T
    weights[2, 0] = 1e5
    product = ops.matmul(steps, ops.constant(weights), False, False)
    scores = ops.add(product, ops.constant((-_SHARP * (wanted**2).sum(axis=1)).astype(np.float32)))
    last = ops.softmax(scores, 2) if softmax else scores
    last.output(0).set_names({"classes"})
    return ov.Model([ops.result(last)], [strip], "recognizer")


def write_lines_bundle(
    folder: Path, rules: LinesRules = RULES, alphabet: str = "all", zoom_below: float = 0.0
) -> Path:
    """Write the bundle; its folder."""
    folder.mkdir(parents=True)
    ov.save_model(stub_detector(), str(folder / "detector.xml"), compress_to_fp16=False)
    ov.save_model(stub_recognizer(), str(folder / "recognizer.xml"), compress_to_fp16=False)
    (folder / "characters.txt").write_text("\n".join(CHARACTERS) + "\n", encoding="utf-8")
    names: dict[str, tuple[str, ...]] = {
        "detector": ("detector.xml", "detector.bin"),
        "recognizer": ("recognizer.xml", "recognizer.bin"),
        "characters": ("characters.txt",),
    }
    write_spec(
        folder,
        BundleSpec(
            name="stub-lines",
            version="1",
            alphabet=alphabet,
            precisions={"f32": describe_files(folder, names)},
            family="lines",
            lines=rules,
            zoom_below=zoom_below,
        ),
    )
    return folder


def _colour(character: str) -> tuple[int, int]:
    """Green and blue of a character."""
    code = (CHARACTERS + " ").index(character)
    green, blue = divmod(code, _BLUES)
    assert green < _GREENS
    return 75 + 36 * green, round(255 / (_BLUES - 1) * blue)


def _every_eighth(strip: ov.Node, start: int) -> ov.Node:
    """1 x 3 x T: the middle row's pixels from ``start`` in steps of 8."""
    row = ops.strided_slice(
        strip,
        ops.constant(np.array([0, 0, 24, start])),
        ops.constant(np.array([0, 0, 25, 0])),
        ops.constant(np.array([1, 1, 1, 8])),
        [1, 1, 0, 0],
        [1, 1, 0, 1],
    )
    return ops.squeeze(row, ops.constant(np.array([2])))


def _axis(number: int) -> ov.Node:
    return ops.constant(np.int64(number))


def _const(value: float) -> ov.Node:
    return ops.constant(np.float32(value))
