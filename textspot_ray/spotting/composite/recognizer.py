"""Reads words from text features: encoder once a word, then a decoder step a symbol, greedily.

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
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Reading, Readings
from textspot_ray.spotting.composite.contract import (
    FEATURE_SHAPE,
    DecoderPorts,
    check_augmentation,
    check_encoder,
    decoder_ports,
)
from textspot_ray.spotting.composite.decoder_graph import split_decoder
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

    Every word is read by itself (batch 1) on one thread, so that neither the batch nor the number
    of threads can change an answer; words of a call run side by side.

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
        encoder, decoder = runtime.read("encoder"), runtime.read("decoder")
        files = resolved.bundle.model_files(resolved.precision)
        check_encoder(encoder, files["encoder"].graph.file)
        ports = decoder_ports(decoder, files["decoder"].graph.file, len(self.alphabet) + 2)
        split = split_decoder(encoder, decoder, ports, narrow=resolved.precision == "bf16")
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
            cuts = [
                _Cut(
                    compiled_encoder.create_infer_request(),
                    compiled_step.create_infer_request(),
                    step_ports,
                )
                for _ in range(1 + further)
            ]
            augmenter = augmentation.create_infer_request() if augmentation is not None else None
            self._workers.put(
                _Worker(
                    cuts,
                    augmenter,
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
        rows = [features[i : i + 1] for i in range(len(features))]
        if self._pool is None or len(rows) < 2:
            readings = tuple(self._read_one(row) for row in rows)
        else:
            readings = tuple(self._pool.map(self._read_one, rows))
        return Readings(readings, time.perf_counter() - started)

    def blank(self) -> NDArray[np.float32]:
        """Features of one empty box."""
        return np.zeros((1, *FEATURE_SHAPE), np.float32)

    def _read_one(self, row: NDArray[np.float32]) -> Reading:
        worker = self._workers.get()
        try:
            return worker.read(row)
        finally:
            self._workers.put(worker)


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


class _Cut:
    """One cut of the word being read: an encoder request whose outputs are the step's inputs."""

    def __init__(self, encoder: Any, step: Any, ports: _StepPorts) -> None:
        self._encoder, self._step, self._ports = encoder, step, ports
        # static shapes: the tensors stay where they are, so they are wired up once, not copied
        if ports.encoded is not None:
            step.set_input_tensor(ports.encoded, encoder.get_output_tensor(0))
        for i in range(ports.invariants):
            step.set_input_tensor(ports.first_invariant + i, encoder.get_output_tensor(1 + i))
        self._symbol = step.get_input_tensor(ports.symbol).data
        self._hidden = step.get_input_tensor(ports.hidden).data

    def show(self, row: NDArray[np.float32]) -> None:
        """Encode features, 1 x 64 x 28 x 28."""
        # outputs are read in place; copies of the encoder's would cost a quarter of its time
        self._encoder.infer({0: np.ascontiguousarray(row)}, share_inputs=True, share_outputs=True)

    def begin(self) -> None:
        """Start with the word's first symbol."""
        self._symbol[...] = START
        self._hidden[...] = 0

    def probabilities(self) -> NDArray[np.float64]:
        """Of every symbol at the next place."""
        self._step.infer(share_outputs=True)
        logits = self._step.get_output_tensor(self._ports.logits).data.reshape(-1)
        grown = np.exp(logits.astype(np.float64) - logits.max())
        return np.asarray(grown / grown.sum())

    def state(self) -> NDArray[np.float32]:
        """What the step leaves for the next one."""
        return np.array(self._step.get_output_tensor(self._ports.next_hidden).data)

    def go_on(self, symbol: int, state: NDArray[np.float32]) -> None:
        """Take a symbol for the one at the place whose step left a state."""
        self._symbol[...] = symbol
        self._hidden[...] = state


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


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A reading and how it came about.

    Attributes:
        reading: Text and confidences.
        steps: Probabilities of all symbols at each step, the end's included.
        states: What each step left, cut by cut.
    """

    reading: Reading
    steps: Sequence[NDArray[np.float64]]
    states: Sequence[Sequence[NDArray[np.float32]]]

    @property
    def ended(self) -> bool:
        """Whether the word came to its end within the step limit."""
        return len(self.steps) > len(self.reading.text)


class _Worker:
    """Reads one word at a time.

    Args:
        cuts: For the word as it came, and for each that the augmentation makes of it.
        augmenter: Request of the augmentation, if there is one.
        between: Confidences from and below which it is used.
        dictionary: Weighs unsure readings, if there is one.
        dictionary_below: Confidence below which it does.
        alphabet: Of the symbols from 2 on.
        max_steps: Symbols at most.
    """

    def __init__(
        self,
        cuts: Sequence[_Cut],
        augmenter: Any,
        between: tuple[float, float],
        dictionary: Dictionary | None,
        dictionary_below: float,
        alphabet: str,
        max_steps: int,
    ) -> None:
        self._cuts, self._augmenter, self._between = cuts, augmenter, between
        self._dictionary, self._dictionary_below = dictionary, dictionary_below
        self._alphabet, self._max_steps = alphabet, max_steps

    def read(self, row: NDArray[np.float32]) -> Reading:
        """Read a word, once more from all cuts if that is to be, and weigh it if it is unsure."""
        cuts = self._cuts[:1]
        cuts[0].show(row)
        decoded = self._decode(cuts)
        low, high = self._between
        if self._augmenter is not None and low <= decoded.reading.confidence < high:
            self._augmenter.infer(
                {0: np.ascontiguousarray(row)}, share_inputs=True, share_outputs=True
            )
            made = self._augmenter.get_output_tensor(0).data
            cuts = self._cuts
            for i, cut in enumerate(cuts[1:]):
                cut.show(made[i : i + 1])
            decoded = self._decode(cuts)
        return self._weighed(decoded, cuts)

    def _decode(self, cuts: Sequence[_Cut]) -> _Decoded:
        """Greedy decoding by the published rule.

        The confidence is the product of each step's softmax at its argmax, the end step included;
        a word that does not end within the step limit stands as it is, without an end factor.
        """
        for cut in cuts:
            cut.begin()
        text: list[str] = []
        confidences: list[float] = []
        steps: list[NDArray[np.float64]] = []
        states: list[list[NDArray[np.float32]]] = []
        confidence = 1.0
        for _ in range(self._max_steps):
            mean = np.mean([cut.probabilities() for cut in cuts], axis=0)
            best = int(mean.argmax())
            probability = float(mean[best])
            if not math.isfinite(probability):  # broken features: no reading, no invented figure
                return _Decoded(Reading("", 0.0, ()), (), ())
            confidence *= probability
            steps.append(mean)
            states.append([cut.state() for cut in cuts])
            if best == END:
                break
            text.append(PLACEHOLDER if best == START else self._alphabet[best - 2])
            confidences.append(probability)
            for cut, state in zip(cuts, states[-1], strict=True):
                cut.go_on(best, state)
        return _Decoded(Reading("".join(text), confidence, tuple(confidences)), steps, states)

    def _weighed(self, decoded: _Decoded, cuts: Sequence[_Cut]) -> Reading:
        """The likeliest of a reading and the listed words near it.

        Its confidence is then that of the dictionary; those of its symbols stay the reader's.
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
            other = self._read_as(word, decoded, cuts, least)
            if other is not None:
                readings[word] = other
        weights = self._dictionary.weigh({text: r.confidence for text, r in readings.items()})
        best = max(readings, key=lambda text: weights[text])
        return Reading(best, weights[best], readings[best].char_confidences)

    def _read_as(
        self, word: str, decoded: _Decoded, cuts: Sequence[_Cut], least: float
    ) -> Reading | None:
        """A given word, with the confidences that the reader gives it; None if below the least.

        Up to the first symbol that differs, and for that one, the steps are those of the reading.
        """
        pairs = zip(word, decoded.reading.text, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        symbols = [*(self._alphabet.index(letter) + 2 for letter in word), END]
        confidences = [float(decoded.steps[i][symbols[i]]) for i in range(same + 1)]
        states = decoded.states[same]
        for before, symbol in pairwise(symbols[same:]):
            if math.prod(confidences) <= least:
                return None
            for cut, state in zip(cuts, states, strict=True):
                cut.go_on(before, state)
            mean = np.mean([cut.probabilities() for cut in cuts], axis=0)
            states = [cut.state() for cut in cuts]
            confidences.append(float(mean[symbol]))
        confidence = math.prod(confidences)
        return Reading(word, confidence, tuple(confidences[:-1])) if confidence > least else None
