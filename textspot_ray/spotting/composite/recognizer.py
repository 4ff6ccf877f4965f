"""Reads words from text features: encoder once a word, then a decoder step a symbol, greedily.

Where the bundle's graphs allow it (``read_batch``), several words go through them side by side.

A bundle may bring a graph that makes other cuts of a word's features (test-time augmentation):
words that were read with little confidence are then read from all cuts at once, each symbol by the
mean of their probabilities. If it names a dictionary, readings that are still unsure are weighed
against listed words that look alike, see `textspot_ray.spotting.dictionary`.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, pairwise, takewhile
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.errors import BundleError
from textspot_ray.records import Reading, Readings
from textspot_ray.spotting.composite.contract import (
    ENCODED_CHANNELS,
    FEATURE_SHAPE,
    HIDDEN,
    POSITIONS,
    DecoderPorts,
    check_augmentation,
    check_encoder,
    decoder_ports,
)
from textspot_ray.spotting.composite.decoder_graph import SplitDecoder, split_decoder
from textspot_ray.spotting.dictionary import Dictionary, Slips
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings, resolve

START, END = 0, 1
# What a listed word may lose by the reading's steps, which are not quite its own: more than the
# odds make up for.
_LEAST_LOSS = -6.0
# A start symbol in mid-word stands for no letter; the published evaluation shows it like this.
PLACEHOLDER = "_"


class Recognizer:
    """Holds the compiled reader; `read` may be called from several threads.

    The words of a call are read in groups of the bundle's ``read_batch``, in their order and each
    group on one thread, so that the number of threads cannot change an answer; groups of a call run
    side by side.

    Args:
        settings: Bundle, precision, steps and threads.

    Raises:
        BundleError: The bundle is missing, damaged or breaks the contract.
    """

    def __init__(self, settings: SpotterSettings) -> None:
        resolved = resolve(settings)
        share = Share(settings.threads, settings.threads)
        runtime = Runtime(resolved.bundle, resolved.precision, share)
        spec = resolved.bundle.spec
        self.alphabet = spec.alphabet
        self._batch = spec.read_batch
        encoder, decoder = runtime.read("encoder"), runtime.read("decoder")
        files = resolved.bundle.model_files(resolved.precision)
        check_encoder(encoder, files["encoder"].graph.file)
        where = files["decoder"].graph.file
        ports = decoder_ports(decoder, where, len(self.alphabet) + 2)
        if self._batch > 1:
            widen(encoder, decoder, ports, self._batch, where)
        split = split_decoder(encoder, decoder, ports, narrow=resolved.precision == "bf16")
        if self._batch > 1:
            check_rows(split, self._batch, where)
        self.note = split.note
        compiled_encoder = runtime.compile(split.encoder)
        compiled_step = runtime.compile(split.step)
        names = [_index(p) for p in _remaining(ports, split.encoded_used)]
        step_ports = _StepPorts(
            encoded=names.index("encoded") if split.encoded_used else None,
            symbol=names.index("symbol"),
            hidden=names.index("hidden"),
            first_invariant=len(names),
            invariants=split.invariants,
            logits=ports.logits,
            next_hidden=ports.next_hidden,
        )
        augmentation, further = None, 0
        if "augmentation" in files.parts:
            graph = runtime.read("augmentation")
            further = check_augmentation(graph, files["augmentation"].graph.file)
            augmentation = runtime.compile(graph)
        dictionary = resolved.dictionary()
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(settings.threads):
            requests = [
                _Request(
                    compiled_encoder.create_infer_request(),
                    compiled_step.create_infer_request(),
                    step_ports,
                    ports,
                )
                for _ in range(math.ceil((1 + further) / self._batch))
            ]
            augmenter = augmentation.create_infer_request() if augmentation is not None else None
            self._workers.put(
                _Worker(
                    _Rows(requests, self._batch),
                    augmenter,
                    1 + further,
                    spec.augment_between,
                    dictionary,
                    spec.dictionary_below,
                    self.alphabet,
                    resolved.max_steps,
                )
            )
        self._pool = ThreadPoolExecutor(settings.threads, "read") if settings.threads > 1 else None

    def read(self, features: NDArray[np.float32]) -> Readings:
        """Read every row.

        Args:
            features: N x 64 x 28 x 28, float32; N may be 0.

        Returns:
            One reading a row, in the rows' order.
        """
        started = time.perf_counter()
        if features.ndim != 4 or features.shape[1:] != FEATURE_SHAPE:
            raise ValueError(f"features must be N x 64 x 28 x 28, not {features.shape}")
        groups = [features[i : i + self._batch] for i in range(0, len(features), self._batch)]
        if self._pool is None or len(groups) < 2:
            read = [self._read_group(group) for group in groups]
        else:
            read = list(self._pool.map(self._read_group, groups))
        return Readings(tuple(chain.from_iterable(read)), time.perf_counter() - started)

    def blank(self) -> NDArray[np.float32]:
        """Features of one empty box."""
        return np.zeros((1, *FEATURE_SHAPE), np.float32)

    def _read_group(self, group: NDArray[np.float32]) -> list[Reading]:
        worker = self._workers.get()
        try:
            return worker.read(group)
        finally:
            self._workers.put(worker)


def widen(encoder: Any, decoder: Any, ports: DecoderPorts, batch: int, where: str) -> None:
    """Let the reader's graphs take up to `batch` words at a time.

    Raises:
        BundleError: The graphs are made for one word.
    """
    words = ov.Dimension(1, batch)
    try:
        if len(ports.symbol_shape) != 1:
            raise RuntimeError
        encoder.reshape({0: ov.PartialShape([words, *FEATURE_SHAPE])})
        decoder.reshape(
            {
                ports.encoded: ov.PartialShape([words, POSITIONS, ENCODED_CHANNELS]),
                ports.symbol: ov.PartialShape([words]),
                ports.hidden: ov.PartialShape([1, words, HIDDEN]),
            }
        )
        fits = decoder.outputs[ports.logits].get_partial_shape()[0] == words
    except RuntimeError:
        fits = False
    if not fits:
        raise _no_batch(where, batch)


def check_rows(split: SplitDecoder, batch: int, where: str) -> None:
    """Check that what the encoder hands over has a row a word, which is what words are parted by.

    Raises:
        BundleError: A step-independent part of the decoder is laid out otherwise.
    """
    words = ov.Dimension(1, batch)
    for output in split.encoder.outputs:
        shape = output.get_partial_shape()
        if shape.rank.is_dynamic or not len(shape) or shape[0] != words:
            raise _no_batch(where, batch)


def _no_batch(where: str, batch: int) -> BundleError:
    return BundleError(f"{where} reads one word at a time; leave read_batch: {batch} out")


@dataclass(frozen=True, slots=True)
class _StepPorts:
    encoded: int | None
    symbol: int
    hidden: int
    first_invariant: int
    invariants: int
    logits: int
    next_hidden: int


def _remaining(ports: DecoderPorts, encoded_used: bool) -> list[tuple[int, str]]:
    """The decoder's own inputs in their order, as far as the step still has them."""
    inputs = [(ports.encoded, "encoded"), (ports.symbol, "symbol"), (ports.hidden, "hidden")]
    return sorted(i for i in inputs if encoded_used or i[1] != "encoded")


