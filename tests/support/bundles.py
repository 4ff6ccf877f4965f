"""Tiny model bundles with the published contract's names and shapes that truly read pixels.

A stub word is a rectangle of ``STRIPES`` vertical colour stripes on a dark ground (`draw_word`):
blue is full and marks the word, green and red code one symbol a stripe, and the stripe after the
last letter codes the end symbol. The stub detector divides its input into a grid of cells, finds
the bright rectangle in each cell (so at most one word a cell, wholly inside it), cuts mask and
features out of the pixels with ROIAlign, and the stub decoder spells the stripes. Boxes, texts and
confidences therefore come from the image through every tensor of the contract: a wrong scale, a
wrong row, a swapped layout or a lost state gives a wrong word.

Words of n letters look the same at any scale, so that resizing and JPEG do no harm as long as a
stripe is a few pixels wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from textspot_ray.spotting.bundle import BundleSpec, describe_files, write_spec

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
STRIPES = 7  # a word has up to 6 letters; one of 7 has no end and repeats its last to the limit
GRID = (8, 10)  # rows and columns of cells
PADDED_ROWS = 100
_GREENS, _REDS = 7, 6  # 42 codes for at most 37 symbols: letters, then end
_FEATURES, _ENCODED, _SIDE = 64, 256, 28


@dataclass(frozen=True)
class Planted:
    """A word drawn into an image; the box in pixels, ends exclusive."""

    text: str
    box: tuple[int, int, int, int]


def draw_word(
    image: NDArray[np.uint8], text: str, box: tuple[int, int, int, int], alphabet: str = ALPHABET
) -> Planted:
    """Draw a stub word that fills a box (x_min, y_min, x_max, y_max; ends exclusive)."""
    assert len(text) <= STRIPES
    x0, y0, x1, y1 = box
    codes = [alphabet.index(c) for c in text] + [len(alphabet)] * (STRIPES - len(text))
    edges = np.linspace(x0, x1, STRIPES + 1).round().astype(int)
    for code, left, right in zip(codes, edges, edges[1:], strict=False):
        image[y0:y1, left:right] = (255, *_colour(code))
    return Planted(text, box)


def plant_words(
    texts: Sequence[str], width: int = 1280, height: int = 768, seed: int = 0
) -> tuple[NDArray[np.uint8], list[Planted]]:
    """A dark image with one word in each of some cells, in row order of the cells."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    cells = np.sort(rng.choice(GRID[0] * GRID[1], size=len(texts), replace=False))
    cell_h, cell_w = height / GRID[0], width / GRID[1]
    planted = []
    for text, cell in zip(texts, cells, strict=True):
        row, column = divmod(int(cell), GRID[1])
        left, top = column * cell_w, row * cell_h
        box = (
            int(left + cell_w * rng.uniform(0.04, 0.08)) + 1,
            int(top + cell_h * rng.uniform(0.1, 0.3)) + 1,
            int(left + cell_w * rng.uniform(0.9, 0.96)) - 1,
            int(top + cell_h * rng.uniform(0.6, 0.9)) - 1,
        )
        planted.append(draw_word(image, text, box))
    return image, planted


def encode_image(image: NDArray[np.uint8], suffix: str = ".jpg") -> bytes:
    """The image as a file's bytes."""
    done, data = cv2.imencode(suffix, image)
    assert done
    return bytes(data.tobytes())


