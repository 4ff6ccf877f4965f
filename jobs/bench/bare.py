"""The bare arithmetic: inferences on prepared tensors, with no pipeline around them.

What a pipeline can at best come near to at the same precision on the same cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from textspot_ray.spotting.bundle import Bundle
from textspot_ray.spotting.composite.contract import decoder_ports, detector_ports
from textspot_ray.spotting.composite.decoder_graph import split_decoder
from textspot_ray.spotting.runtime import Runtime, Share


class BareArithmetic:
    """Detector, encoders and cut decoder steps of images with a given number of words.

    The cores are used in one of two ways: each core has an inference of its own (streams), or all
    share one (a single stream). Callers time both and take the faster.

    Args:
        bundle: What to run.
        precision: Of the bundle.
        cores: How many to use.
        streams: ``cores`` or 1.
        boxes: Words an image; 0 leaves the reader out.
        steps: Decoder steps a word.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        *,
        cores: int,
        streams: int,
        boxes: int,
        steps: int,
    ) -> None:
        self._boxes, self._steps = boxes, steps
        runtime = Runtime(bundle, precision, Share(cores, streams))
        detector = runtime.read("detector")
        ports = detector_ports(detector, "detector")
        compiled = runtime.compile(detector, cached=False)
        self._detectors = [compiled.create_infer_request() for _ in range(streams)]
        rng = np.random.default_rng(0)
        shape = (1, 3, ports.height, ports.width)
        photo = rng.integers(0, 256, shape).astype(np.float32)
        for request in self._detectors:
            request.get_input_tensor(ports.image).data[...] = photo
            if ports.im_info is not None:
                info = np.array([[ports.height, ports.width, 1.0]], np.float32)
                request.get_input_tensor(ports.im_info).data[...] = info
        self._readers: list[tuple[Any, Any]] = []
        if boxes:
            decoder = runtime.read("decoder")
            symbols = len(bundle.spec.alphabet) + 2
            split = split_decoder(
                runtime.read("encoder"),
                decoder,
                decoder_ports(decoder, "decoder", symbols),
                narrow=precision == "bf16",
            )
            share = Share(cores, cores)
            encoder = runtime.compile(split.encoder, share=share, cached=False)
            step = runtime.compile(split.step, share=share, cached=False)
            self._readers = [
                (encoder.create_infer_request(), step.create_infer_request()) for _ in range(cores)
            ]

    def __call__(self, images: int) -> int:
        """Do the arithmetic of that many images; a multiple of the streams."""
        if len(self._detectors) == 1:
            for _ in range(images):
                self._detectors[0].infer(share_outputs=True)
                _side_by_side([self._words(i) for i in range(len(self._readers))])
            return images
        each = images // len(self._detectors)
        _side_by_side([self._stream(i, each) for i in range(len(self._detectors))])
        return each * len(self._detectors)

    def _words(self, reader: int) -> Callable[[], None]:
        """This reader's share of one image's words."""
        share = range(reader, self._boxes, len(self._readers))
        return lambda: self._read(reader, len(share))

    def _stream(self, number: int, images: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(images):
                self._detectors[number].infer(share_outputs=True)
                if self._readers:
                    self._read(number, self._boxes)

        return run

    def _read(self, reader: int, words: int) -> None:
        encoder, step = self._readers[reader]
        for _ in range(words):
            encoder.infer(share_outputs=True)
            for _ in range(self._steps):
                step.infer(share_outputs=True)


class DecoderSteps:
    """Decoder steps on one thread, as published and cut, fed with the same tensors.

    Args:
        bundle: What to run.
        precision: Of the bundle.
    """

    def __init__(self, bundle: Bundle, precision: str) -> None:
        runtime = Runtime(bundle, precision, Share(1, 1))
        decoder = runtime.read("decoder")
        self._ports = decoder_ports(decoder, "decoder", len(bundle.spec.alphabet) + 2)
        whole = split_decoder(runtime.read("encoder"), decoder, self._ports)
        narrow = precision == "bf16"
        split = split_decoder(runtime.read("encoder"), decoder, self._ports, narrow=narrow)
        self.invariants = split.invariants
        features = np.random.default_rng(0).standard_normal((1, 64, 28, 28)).astype(np.float32)
        encoder, plain = (
            runtime.compile(graphs.encoder, cached=False).create_infer_request()
            for graphs in (split, whole)
        )
        for request in (encoder, plain):
            request.infer({0: np.abs(features)})
        self._published = runtime.compile(decoder, cached=False).create_infer_request()
        self._cut = runtime.compile(split.step, cached=False).create_infer_request()
        ports = self._ports
        self._published.set_input_tensor(ports.encoded, plain.get_output_tensor(0))
        names = sorted((getattr(ports, n), n) for n in ("encoded", "symbol", "hidden"))
        order = [n for _, n in names if split.encoded_used or n != "encoded"]
        self._cut_symbol, self._cut_hidden = order.index("symbol"), order.index("hidden")
        if split.encoded_used:
            self._cut.set_input_tensor(order.index("encoded"), encoder.get_output_tensor(0))
        for i in range(split.invariants):
            self._cut.set_input_tensor(len(order) + i, encoder.get_output_tensor(1 + i))

    def published(self, steps: int) -> int:
        """That many steps of the decoder as it is published."""
        for _ in range(steps):
            self._published.infer(share_outputs=True)
        return steps

    def cut(self, steps: int) -> int:
        """That many steps without the step-independent part."""
        for _ in range(steps):
            self._cut.infer(share_outputs=True)
        return steps

    def largest_difference(self, steps: int) -> float:
        """Largest difference of logits along a greedy word of that many steps."""
        ports = self._ports
        ends = (
            (self._published, ports.symbol, ports.hidden),
            (self._cut, self._cut_symbol, self._cut_hidden),
        )
        symbol, hidden, worst = 0, np.zeros((1, 1, 256), np.float32), 0.0
        for _ in range(steps):
            seen = []
            for request, symbol_port, hidden_port in ends:
                request.get_input_tensor(symbol_port).data[...] = symbol
                request.get_input_tensor(hidden_port).data[...] = hidden
                request.infer(share_outputs=True)
                seen.append(request.get_output_tensor(ports.logits).data.copy())
            worst = max(worst, float(np.abs(seen[0] - seen[1]).max()))
            symbol = int(seen[0].argmax())
            hidden = self._published.get_output_tensor(ports.next_hidden).data.copy()
        return worst


def _side_by_side(work: list[Callable[[], None]]) -> None:
    if len(work) < 2:
        for one in work:
            one()
        return
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