def _index(port: tuple[int, str]) -> str:
    return port[1]


class _Request:
    """An encoder's request whose outputs are the inputs of a step's request."""

    def __init__(self, encoder: Any, step: Any, ports: _StepPorts, decoder: DecoderPorts) -> None:
        self._encoder, self._step, self._ports = encoder, step, ports
        self._symbol_type = decoder.symbol_type
        self._symbol_rank = len(decoder.symbol_shape)
        self._handed_over = [(1 + i, ports.first_invariant + i) for i in range(ports.invariants)]
        if ports.encoded is not None:
            self._handed_over.append((0, ports.encoded))
        self._keep: dict[int, Any] = {}

    def show(self, features: NDArray[np.float32]) -> None:
        """Encode features, n x 64 x 28 x 28."""
        # outputs are read in place; copies of the encoder's would cost a quarter of its time
        self._encoder.infer(
            {0: np.ascontiguousarray(features)}, share_inputs=True, share_outputs=True
        )
        self.whole()

    def whole(self) -> None:
        """Go on with all rows."""
        for output, port in self._handed_over:
            self._step.set_input_tensor(port, self._encoder.get_output_tensor(output))

    def narrow(self, first: int, last: int) -> None:
        """Go on with these of the rows alone."""
        for output, port in self._handed_over:
            self._set(port, self._encoder.get_output_tensor(output).data[first:last])

    def go_on(self, symbols: NDArray[np.int64], states: NDArray[np.float32]) -> None:
        """Take the n symbols, [n], at the places whose step left the states, [n, 256]."""
        shaped = symbols.astype(self._symbol_type)
        self._set(self._ports.symbol, shaped if self._symbol_rank == 1 else shaped[np.newaxis])
        self._set(self._ports.hidden, np.ascontiguousarray(states[np.newaxis]))

    def probabilities(self) -> NDArray[np.float64]:
        """Of every symbol at the next place, [n, symbols]."""
        self._step.infer(share_outputs=True)
        logits = self._step.get_output_tensor(self._ports.logits).data
        logits = logits.reshape(-1, logits.shape[-1])
        grown = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))

    def states(self) -> NDArray[np.float32]:
        """What the step leaves for the next one, [n, 256]."""
        return np.array(self._step.get_output_tensor(self._ports.next_hidden).data[0])

    def _set(self, port: int, value: NDArray[Any]) -> None:
        # the tensor is a view: what it shows has to live as long as the request reads it
        self._keep[port] = value
        self._step.set_input_tensor(port, ov.Tensor(value, shared_memory=True))


