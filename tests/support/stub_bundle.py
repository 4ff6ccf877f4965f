"""A tiny bundle that truly reads: words written as coloured blocks, spelled back letter by letter.

It follows the contract to the letter (names, shapes, both signatures, padded or dynamic rows,
every type of ``prev_symbol``) at next to no cost, so that tests and benchmarks of the machinery can
check real data flow: what `draw` paints is what the tables must say.

The picture is a lattice of 12 rows and 8 columns of cells; a cell that is red holds a word of up to
8 letters, one block of blue a letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from textspot_ray.spotting.bundle import BundleSpec, describe_files, write_spec
from textspot_ray.spotting.composite.contract import INPUT_HEIGHT, INPUT_WIDTH

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
ROWS, COLUMNS, LETTERS = 12, 8, 8
CELLS = ROWS * COLUMNS
CELL_WIDTH, CELL_HEIGHT = INPUT_WIDTH // COLUMNS, INPUT_HEIGHT // ROWS
_STEP = 6  # levels of blue a symbol
_PADDED = 100


def draw(
    words: Mapping[int, str], width: int = INPUT_WIDTH, height: int = INPUT_HEIGHT
) -> NDArray[np.uint8]:
    """Paint words into cells 0..95, row by row.

    Args:
        words: Text of up to 8 letters of the alphabet, by cell; "" is a box without text.
        width: Of the picture; other sizes than the input's are resized, and still legible.
        height: Of the picture.

    Returns:
        height x width x 3, uint8, BGR.
    """
    import cv2

    image = np.zeros((INPUT_HEIGHT, INPUT_WIDTH, 3), np.uint8)
    for cell, text in words.items():
        y, x = divmod(cell, COLUMNS)
        top, left = y * CELL_HEIGHT, x * CELL_WIDTH
        image[top : top + CELL_HEIGHT, left : left + CELL_WIDTH, 2] = 255
        for i, letter in enumerate(text[:LETTERS]):
            block = left + i * (CELL_WIDTH // LETTERS)
            blue = (ALPHABET.index(letter) + 2) * _STEP
            image[top : top + CELL_HEIGHT, block : block + CELL_WIDTH // LETTERS, 0] = blue
    if (width, height) != (INPUT_WIDTH, INPUT_HEIGHT):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    return image


def cell_box(cell: int) -> tuple[int, int, int, int]:
    """Where a cell lies at 1280 x 768: x_min, y_min, x_max, y_max."""
    y, x = divmod(cell, COLUMNS)
    left, top = x * CELL_WIDTH, y * CELL_HEIGHT
    return left, top, left + CELL_WIDTH, top + CELL_HEIGHT


def write_stub_bundle(
    folder: Path,
    *,
    signature: str = "image",
    rows: str = "padded",
    symbol_shape: tuple[int, ...] = (1,),
    symbol_type: str = "f32",
    suffix: str = "",
    resize: str = "stretch",
    detection_threshold: float = 0.5,
) -> Path:
    """Write the bundle.

    Args:
        folder: Made if need be.
        signature: ``image`` or ``im_data`` (with ``im_info``).
        rows: ``padded`` to 100, or ``dynamic``.
        symbol_shape: Of ``prev_symbol``.
        symbol_type: Its OpenVINO element type.
        suffix: Appended to the name of the text features, e.g. ``.0``.
        resize: The bundle's resize rule.
        detection_threshold: The bundle's.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "detector": _detector(signature, rows, suffix),
        "encoder": _encoder(),
        "decoder": _decoder(symbol_shape, symbol_type),
    }
    for part, model in models.items():
        ov.save_model(model, str(folder / f"{part}.xml"), compress_to_fp16=False)
    names = {part: (f"{part}.xml", f"{part}.bin") for part in models}
    spec = BundleSpec(
        name="stub",
        version="1",
        alphabet=ALPHABET,
        precisions={"f32": describe_files(folder, names)},
        detection_threshold=detection_threshold,
        resize=resize,
        licence="Apache-2.0",
        provenance={"made by": "tests.support.stub_bundle"},
    )
    write_spec(folder, spec)
    return folder


