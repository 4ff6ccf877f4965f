"""Reads lines with a CTC recogniser: lines of one width in a batch, greedy decoding."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from textspot_ray.errors import BundleError
from textspot_ray.records import Reading, Readings
from textspot_ray.spotting.lines.rewrites import constant_of, through
from textspot_ray.spotting.lines.strips import MIN_STRIP, PADDING, STRIP_HEIGHT, LineStrips
from textspot_ray.spotting.lines.weighing import LETTERS, LineWeigher, Steps, Symbol

Strips = NDArray[np.uint8]  # N x 48 x padded width x 3

BLANK = 0
CLASSIFIER_WIDTH = 192
NOTHING = Reading("", 0.0, ())
_UNSURE = 0.93  # mean confidence below which a line may be upside down
_TURNED = 0.9  # confidence above which the classifier is trusted
MAX_BATCH = 4  # lines read in one pass
_BATCH_COLUMNS = 1024  # pixels: of all of them
_MANY_CLASSES = 2048  # with more, the best one is searched by blocks
_BLOCK = 128
_IMPOSSIBLE = -1e4  # a logit whose softmax is 0


class LineReader:
    """Reads lines of one width on one request; a classifier may check unsure ones.

    Args:
        compiled: From `reading_model`, compiled.
        characters: Of the classes that were kept.
        space_threshold: A space between two characters is kept if it is this likely, even if blank
            is likelier; recognisers miss many otherwise.
        classifier: The compiled classifier of upside-down lines, if the bundle has one.
        weigher: Weighs unsure words; the model must tell letters.
    """

    def __init__(
        self,
        compiled: Any,
        characters: Sequence[str],
        space_threshold: float,
        classifier: Any = None,
        weigher: LineWeigher | None = None,
    ) -> None:
        self._weigher = weigher
        self._space_threshold = space_threshold
        self._request = compiled.create_infer_request()
        self._classifier: Any = None
        if classifier is not None:
            self._classifier = classifier.create_infer_request()
        self._characters = characters

    def read(self, strips: Strips, widths: Sequence[int]) -> list[Reading]:
        """Read lines; those with a low confidence are also tried upside down.

        Args:
            strips: Lines x 48 x padded width x 3, uint8.
            widths: Of each line in its strip, pixels.
        """
        readings = self._read_upright(strips, widths)
        if self._classifier is not None:
            for i, (reading, width) in enumerate(zip(readings, widths, strict=True)):
                if mean_confidence(reading) < _UNSURE:
                    readings[i] = self._perhaps_turned(reading, strips[i : i + 1], width)
        return readings

    def _perhaps_turned(self, reading: Reading, strip: Strips, width: int) -> Reading:
        """The reading of the line the other way up, where that is the better one."""
        self._classifier.infer({0: _classifier_input(strip, width)}, share_outputs=True)
        if not self._classifier.get_output_tensor(0).data.reshape(-1)[1] > _TURNED:
            return reading
        over = strip.copy()
        over[:, :, :width] = strip[:, ::-1, :width][:, :, ::-1]
        (other,) = self._read_upright(over, [width])
        if mean_confidence(other) <= mean_confidence(reading):
            return reading
        return replace(other, turned=True)

    def _read_upright(self, strips: Strips, widths: Sequence[int]) -> list[Reading]:
        """Read lines from left to right."""
        self._request.infer({0: strips}, share_inputs=True, share_outputs=True)
        sure, best, gap = (
            self._request.get_output_tensor(i).data.reshape(len(widths), -1) for i in range(3)
        )
        letters = self._request.get_output_tensor(3).data if self._weigher else best
        px = strips.shape[2] / max(best.shape[1], 1)
        rows = zip(sure, best, gap, letters, widths, strict=True)
        return [self._line(s, b, g, some, px, width) for s, b, g, some, width in rows]

    def _line(
        self,
        sure: NDArray[np.float32],
        best: NDArray[np.int32],
        gap: NDArray[np.float32],
        letters: NDArray[Any],
        px: float,
        width: int,
    ) -> Reading:
        """Decode a line of that width; a step is ``px`` pixels."""
        found: list[Symbol] = []
        ended: int | None = None  # the step after the last character
        for start, end in _runs(best):
            confidence = float(sure[start:end].max())
            if (
                not 0 < confidence < math.inf
            ):  # broken weights: no reading and no made-up confidence
                return NOTHING
            if ended is not None and ended < start:
                between = gap[ended:start]
                if between.max() > self._space_threshold:
                    step = ended + int(between.argmax())
                    found.append(Symbol(" ", float(between.max()), step, step + 1))
            for character in self._characters[best[start]]:
                found.append(Symbol(character, confidence, start, end))
            ended = end
        if self._weigher is not None:
            found = self._weigher.weighed(found, Steps(sure, letters))
        confidences = tuple(symbol.confidence for symbol in found)
        return Reading(
            text="".join(symbol.text for symbol in found),
            confidence=math.prod(confidences),
            char_confidences=confidences,
            places=tuple(min(max(symbol.centre * px / width, 0.0), 1.0) for symbol in found),
        )


def _runs(best: NDArray[np.int32]) -> list[tuple[int, int]]:
    """First and last step (exclusive) of each character: runs of equal classes, without blanks."""
    edges = np.flatnonzero(np.diff(best)) + 1
    starts = np.concatenate([[0], edges]).tolist()
    ends = np.concatenate([edges, [len(best)]]).tolist()
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b and best[a] != BLANK]


def letters_of(characters: Sequence[str]) -> list[tuple[int, int]] | None:
    """Classes of each of `LETTERS` in lower and upper case; None if one is missing."""
    places = {character: i for i, character in enumerate(characters)}
    if not places.keys() >= {*LETTERS, *LETTERS.upper()}:
        return None
    return [(places[letter], places[letter.upper()]) for letter in LETTERS]


def reading_model(
    model: Any,
    kept: Sequence[int] | None,
    space: int | None,
    where: str,
    letters: Sequence[tuple[int, int]] | None = None,
) -> Any:
    """A recogniser that takes bytes and yields what a greedy decoder needs of each step.

    Outputs: the best class's softmax, the best class, and the space's softmax (0 without one); with
    letters, the softmax of blank and of each letter in its likelier case besides.

    Args:
        model: A recogniser that follows the contract.
        kept: Classes that stay, ascending, blank first; None = all.
        space: The space's class among those that stay.
        letters: From `letters_of`, among those that stay.
        where: The file, for the message.

    Raises:
        BundleError: The classes cannot be cut.
    """
    scores = model.outputs[0].get_node().input_value(0)
    softmax = through(scores.get_node())
    logits = softmax.input_value(0) if softmax.get_type_name() == "Softmax" else scores
    layer = _last_layer(logits)
    if kept is not None:
        if layer is None:
            raise BundleError(
                f"{where}: its last layer is none that can be cut (or is quantised); "
                "use alphabet: all"
            )
        layer = layer.cut(kept)
        logits = layer.logits()
    classes = logits.get_partial_shape()[2].get_length()
    if layer is not None and classes > _MANY_CLASSES:
        likely = ops.softmax(layer.padded(_BLOCK).logits(), 2).output(0)
        sure, best = _best_by_blocks(likely, classes)
    else:
        likely = ops.softmax(logits, 2).output(0)
        top = ops.topk(likely, ops.constant(np.int64(1)), 2, "max", "none", "i32")
        sure, best = top.output(0), top.output(1)
    gap = ops.gather(likely, ops.constant(np.array([space or 0])), ops.constant(np.int64(2)))
    if space is None:
        gap = ops.multiply(gap, ops.constant(np.float32(0)))
    outputs = [sure, best, gap.output(0)]
    if letters is not None:
        axis = ops.constant(np.int64(2))
        lower, upper = (
            ops.gather(likely, ops.constant(np.array(c)), axis) for c in zip(*letters, strict=True)
        )
        blank = ops.gather(likely, ops.constant(np.array([BLANK])), axis)
        outputs.append(ops.concat([blank, ops.maximum(lower, upper)], 2).output(0))
    short = ov.Model(outputs, model.get_parameters(), "recognizer")
    return takes_bytes(short)


def _best_by_blocks(likely: Any, classes: int) -> tuple[Any, Any]:
    """The largest of each step and its class, of a number of classes that blocks divide.

    First the block by its maximum, then the class in it: a search through thousands of classes
    takes OpenVINO as long as the layer that computes them.
    """

    def numbers(*values: int) -> Any:
        return ops.constant(np.array(values, np.int64))

    one = ops.constant(np.int64(1))
    last = likely.get_partial_shape()[2].get_length()
    blocks = ops.reshape(likely, numbers(-1, last // _BLOCK, _BLOCK), False)
    block = ops.topk(ops.reduce_max(blocks, numbers(2), False), one, 1, "max", "none", "i32")
    inside = ops.topk(ops.gather(blocks, block.output(1), one, 1), one, 2, "max", "none", "i32")
    start = ops.multiply(block.output(1), ops.constant(np.int32(_BLOCK)))
    found = ops.add(start, ops.reshape(inside.output(1), numbers(-1, 1), False))
    # with broken weights the padding may win: it is not a class
    best = ops.minimum(found, ops.constant(np.int32(classes - 1)))
    return inside.output(0), best.output(0)


def takes_bytes(model: Any) -> Any:
    """A recogniser or classifier of lines that takes bytes, N x 48 x W x 3."""
    pre = ov.preprocess.PrePostProcessor(model)
    port = pre.input()
    port.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    port.model().set_layout(ov.Layout("NCHW"))
    port.preprocess().convert_element_type(ov.Type.f32).mean(127.5).scale(127.5)
    return pre.build()


@dataclass(frozen=True, slots=True)
class _LastLayer:
    """The product with the classes' weights: [.., inputs] to [.., classes].

    Attributes:
        features: What is multiplied.
        weights: Inputs x classes.
        bias: Classes.
    """

    features: Any
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def cut(self, kept: Sequence[int]) -> _LastLayer:
        """Only some classes: the others are not computed at all."""
        rows = np.array(kept)
        return replace(self, weights=self.weights[:, rows], bias=self.bias[rows])

    def padded(self, block: int) -> _LastLayer:
        """With impossible classes after the last, up to a multiple."""
        spare = -len(self.bias) % block
        weights = np.pad(self.weights, ((0, 0), (0, spare)))
        bias = np.pad(self.bias, (0, spare), constant_values=_IMPOSSIBLE)
        return replace(self, weights=weights, bias=bias)

    def logits(self) -> Any:
        """The layer as operators."""
        weights = ops.constant(np.ascontiguousarray(self.weights))
        product = ops.matmul(self.features, weights, False, False)
        return ops.add(product, ops.constant(np.ascontiguousarray(self.bias))).output(0)


def _last_layer(logits: Any) -> _LastLayer | None:
    """The layer that computes the scores; None if it is of another kind, or quantised."""
    add = through(logits.get_node())
    product = through(add.input_value(0).get_node()) if add.get_type_name() == "Add" else None
    if product is None or product.get_type_name() != "MatMul":
        return None
    weights, bias = constant_of(product.input_value(1)), constant_of(add.input_value(1))
    how = product.get_attributes()
    if weights is None or bias is None or weights.ndim != 2 or how["transpose_a"]:
        return None
    wide = weights.T if how["transpose_b"] else weights
    if bias.size != wide.shape[1]:
        return None
    return _LastLayer(product.input_value(0), wide, bias.reshape(-1))


class LineRecognizer:
    """Reads the lines of a page on several requests side by side.

    Args:
        compiled: The compiled `reading_model`.
        characters: Of its classes.
        threads: Batches read at a time.
        space_threshold: See `LineReader`.
        classifier: The compiled classifier of upside-down lines, if the bundle has one.
        most: Lines of a batch.
        weigher: See `LineReader`.
    """

    def __init__(
        self,
        compiled: Any,
        characters: Sequence[str],
        threads: int,
        space_threshold: float,
        classifier: Any = None,
        most: int = MAX_BATCH,
        weigher: LineWeigher | None = None,
    ) -> None:
        self._most = most
        self._readers: queue.SimpleQueue[LineReader] = queue.SimpleQueue()
        for _ in range(threads):
            self._readers.put(
                LineReader(compiled, characters, space_threshold, classifier, weigher)
            )
        self._pool = ThreadPoolExecutor(threads, "read") if threads > 1 else None

    def read(self, features: LineStrips) -> Readings:
        """Read every line.

        Args:
            features: The page's strips.

        Returns:
            One reading a strip, in their order.
        """
        started = time.perf_counter()
        strips, widths = features.strips(), features.widths.tolist()
        batches = batches_of([strip.shape[2] for strip in strips], self._most)

        def read_batch(batch: Sequence[int]) -> list[Reading]:
            given = [strips[i] for i in batch]
            joined = given[0] if len(batch) == 1 else np.concatenate(given)
            return self._read_batch(joined, [widths[i] for i in batch])

        each = map if self._pool is None or len(batches) < 2 else self._pool.map
        found: dict[int, Reading] = {}
        for batch, made in zip(batches, each(read_batch, batches), strict=True):
            found.update(zip(batch, made, strict=True))
        readings = tuple(found[i] for i in range(len(strips)))
        return Readings(readings, time.perf_counter() - started)

    def blank(self) -> LineStrips:
        """One empty strip."""
        width = np.array([MIN_STRIP], np.int32)
        return LineStrips(np.full(STRIP_HEIGHT * MIN_STRIP * 3, PADDING, np.uint8), width)

    def _read_batch(self, strips: Strips, widths: Sequence[int]) -> list[Reading]:
        reader = self._readers.get()
        try:
            return reader.read(strips, widths)
        finally:
            self._readers.put(reader)


def batches_of(columns: Sequence[int], most: int = MAX_BATCH) -> list[list[int]]:
    """Indexes of strips to be read together, the largest batch first.

    Only strips of equal width: padding would change the result. A batch of short ones costs up to a
    quarter less per strip, because the weights are fetched once; beyond `_BATCH_COLUMNS` nothing is
    gained. Sizes are powers of two, for few shapes, and depend only on the page, not on the
    threads.

    Args:
        columns: Padded widths.
        most: Strips of a batch, a power of two.
    """
    alike: dict[int, list[int]] = {}
    for i, width in enumerate(columns):
        alike.setdefault(width, []).append(i)
    batches = []
    for width, left in alike.items():
        size = most
        while left:
            while size > 1 and (size > len(left) or size * width > _BATCH_COLUMNS):
                size //= 2
            batches.append(left[:size])
            left = left[size:]
    # so that no thread gets a long one at the end
    return sorted(batches, key=lambda batch: (-len(batch) * columns[batch[0]], batch))


def mean_confidence(reading: Reading) -> float:
    """Mean over the characters, 0 if there are none."""
    sure = reading.char_confidences
    return sum(sure) / len(sure) if sure else 0.0


def _classifier_input(strip: Strips, width: int) -> Strips:
    """A line as the classifier takes it, 1 x 48 x 192 x 3: squeezed or padded."""
    columns = min(width, CLASSIFIER_WIDTH)
    canvas = np.full((1, strip.shape[1], CLASSIFIER_WIDTH, 3), PADDING, np.uint8)
    canvas[0, :, :columns] = cv2.resize(strip[0, :, :width], (columns, strip.shape[1]))
    return canvas
