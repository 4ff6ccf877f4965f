"""Reads words from text features: encoder once a word, then a decoder step a symbol, greedily."""

from __future__ import annotations

import math
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from textspot_ray.records import Reading, Readings
from textspot_ray.spotting.composite.contract import (
    FEATURE_SHAPE,
    DecoderPorts,
    check_encoder,
    decoder_ports,
)
from textspot_ray.spotting.composite.decoder_graph import split_decoder
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings, resolve

START, END = 0, 1
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
        self.alphabet = resolved.bundle.spec.alphabet
        encoder, decoder = runtime.read("encoder"), runtime.read("decoder")
        files = resolved.bundle.model_files(resolved.precision)
        check_encoder(encoder, files["encoder"].graph.file)
        ports = decoder_ports(decoder, files["decoder"].graph.file, len(self.alphabet) + 2)
        split = split_decoder(encoder, decoder, ports, narrow=resolved.precision == "bf16")
        self.note = split.note
        compiled_encoder = runtime.compile(split.encoder)
        compiled_step = runtime.compile(split.step)
        names = [_index(p) for p in _remaining(ports, split.encoded_used)]
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(settings.threads):
            self._workers.put(
                _Worker(
                    compiled_encoder.create_infer_request(),
                    compiled_step.create_infer_request(),
                    _StepPorts(
                        encoded=names.index("encoded") if split.encoded_used else None,
                        symbol=names.index("symbol"),
                        hidden=names.index("hidden"),
                        first_invariant=len(names),
                        invariants=split.invariants,
                        logits=ports.logits,
                        next_hidden=ports.next_hidden,
                    ),
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


class _Worker:
    """One word at a time: an encoder request whose outputs are the step request's inputs."""

    def __init__(
        self, encoder: Any, step: Any, ports: _StepPorts, alphabet: str, max_steps: int
    ) -> None:
        self._encoder, self._step, self._ports = encoder, step, ports
        self._alphabet, self._max_steps = alphabet, max_steps
        # static shapes: the tensors stay where they are, so they are wired up once, not copied
        if ports.encoded is not None:
            step.set_input_tensor(ports.encoded, encoder.get_output_tensor(0))
        for i in range(ports.invariants):
            step.set_input_tensor(ports.first_invariant + i, encoder.get_output_tensor(1 + i))

    def read(self, row: NDArray[np.float32]) -> Reading:
        """Greedy decoding by the published rule.

        The confidence is the product of each step's softmax at its argmax, the end step included;
        a word that does not end within the step limit stands as it is, without an end factor.
        """
        ports, step = self._ports, self._step
        # outputs are read in place; copies of the encoder's would cost a quarter of its time
        self._encoder.infer({0: np.ascontiguousarray(row)}, share_inputs=True, share_outputs=True)
        symbol = step.get_input_tensor(ports.symbol).data
        hidden = step.get_input_tensor(ports.hidden).data
        symbol[...] = START
        hidden[...] = 0
        text: list[str] = []
        confidences: list[float] = []
        confidence = 1.0
        for _ in range(self._max_steps):
            step.infer(share_outputs=True)
            logits = step.get_output_tensor(ports.logits).data.reshape(-1).astype(np.float64)
            best = int(logits.argmax())
            probability = 1.0 / float(np.exp(logits - logits[best]).sum())
            if not math.isfinite(probability):  # broken features: no reading, no invented figure
                return Reading("", 0.0, ())
            confidence *= probability
            if best == END:
                break
            text.append(PLACEHOLDER if best == START else self._alphabet[best - 2])
            confidences.append(probability)
            symbol[...] = best
            hidden[...] = step.get_output_tensor(ports.next_hidden).data
        return Reading("".join(text), confidence, tuple(confidences))