def _i64(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def _f32(values: Any) -> Any:
    return ops.constant(np.array(values, np.float32))


def _named(x: Any, name: str) -> Any:
    output = x if isinstance(x, ov.Output) else x.output(0)
    output.set_names({name})
    return ops.result(output)


def _detector(signature: str, rows: str, suffix: str) -> Any:
    name = "image" if signature == "image" else "im_data"
    image = ops.parameter([1, 3, INPUT_HEIGHT, INPUT_WIDTH], np.float32, name=name)
    image.output(0).set_names({name})
    inputs = [image]
    scale = _f32(1.0)
    if signature == "im_data":
        im_info = ops.parameter([1, 3], np.float32, name="im_info")
        im_info.output(0).set_names({"im_info"})
        inputs.append(im_info)
        # reads its third value, so that a caller who leaves it out is found out
        scale = ops.gather(ops.squeeze(im_info, _i64(0)), _i64(2), ops.constant(np.int64(0)))
    # the middle of each block: its edges may be mixed with the neighbour's by resizing or JPEG
    block = CELL_WIDTH // LETTERS
    inner = ops.slice(
        image,
        _i64(0, 0, CELL_HEIGHT // 4, block // 4),
        _i64(1, 3, INPUT_HEIGHT, INPUT_WIDTH),
        _i64(1, 1, 1, 1),
    )
    blocks = ops.avg_pool(
        inner, [CELL_HEIGHT, block], [0, 0], [0, 0], [CELL_HEIGHT // 2, block // 2], True
    )  # 1 x 3 x 12 x 64
    cells = ops.reshape(blocks, _i64(3, CELLS, LETTERS), False)
    blue, _, red = (ops.gather(cells, ops.constant(np.int64(i)), _i64(0)) for i in range(3))
    scores = ops.multiply(ops.reduce_mean(red, _i64(1)), ops.multiply(scale, _f32(1 / 256)))
    boxes = ops.concat([_f32([cell_box(i) for i in range(CELLS)]), _column(scores)], 1)
    letters = ops.floor(ops.add(ops.divide(blue, _f32(_STEP)), _f32(0.5)))  # 96 x 8
    features = ops.broadcast(
        ops.reshape(
            ops.pad(letters, _i64(0, 0), _i64(0, 64 - LETTERS), "constant"),
            _i64(CELLS, 64, 1, 1),
            False,
        ),
        _i64(CELLS, 64, 28, 28),
    )
    masks = _f32(np.ones((CELLS, 28, 28)))
    if rows == "padded":
        extra = _PADDED - CELLS
        boxes = ops.pad(boxes, _i64(0, 0), _i64(extra, 0), "constant")
        masks = ops.pad(masks, _i64(0, 0, 0), _i64(extra, 0, 0), "constant")
        features = ops.pad(features, _i64(0, 0, 0, 0), _i64(extra, 0, 0, 0), "constant")
        labels = ops.constant(np.zeros(_PADDED, np.int32))
    else:
        found = ops.squeeze(ops.non_zero(ops.greater(scores, _f32(0.25)), "i64"), _i64(0))
        axis = ops.constant(np.int64(0))
        boxes, masks, features = (ops.gather(x, found, axis) for x in (boxes, masks, features))
        labels = ops.convert(ops.multiply(found, ops.constant(np.int64(0))), "i32")
    outputs = {
        "labels": labels,
        "boxes": boxes,
        "masks": masks,
        f"text_features{suffix}": features,
    }
    return ov.Model([_named(x, n) for n, x in outputs.items()], inputs, "detector")


def _column(x: Any) -> Any:
    return ops.unsqueeze(x, _i64(1))


def _encoder() -> Any:
    features = ops.parameter([1, 64, 28, 28], np.float32, name="input")
    features.output(0).set_names({"input"})
    out = ops.pad(features, _i64(0, 0, 0, 0), _i64(0, 192, 0, 0), "constant")
    return ov.Model([_named(out, "output")], [features], "encoder")


def _decoder(symbol_shape: tuple[int, ...], symbol_type: str) -> Any:
    """Spells channel t at step t; the hidden state counts the steps."""
    encoded = ops.parameter([1, 784, 256], np.float32, name="encoder_outputs")
    kind = getattr(ov.Type, symbol_type)
    symbol = ops.parameter(list(symbol_shape), kind, name="prev_symbol")
    hidden = ops.parameter([1, 1, 256], np.float32, name="prev_hidden")
    inputs = {"encoder_outputs": encoded, "prev_symbol": symbol, "prev_hidden": hidden}
    for name, node in inputs.items():
        node.output(0).set_names({name})
    axis = ops.constant(np.int64(0))
    vector = ops.gather(ops.squeeze(encoded, _i64(0)), ops.constant(np.int64(0)), axis)  # 256
    step = ops.convert(ops.gather(ops.reshape(hidden, _i64(256), False), _i64(0), axis), "i64")
    letter = ops.maximum(ops.gather(vector, step, axis), _f32([1.0]))  # nothing there: the end
    near = ops.subtract(_f32(np.arange(len(ALPHABET) + 2)), letter)
    logits = ops.multiply(ops.multiply(near, near), _f32(-8.0))
    # adds nothing, but depends on the last symbol as a real decoder does
    told = ops.multiply(ops.reshape(ops.convert(symbol, "f32"), _i64(1), False), _f32([0.0]))
    logits = ops.unsqueeze(ops.add(logits, told), _i64(0))
    return ov.Model(
        [_named(logits, "output"), _named(ops.add(hidden, _f32(1.0)), "hidden")],
        list(inputs.values()),
        "decoder",
    )