def make_stub_bundle(
    folder: Path,
    *,
    signature: str = "image",
    rows: int | str = PADDED_ROWS,
    alphabet: str = ALPHABET,
    symbol_shape: tuple[int, ...] = (1,),
    symbol_type: str = "f32",
    label_type: str = "i32",
    suffix: str = ".0",
    attention: bool = False,
    height: int = 768,
    width: int = 1280,
    name: str = "stub",
    **spec: Any,
) -> Path:
    """Write a stub bundle into a folder and return the folder.

    Args:
        folder: Made if it is not there.
        signature: ``image``, or ``im_data`` with ``im_info`` beside it.
        rows: 100 (padded with zeros) or ``dynamic``.
        alphabet: Of the decoder and of bundle.yaml.
        symbol_shape: Of ``prev_symbol``: (1,) or (1, 1).
        symbol_type: Of ``prev_symbol``: f32, i32 or i64.
        label_type: Of ``labels``: i32, i64 or f32.
        suffix: Of the output ``text_features``.
        attention: Whether the decoder has the third output [1, 784].
        height: Of the detector's input.
        width: Of the detector's input.
        name: In bundle.yaml.
        spec: More keys of `BundleSpec`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "detector": stub_detector(
            signature=signature,
            rows=rows,
            label_type=label_type,
            suffix=suffix,
            height=height,
            width=width,
        ),
        "encoder": stub_encoder(),
        "decoder": stub_decoder(len(alphabet), symbol_shape, symbol_type, attention),
    }
    for part, model in models.items():
        ov.save_model(model, folder / f"{part}.xml", compress_to_fp16=False)
    files = describe_files(folder, {part: (f"{part}.xml", f"{part}.bin") for part in models})
    settings: dict[str, Any] = {"detection_threshold": 0.5, "text_threshold": 0.5, **spec}
    write_spec(folder, BundleSpec(name, "1", alphabet, {"f32": files}, **settings))
    return folder


def stub_detector(
    *,
    signature: str = "image",
    rows: int | str = PADDED_ROWS,
    label_type: str = "i32",
    suffix: str = ".0",
    height: int = 768,
    width: int = 1280,
) -> Any:
    """The detector: finds the bright rectangle in each cell of its input."""
    assert height % GRID[0] == 0 and width % GRID[1] == 0
    image = ops.parameter([1, 3, height, width], ov.Type.f32)
    image.output(0).set_names({"image" if signature == "image" else "im_data"})
    parameters = [image]
    x_end, y_end = _f32(width), _f32(height)
    if signature == "im_data":
        info = ops.parameter([1, 3], ov.Type.f32)
        info.output(0).set_names({"im_info"})
        parameters.append(info)
        flat = ops.reshape(info, [3], special_zero=False)
        y_end, x_end = (ops.gather(flat, _i64(i), _i64(0)) for i in (0, 1))
    blue = ops.slice(image, _i64([0]), _i64([1]), _i64([1]), _i64([1]))
    bright = ops.convert(ops.greater(blue, _f32(127.5)), "f32")
    y1, y2 = _extent(bright, height, width, 0)
    x1, x2 = _extent(bright, height, width, 1)
    fill = _flat(ops.reduce_mean(_cells(bright, height, width), _i64([2, 3])))
    found = ops.convert(ops.greater(fill, _f32(0.02)), "f32")
    confidence = ops.multiply(found, ops.add(_f32(0.6), ops.multiply(fill, _f32(0.39))))
    x1, x2 = ops.minimum(x1, x_end), ops.minimum(x2, x_end)
    y1, y2 = ops.minimum(y1, y_end), ops.minimum(y2, y_end)
    columns = [ops.unsqueeze(c, _i64([1])) for c in (x1, y1, x2, y2, confidence)]
    table = ops.concat(columns, 1)
    # the best first, as the published detector has it
    ordered = ops.topk(confidence, _i64(GRID[0] * GRID[1]), 0, "max", "value", stable=True)
    table = ops.gather(table, ordered.output(1), _i64(0))
    if rows == "dynamic":
        scores = _flat(_column(table, 4))
        kept = ops.non_zero(ops.greater(scores, _f32(0.05)), "i64")
        table = ops.gather(table, ops.squeeze(kept, _i64([0])), _i64(0))
    else:
        empty = int(rows) - GRID[0] * GRID[1]
        table = ops.pad(table, _i64([0, 0]), _i64([empty, 0]), "constant", _f32(0))
    scores = _flat(_column(table, 4))
    present = ops.convert(ops.greater(scores, _f32(0.05)), "f32")
    table = ops.multiply(table, ops.unsqueeze(present, _i64([1])))
    corners = ops.slice(table, _i64([0]), _i64([4]), _i64([1]), _i64([1]))
    row_of = ops.convert(ops.multiply(scores, _f32(0)), "i32")  # all rows of batch item 0
    pixels = ops.multiply(image, _f32(1 / 255))
    planes = ops.concat([pixels, bright], 1)
    regions = ops.roi_align(
        planes, corners, row_of, _SIDE, _SIDE, 2, 1.0, "avg", aligned_mode="half_pixel"
    )
    regions = ops.multiply(regions, ops.unsqueeze(present, _i64([1, 2, 3])))
    masks = ops.squeeze(ops.slice(regions, _i64([3]), _i64([4]), _i64([1]), _i64([1])), _i64([1]))
    colours = ops.slice(regions, _i64([0]), _i64([3]), _i64([1]), _i64([1]))
    padding = _i64([0, _FEATURES - 3, 0, 0])
    features = ops.pad(colours, _i64([0, 0, 0, 0]), padding, "constant", _f32(0))
    labels = ops.convert(ops.multiply(scores, _f32(0)), label_type)
    results = [
        _result(labels, "labels"),
        _result(table, "boxes"),
        _result(masks, "masks"),
        _result(features, f"text_features{suffix}"),
    ]
    return ov.Model(results, parameters, "stub_detector")


def stub_encoder() -> Any:
    """The encoder: passes the colours on, in channels 5, 6 and 7."""
    features = ops.parameter([1, _FEATURES, _SIDE, _SIDE], ov.Type.f32)
    features.output(0).set_names({"input"})
    weights = np.zeros((_ENCODED, _FEATURES, 1, 1), np.float32)
    for channel in range(3):
        weights[5 + channel, channel] = 1
    encoded = ops.convolution(features, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([_result(encoded, "output")], [features], "stub_encoder")


def stub_decoder(
    letters: int,
    symbol_shape: tuple[int, ...] = (1,),
    symbol_type: str = "f32",
    attention: bool = False,
) -> Any:
    """The decoder: step t names the colour of stripe t.

    The hidden state holds the step's number and the last symbol it named. Fed another symbol than
    that, it names stripe 0's neighbour in the alphabet: a reader that feeds wrong symbols or loses
    the state shows. Green comes through a projection of ``encoder_outputs`` (what graph surgery
    takes out of the step), red from ``encoder_outputs`` itself.
    """
    encoded = ops.parameter([1, _SIDE * _SIDE, _ENCODED], ov.Type.f32)
    symbol = ops.parameter(list(symbol_shape), getattr(ov.Type, symbol_type))
    hidden = ops.parameter([1, 1, _ENCODED], ov.Type.f32)
    for parameter, name in ((encoded, "encoder_outputs"), (symbol, "prev_symbol")):
        parameter.output(0).set_names({name})
    hidden.output(0).set_names({"prev_hidden"})

    state = ops.reshape(hidden, [_ENCODED], special_zero=False)
    step = ops.gather(state, _i64([0]), _i64(0))  # [1]
    expected = ops.gather(state, _i64([1]), _i64(0))
    given = ops.convert(ops.reshape(symbol, [1], special_zero=False), "f32")
    upset = ops.convert(ops.greater(ops.abs(ops.subtract(given, expected)), _f32(0.25)), "f32")

    at = ops.minimum(step, _f32(STRIPES - 1))
    stripes = np.arange(STRIPES, dtype=np.float32)
    chosen = ops.convert(ops.less(ops.abs(ops.subtract(_f32(stripes), at)), _f32(0.5)), "f32")
    weights = ops.matmul(
        ops.unsqueeze(chosen, _i64([0])), ops.constant(_stripe_weights()), False, False
    )  # [1, 784]
    projection = np.zeros((_ENCODED, _ENCODED), np.float32)
    projection[6, 0] = 1
    keys = ops.matmul(encoded, ops.constant(projection), False, False)  # step-independent
    row = ops.unsqueeze(weights, _i64([0]))  # [1, 1, 784]
    greens = ops.reshape(ops.matmul(row, keys, False, False), [_ENCODED], special_zero=False)
    reds = ops.reshape(ops.matmul(row, encoded, False, False), [_ENCODED], special_zero=False)
    green, red = ops.gather(greens, _i64([0]), _i64(0)), ops.gather(reds, _i64([7]), _i64(0))

    codes = np.array([_colour(code) for code in range(letters + 1)], np.float32) / 255
    distance = ops.add(
        ops.power(ops.subtract(green, _f32(codes[:, 0])), _f32(2.0)),
        ops.power(ops.subtract(red, _f32(codes[:, 1])), _f32(2.0)),
    )
    similar = ops.multiply(distance, _f32(-1500.0))
    order = [letters, *range(letters)]  # code of symbol i + 1: end, then the alphabet
    similar = ops.gather(similar, _i64(order), _i64(0))
    shifted = ops.concat(
        [
            ops.slice(similar, _i64([1]), _i64([letters + 1]), _i64([1])),
            ops.slice(similar, _i64([0]), _i64([1]), _i64([1])),
        ],
        0,
    )
    named = ops.add(
        ops.multiply(similar, ops.subtract(_f32(1.0), upset)), ops.multiply(shifted, upset)
    )
    scores = ops.concat([_f32([-1e4]), named], 0)  # never the start symbol
    best = ops.topk(scores, _i64(1), 0, "max", "value")
    after = ops.concat(
        [
            ops.add(step, _f32(1.0)),
            ops.convert(best.output(1), "f32"),
            _f32(np.zeros(_ENCODED - 2, np.float32)),
        ],
        0,
    )
    results = [
        _result(ops.unsqueeze(scores, _i64([0])), "output"),
        _result(ops.reshape(after, [1, 1, _ENCODED], special_zero=False), "hidden"),
    ]
    if attention:
        results.append(_result(weights, "attention"))
    return ov.Model(results, [encoded, symbol, hidden], "stub_decoder")


def _colour(code: int) -> tuple[int, int]:
    """Green and red of a symbol's code."""
    green, red = divmod(code, _REDS)
    assert green < _GREENS
    return round(green * 255 / (_GREENS - 1)), round(red * 255 / (_REDS - 1))


