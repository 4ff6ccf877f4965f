"""The published demo's way of running the composite, written anew as the baseline.

One image, one box, one decoder step at a time, in f32, OpenVINO's defaults otherwise: resize to the
input, planar float32, infer, mask the rows above the threshold, paste each mask into an image-sized
one, then encoder and decoder steps in turn with a softmax in numpy (Open Model Zoo,
demos/text_spotting_demo).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from textspot_ray.spotting.bundle import Bundle
from textspot_ray.spotting.composite.contract import decoder_ports, detector_ports
from textspot_ray.spotting.runtime import shared_core

_END = 1


class DemoWay:
    """Spots images as the demo does.

    Args:
        bundle: Its f32 files are run, in f32.
        max_steps: Steps a word at most.
    """

    def __init__(self, bundle: Bundle, max_steps: int) -> None:
        core = shared_core()
        files = bundle.model_files("f32")
        models = {
            part: core.read_model(str(bundle.path(files[part].graph)))
            for part in ("detector", "encoder", "decoder")
        }
        alphabet = bundle.spec.alphabet
        self._detector_ports = detector_ports(models["detector"], "detector")
        self._decoder_ports = decoder_ports(models["decoder"], "decoder", len(alphabet) + 2)
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        self._detector, self._encoder, self._decoder = (
            core.compile_model(model, "CPU", options) for model in models.values()
        )
        self._alphabet = alphabet
        self._threshold = bundle.spec.detection_threshold
        self._max_steps = max_steps

    def __call__(self, path: Path) -> list[tuple[str, float]]:
        """Words of one image with their confidences."""
        image = cv2.imread(str(path))
        assert image is not None
        ports = self._detector_ports
        scale_x, scale_y = ports.width / image.shape[1], ports.height / image.shape[0]
        resized = cv2.resize(image, (ports.width, ports.height))
        planar = resized.transpose((2, 0, 1))[np.newaxis].astype(np.float32)
        inputs: dict[int, Any] = {ports.image: planar}
        if ports.im_info is not None:
            inputs[ports.im_info] = np.array([[ports.height, ports.width, 1.0]], np.float32)
        out = self._detector(inputs)
        boxes, masks, features = (out[i] for i in (ports.boxes, ports.masks, ports.features))
        kept = boxes[:, 4] > self._threshold
        boxes, masks, features = boxes[kept, :4], masks[kept], features[kept]
        boxes[:, 0::2] /= scale_x
        boxes[:, 1::2] /= scale_y
        for box, mask in zip(boxes, masks, strict=True):
            _paste(box, mask, image.shape[0], image.shape[1])
        return [self._read(feature) for feature in features]

    def _read(self, feature: NDArray[np.float32]) -> tuple[str, float]:
        ports = self._decoder_ports
        encoded = self._encoder({0: feature[np.newaxis]})[0]
        encoded = encoded.reshape(1, 256, -1).transpose(0, 2, 1)
        hidden = np.zeros((1, 1, 256), np.float32)
        symbol = np.zeros(ports.symbol_shape, ports.symbol_type)
        text, confidence = "", 1.0
        for _ in range(self._max_steps):
            out = self._decoder(
                {ports.symbol: symbol, ports.hidden: hidden, ports.encoded: encoded}
            )
            logits = out[ports.logits].reshape(-1)
            exponents = np.exp(logits - logits.max())
            best = int(logits.argmax())
            confidence *= float(exponents[best] / exponents.sum())
            if best == _END:
                break
            text += self._alphabet[best - 2] if best > _END else "_"
            symbol = np.full(ports.symbol_shape, best, ports.symbol_type)
            hidden = out[ports.next_hidden]
        return text, confidence


def _paste(
    box: NDArray[np.float32], mask: NDArray[np.float32], height: int, width: int
) -> NDArray[np.uint8]:
    """The demo's image-sized mask: a ring of zeros, the box grown by 30/28, bilinear, > 0.5."""
    ringed = np.pad(mask, 1)
    centre = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * (30 / 28)
    x0, y0, x1, y1 = (int(v) for v in (*(centre - half), *(centre + half)))
    w, h = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
    large = (cv2.resize(ringed, (w, h)) > 0.5).astype(np.uint8)
    canvas = np.zeros((height, width), np.uint8)
    left, top = min(max(x0, 0), width), min(max(y0, 0), height)
    right, bottom = min(max(x1 + 1, 0), width), min(max(y1 + 1, 0), height)
    canvas[top:bottom, left:right] = large[top - y0 : bottom - y0, left - x0 : right - x0]
    return canvas
