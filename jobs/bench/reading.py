"""The reader alone on one thread: encoders, encoders and steps, and the recogniser around them."""

from __future__ import annotations

from typing import Any

import numpy as np

from textspot_ray.spotting.bundle import Bundle
from textspot_ray.spotting.composite.contract import decoder_ports
from textspot_ray.spotting.composite.decoder_graph import split_decoder
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings


class Reading:
    """Words read on one thread, in three ways that differ by one thing each.

    Args:
        bundle: What to run.
        precision: Of the bundle.
        words: In one piece of work.
        steps: Decoder steps a word.
    """

    def __init__(self, bundle: Bundle, precision: str, *, words: int, steps: int) -> None:
        self._words, self._steps = words, steps
        runtime = Runtime(bundle, precision, Share(1, 1))
        decoder = runtime.read("decoder")
        split = split_decoder(
            runtime.read("encoder"),
            decoder,
            decoder_ports(decoder, "decoder", len(bundle.spec.alphabet) + 2),
            narrow=precision == "bf16",
        )
        self._encoder: Any = runtime.compile(split.encoder, cached=False).create_infer_request()
        self._step: Any = runtime.compile(split.step, cached=False).create_infer_request()
        settings = SpotterSettings(str(bundle.folder), precision=precision, max_steps=steps)
        self._recognizer = Recognizer(settings)
        rng = np.random.default_rng(0)
        self._features = np.abs(rng.standard_normal((words, 64, 28, 28))).astype(np.float32)

    def encode(self) -> int:
        """The encoders alone."""
        for _ in range(self._words):
            self._encoder.infer(share_outputs=True)
        return self._words

    def encode_and_step(self) -> int:
        """Encoders and decoder steps on prepared tensors."""
        for _ in range(self._words):
            self._encoder.infer(share_outputs=True)
            for _ in range(self._steps):
                self._step.infer(share_outputs=True)
        return self._words

    def recognise(self) -> int:
        """The recogniser: the same and all that makes words of it."""
        self._recognizer.read(self._features)
        return self._words