def _stripe_weights() -> NDArray[np.float32]:
    """[stripes, 784]: the mean over the inner two columns of a stripe and the middle rows."""
    columns = _SIDE // STRIPES
    weights = np.zeros((STRIPES, _SIDE, _SIDE), np.float32)
    for stripe in range(STRIPES):
        left = stripe * columns
        weights[stripe, 10:18, left + columns // 2 - 1 : left + columns // 2 + 1] = 1
    return weights.reshape(STRIPES, -1) / 16


def _extent(bright: Any, height: int, width: int, axis: int) -> tuple[Any, Any]:
    """First and last-plus-one bright row (axis 0) or column (axis 1) of each cell, [cells]."""
    side = (height, width)[axis]
    shape = [1, 1, height, 1] if axis == 0 else [1, 1, 1, width]
    index = np.arange(side, dtype=np.float32).reshape(shape)
    dark = ops.multiply(ops.subtract(_f32(1.0), bright), _f32(1e5))
    first = ops.add(ops.multiply(bright, ops.constant(index)), dark)
    last = ops.subtract(ops.multiply(bright, ops.constant(index + 1)), dark)
    return (
        _flat(ops.reduce_min(_cells(first, height, width), _i64([2, 3]))),
        _flat(ops.reduce_max(_cells(last, height, width), _i64([2, 3]))),
    )


def _cells(plane: Any, height: int, width: int) -> Any:
    """[1, 1, height, width] -> [rows, columns, cell height, cell width]."""
    rows, columns = GRID
    shape = [rows, height // rows, columns, width // columns]
    return ops.transpose(ops.reshape(plane, shape, special_zero=False), _i64([0, 2, 1, 3]))


def _flat(node: Any) -> Any:
    return ops.reshape(node, [-1], special_zero=False)


def _column(table: Any, index: int) -> Any:
    return ops.slice(table, _i64([index]), _i64([index + 1]), _i64([1]), _i64([1]))


def _result(node: Any, name: str) -> Any:
    port = node.output(0)
    port.get_tensor().set_names({name})
    return ops.result(port)


def _f32(value: Any) -> Any:
    return ops.constant(np.asarray(value, np.float32))


def _i64(value: Any) -> Any:
    return ops.constant(np.asarray(value, np.int64))