class _Rows:
    """Rows of features that are read side by side, one after the other in the requests.

    Args:
        requests: At least one.
        batch: Rows that each of them takes.
    """

    def __init__(self, requests: Sequence[_Request], batch: int) -> None:
        self._requests, self._batch = requests, batch
        self._shown: list[tuple[_Request, int]] = []
        self._read: list[tuple[_Request, int]] = []

    @property
    def capacity(self) -> int:
        """Rows at most."""
        return len(self._requests) * self._batch

    def show(self, features: NDArray[np.float32]) -> None:
        """Encode features, n x 64 x 28 x 28, and go to the beginning of the words."""
        firsts = range(0, len(features), self._batch)
        self._shown = []
        for request, first in zip(self._requests, firsts, strict=False):
            part = features[first : first + self._batch]
            request.show(part)
            self._shown.append((request, len(part)))
        self._read = self._shown
        count = len(features)
        self.go_on(np.full(count, START), np.zeros((count, HIDDEN), np.float32))

    def narrow(self, first: int, last: int) -> None:
        """Go on with rows `first` to `last` - 1 of those that were shown."""
        self._read = []
        at = 0
        for request, count in self._shown:
            start, end = max(first - at, 0), min(last - at, count)
            at += count
            if (start, end) == (0, count):
                request.whole()
            elif start < end:
                request.narrow(start, end)
            else:
                continue
            self._read.append((request, end - start))

    def go_on(self, symbols: NDArray[np.int64], states: NDArray[np.float32]) -> None:
        """Take the symbols, [n], at the places whose step left the states, [n, 256]."""
        first = 0
        for request, count in self._read:
            request.go_on(symbols[first : first + count], states[first : first + count])
            first += count

    def probabilities(self) -> NDArray[np.float64]:
        """Of every symbol at the next place, [n, symbols]."""
        return np.concatenate([request.probabilities() for request, _ in self._read])

    def states(self) -> NDArray[np.float32]:
        """What the step leaves for the next one, [n, 256]."""
        return np.concatenate([request.states() for request, _ in self._read])


