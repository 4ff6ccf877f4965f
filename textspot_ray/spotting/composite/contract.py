"""The composite's contract: which tensor of an IR is which, independent of its names.

Two generations of detectors exist (inputs ``im_data`` and ``im_info``, or only ``image``), their
rows are padded to 100 or dynamic, output names come with and without a suffix, and decoders take
the last symbol as float or integer, as [1] or [1, 1]. All of that is read from the model here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textspot_ray.errors import BundleError
from textspot_ray.spotting.tensors import dims, shapes

INPUT_HEIGHT, INPUT_WIDTH = 768, 1280  # of the published detectors; others are read from the model
FEATURE_SHAPE = (64, 28, 28)
MASK_SIDE = 28
ENCODED_CHANNELS = 256
POSITIONS = 784
HIDDEN = 256
# A tensor anywhere in a one-stage detector's graph, [1, C, h, w]: its first channel is the logit
# of lying inside a word. Detectors without it cannot say where text too low to be found may be.
SCORE_MAP = "maps"


@dataclass(frozen=True, slots=True)
class DetectorPorts:
    """Where the detector's inputs and outputs are.

    Attributes:
        image: Index of the image input, 1 x 3 x height x width.
        im_info: Index of the ``im_info`` input (processed height, width, scale), if there is one.
        height: Of the input, pixels.
        width: Of the input, pixels.
        labels: Index of the output [N], or None if the model has none.
        boxes: Index of the output [N, 5].
        masks: Index of the output [N, 28, 28].
        features: Index of the output [N, 64, 28, 28].
    """

    image: int
    im_info: int | None
    height: int
    width: int
    labels: int | None
    boxes: int
    masks: int
    features: int


@dataclass(frozen=True, slots=True)
class DecoderPorts:
    """Where the decoder's inputs and outputs are.

    Attributes:
        encoded: Index of ``encoder_outputs`` [1, 784, 256].
        symbol: Index of ``prev_symbol``.
        symbol_shape: (1,) or (1, 1).
        symbol_type: numpy name of its element type.
        hidden: Index of ``prev_hidden`` [1, 1, 256].
        logits: Index of the output [1, symbols] (or [1, 1, symbols]).
        next_hidden: Index of the output with the carried state.
        symbols: Size of the vocabulary, start and end included.
    """

    encoded: int
    symbol: int
    symbol_shape: tuple[int, ...]
    symbol_type: str
    hidden: int
    logits: int
    next_hidden: int
    symbols: int


def detector_ports(model: Any, where: str) -> DetectorPorts:
    """Read a detector's ports.

    Args:
        model: An ``openvino.Model``.
        where: The file, for the message.

    Raises:
        BundleError: The model does not follow the contract; the message names the file and cause.
    """
    inputs = {i: dims(port) for i, port in enumerate(model.inputs)}
    images = [i for i, sizes in inputs.items() if len(sizes) == 4]
    infos = [i for i, sizes in inputs.items() if len(sizes) == 2]
    if len(images) != 1 or len(infos) > 1 or len(images) + len(infos) != len(inputs):
        raise BundleError(
            f"{where} is not a detector of the text-spotting contract: its inputs are "
            f"{shapes(model.inputs)}, wanted image [1, 3, H, W] (and perhaps im_info [1, 3])"
        )
    batch, channels, height, width = inputs[images[0]]
    if batch not in (1, None) or channels != 3 or height is None or width is None:
        raise BundleError(
            f"{where}: the image input is {shapes([model.inputs[images[0]]])}, wanted "
            "[1, 3, H, W] with fixed height and width"
        )
    outputs = model.outputs
    found = {
        "boxes": _find(outputs, "boxes", lambda d: len(d) == 2 and d[1] == 5),
        "masks": _find(outputs, "masks", lambda d: len(d) == 3 and d[1:] == (28, 28)),
        "features": _find(
            outputs, "text_features", lambda d: len(d) == 4 and d[1:] == FEATURE_SHAPE
        ),
    }
    missing = [name for name, index in found.items() if index is None]
    if missing:
        raise BundleError(
            f"{where} has no output for {', '.join(missing)}: its outputs are {shapes(outputs)}; "
            "is it the detector of a text-spotting model?"
        )
    return DetectorPorts(
        image=images[0],
        im_info=infos[0] if infos else None,
        height=height,
        width=width,
        labels=_find(outputs, "labels", lambda d: len(d) == 1),
        boxes=found["boxes"] or 0,
        masks=found["masks"] or 0,
        features=found["features"] or 0,
    )


def show_score_map(model: Any) -> int | None:
    """Make a detector's score map an additional output.

    Args:
        model: An ``openvino.Model``; changed.

    Returns:
        The output's index; None if the graph has no such tensor.
    """
    for node in model.get_ordered_ops():
        for output in node.outputs():
            if SCORE_MAP in output.get_names() and len(output.get_partial_shape()) == 4:
                for index, shown in enumerate(model.outputs):
                    if SCORE_MAP in shown.get_names():
                        return index
                model.add_outputs(output)
                return len(model.outputs) - 1
    return None


def check_encoder(model: Any, where: str) -> None:
    """Check that an encoder maps 1 x 64 x 28 x 28 to 1 x 256 x 28 x 28.

    Raises:
        BundleError: It does not.
    """
    inputs, outputs = [dims(p) for p in model.inputs], [dims(p) for p in model.outputs]
    if inputs != [(1, *FEATURE_SHAPE)] or outputs != [(1, ENCODED_CHANNELS, 28, 28)]:
        raise BundleError(
            f"{where} is not a recognizer encoder of the contract: it maps "
            f"{shapes(model.inputs)} to {shapes(model.outputs)}, wanted [1, 64, 28, 28] to "
            "[1, 256, 28, 28]"
        )


def check_augmentation(model: Any, where: str) -> int:
    """Check that a graph makes a fixed number of further features from those of a word.

    Returns:
        How many.

    Raises:
        BundleError: It does not map 1 x 64 x 28 x 28 to N x 64 x 28 x 28.
    """
    inputs, outputs = [dims(p) for p in model.inputs], [dims(p) for p in model.outputs]
    count = outputs[0][0] if len(outputs) == 1 and outputs[0] else None
    if inputs != [(1, *FEATURE_SHAPE)] or not count or outputs != [(count, *FEATURE_SHAPE)]:
        raise BundleError(
            f"{where} is not an augmentation: it maps {shapes(model.inputs)} to "
            f"{shapes(model.outputs)}, wanted [1, 64, 28, 28] to [N, 64, 28, 28]"
        )
    return count


def decoder_ports(model: Any, where: str, symbols: int) -> DecoderPorts:
    """Read a decoder's ports.

    Args:
        model: An ``openvino.Model``.
        where: The file, for the message.
        symbols: Size of the bundle's alphabet plus start and end.

    Raises:
        BundleError: The model does not follow the contract or the alphabet has another size.
    """
    inputs, outputs = model.inputs, model.outputs
    encoded = _find(inputs, "encoder_outputs", lambda d: d == (1, POSITIONS, ENCODED_CHANNELS))
    hidden = _find(inputs, "prev_hidden", lambda d: d == (1, 1, HIDDEN))
    symbol = _find(inputs, "prev_symbol", lambda d: d in ((1,), (1, 1)))
    next_hidden = _find(outputs, "hidden", lambda d: d == (1, 1, HIDDEN))
    # the GRU export also has an attention output [1, 784]; the vocabulary is never that large
    logits = _find(outputs, "output", lambda d: len(d) in (2, 3) and d[-1] not in (784, 256))
    if None in (encoded, hidden, symbol, next_hidden, logits) or len(inputs) != 3:
        raise BundleError(
            f"{where} is not a recognizer decoder of the contract: it maps {shapes(inputs)} to "
            f"{shapes(outputs)}"
        )
    assert encoded is not None and hidden is not None and symbol is not None
    assert next_hidden is not None and logits is not None
    size = dims(outputs[logits])[-1]
    if size != symbols:
        raise BundleError(
            f"{where} yields {size} symbols, but the bundle's alphabet has {symbols} with start "
            "and end"
        )
    port = inputs[symbol]
    return DecoderPorts(
        encoded=encoded,
        symbol=symbol,
        symbol_shape=tuple(port.shape),
        symbol_type=port.get_element_type().to_dtype().name,
        hidden=hidden,
        logits=logits,
        next_hidden=next_hidden,
        symbols=symbols,
    )


def _find(ports: list[Any], name: str, fits: Any) -> int | None:
    """The port of that name (ignoring a suffix) if its shape fits, else the only one that fits."""
    fitting = [i for i, port in enumerate(ports) if fits(dims(port))]
    named = [i for i in fitting if any(_stem(n) == name for n in ports[i].get_names())]
    if named:
        return named[0]
    return fitting[0] if len(fitting) == 1 else None


def _stem(name: str) -> str:
    """``text_features.0`` and ``text_features/sink_port_0`` are ``text_features``."""
    return name.split("/")[0].split(".")[0]