def slips_of(text: str, steps: NDArray[np.floating], alphabet: str) -> Slips:
    """What may be wrong in a reading, by its own steps.

    Up to the first change these are a changed word's own steps too; behind it they are not.

    Args:
        text: What was read, L symbols of the alphabet.
        steps: [L + 1, 1 + len(alphabet)] probabilities: of the word's end, then of the symbols.
        alphabet: The reader's symbols.
    """
    chosen = [1 + alphabet.index(symbol) for symbol in text] + [0]
    logs = np.log(np.maximum(steps, 1e-12))
    losses = (logs - logs[np.arange(len(chosen)), chosen][:, np.newaxis]).tolist()
    others = [
        {alphabet[k - 1]: row[k] for k in range(1, len(row)) if row[k] >= _LEAST_LOSS and k != own}
        for row, own in zip(losses, chosen, strict=True)
    ]
    omitted = [row[after] for row, after in zip(losses, chosen[1:], strict=False)]
    return Slips(others[:-1], others, omitted)


@dataclass(slots=True)
class _Decoded:
    """A reading and how it came about.

    Attributes:
        text: What was read.
        confidence: Of all steps.
        confidences: Of its symbols.
        steps: Probabilities of all symbols at each step, the end's included.
        states: What each step left in each of the word's cuts, [cuts, 256].
        over: Whether nothing is read any more.
    """

    text: str = ""
    confidence: float = 1.0
    confidences: list[float] = field(default_factory=list)
    steps: list[NDArray[np.float64]] = field(default_factory=list)
    states: list[NDArray[np.float32]] = field(default_factory=list)
    over: bool = False

    @property
    def ended(self) -> bool:
        """Whether the word came to its end within the step limit."""
        return len(self.steps) > len(self.text)

    @property
    def reading(self) -> Reading:
        """As it is told."""
        return Reading(self.text, self.confidence, tuple(self.confidences))

    def take(self, chances: NDArray[np.float64], state: NDArray[np.float32], alphabet: str) -> None:
        """Read the likeliest symbol of a step."""
        best = int(chances.argmax())
        probability = float(chances[best])
        if not math.isfinite(probability):  # broken features: no reading, no invented figure
            self.text, self.confidence, self.over = "", 0.0, True
            self.confidences, self.steps, self.states = [], [], []
            return
        self.confidence *= probability
        self.steps.append(chances)
        self.states.append(state)
        if best == END:
            self.over = True
            return
        self.text += PLACEHOLDER if best == START else alphabet[best - 2]
        self.confidences.append(probability)


class _Worker:
    """Reads a group of words side by side.

    Args:
        rows: For the words, and for the cuts that the augmentation makes of them.
        augmenter: Request of the augmentation, if there is one.
        cuts: Of a word, with the augmentation: itself and what is made of it.
        between: Confidences from and below which it is used.
        dictionary: Weighs unsure readings, if there is one.
        dictionary_below: Confidence below which it does.
        alphabet: Of the symbols from 2 on.
        max_steps: Symbols at most.
    """

    def __init__(
        self,
        rows: _Rows,
        augmenter: Any,
        cuts: int,
        between: tuple[float, float],
        dictionary: Dictionary | None,
        dictionary_below: float,
        alphabet: str,
        max_steps: int,
    ) -> None:
        self._rows, self._augmenter, self._cuts = rows, augmenter, cuts
        self._between = between
        self._dictionary, self._dictionary_below = dictionary, dictionary_below
        self._alphabet, self._max_steps = alphabet, max_steps

    def read(self, features: NDArray[np.float32]) -> list[Reading]:
        """Read words, once more from all cuts where that is to be, and weigh the unsure ones.

        Args:
            features: n x 64 x 28 x 28, at most what one request of the rows takes.
        """
        decoded = self._decode(features, 1)
        low, high = self._between
        unsure = [
            i
            for i, word in enumerate(decoded)
            if self._augmenter is not None and low <= word.confidence < high
        ]
        readings = {
            i: self._weighed(word, i, 1) for i, word in enumerate(decoded) if i not in unsure
        }
        at_once = self._rows.capacity // self._cuts
        for first in range(0, len(unsure), at_once):
            words = unsure[first : first + at_once]
            again = self._decode(
                np.concatenate([self._all_cuts(features[i]) for i in words]), self._cuts
            )
            for at, (i, word) in enumerate(zip(words, again, strict=True)):
                readings[i] = self._weighed(word, at, self._cuts)
        return [readings[i] for i in range(len(decoded))]

    def _all_cuts(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """A word and what the augmentation makes of it."""
        word = np.ascontiguousarray(row[np.newaxis])
        self._augmenter.infer({0: word}, share_inputs=True, share_outputs=True)
        return np.concatenate([word, self._augmenter.get_output_tensor(0).data])

    def _decode(self, features: NDArray[np.float32], cuts: int) -> list[_Decoded]:
        """Greedy decoding of words by the published rule, each from so many rows.

        The confidence is the product of each step's softmax at its argmax, the end step included;
        a word that does not end within the step limit stands as it is, without an end factor.
        """
        self._rows.show(features)
        words = [_Decoded() for _ in range(len(features) // cuts)]
        for _ in range(self._max_steps):
            chances = self._rows.probabilities()
            chances = chances.reshape(len(words), cuts, -1).mean(axis=1)
            states = self._rows.states()
            for i, word in enumerate(words):
                if not word.over:
                    word.take(chances[i], states[i * cuts : (i + 1) * cuts], self._alphabet)
            if all(word.over for word in words):
                break
            self._rows.go_on(np.repeat(chances.argmax(axis=1), cuts), states)
        return words

    def _weighed(self, decoded: _Decoded, at: int, cuts: int) -> Reading:
        """The likeliest of a reading and the listed words near it.

        Its confidence is then that of the dictionary; those of its symbols stay the reader's.

        Args:
            decoded: The reading.
            at: Which of the words that were shown it is.
            cuts: Rows of a word.
        """
        reading = decoded.reading
        if (
            self._dictionary is None
            or not decoded.ended
            or reading.confidence >= self._dictionary_below
            or PLACEHOLDER in reading.text
        ):
            return reading
        least = reading.confidence * self._dictionary.share(reading.text)
        readings = {reading.text: reading}
        slips = slips_of(reading.text, np.stack(decoded.steps)[:, END:], self._alphabet)
        for word in self._dictionary.similar(reading.text, slips, _LEAST_LOSS):
            self._rows.narrow(at * cuts, (at + 1) * cuts)
            other = self._read_as(word, decoded, least)
            if other is not None:
                readings[word] = other
        likelihoods = {text: r.confidence for text, r in readings.items()}
        weights = self._dictionary.weigh(reading.text, likelihoods)
        best = max(readings, key=lambda text: weights[text])
        return Reading(best, weights[best], readings[best].char_confidences)

    def _read_as(self, word: str, decoded: _Decoded, least: float) -> Reading | None:
        """A given word, with the confidences that the reader gives it; None if below the least.

        Up to the first symbol that differs, and for that one, the steps are those of the reading.
        """
        pairs = zip(word, decoded.text, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        symbols = [*(self._alphabet.index(letter) + 2 for letter in word), END]
        confidences = [float(decoded.steps[i][symbols[i]]) for i in range(same + 1)]
        states = decoded.states[same]
        for before, symbol in pairwise(symbols[same:]):
            if math.prod(confidences) <= least:
                return None
            self._rows.go_on(np.full(len(states), before), states)
            chances = self._rows.probabilities().mean(axis=0)
            states = self._rows.states()
            confidences.append(float(chances[symbol]))
        confidence = math.prod(confidences)
        return Reading(word, confidence, tuple(confidences[:-1])) if confidence > least else None
