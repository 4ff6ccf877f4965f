"""The text-line detector: the window of an image in, lines in the window's pixels out."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.spotting.lines.contract import STRIDE
from textspot_ray.spotting.lines.db import DbRules, FoundLines, find_lines

# ImageNet's, for 0..255: what the makers trained with
_MEAN_RGB = [123.675, 116.28, 103.53]
_STD_RGB = [58.395, 57.12, 57.375]


@dataclass(frozen=True, slots=True)
class InputRule:
    """The size at which an image is looked at; the longest side's limit comes first.

    Attributes:
        shortest: Smaller images are enlarged until their shorter side has so many pixels.
        longest: Larger images are shrunk until their longer side has so many pixels.
    """

    shortest: int = 736
    longest: int = 1600

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the model's input for an image, multiples of 32."""
        scale = max(1.0, self.shortest / min(width, height))
        scale = min(scale, self.longest / max(width, height))
        return _fitting(width * scale), _fitting(height * scale)


def _fitting(side: float) -> int:
    return max(STRIDE, round(side / STRIDE) * STRIDE)


class LineDetector:
    """Holds the compiled detector and one request a stream; `detect` may be called from threads.

    Args:
        compiled: The compiled `detection_model`.
        rule: The input's size.
        rules: What makes a line.
        streams: Requests.
    """

    def __init__(self, compiled: Any, rule: InputRule, rules: DbRules, streams: int) -> None:
        self._rule = rule
        self._rules = rules
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self.requests.put(compiled.create_infer_request())

    def detect(self, window: NDArray[np.uint8]) -> FoundLines:
        """Find lines in a window.

        Args:
            window: H x W x 3, uint8, BGR.

        Returns:
            Corners in pixels of the window.
        """
        rows, columns = window.shape[:2]
        width, height = self._rule.size(columns, rows)
        image = np.ascontiguousarray(window)
        if (columns, rows) != (width, height):
            image = np.asarray(cv2.resize(window, (width, height)), np.uint8)
        request = self.requests.get()
        try:
            request.infer({0: image[np.newaxis]}, share_inputs=True, share_outputs=True)
            # the buffer belongs to the request's next image
            probability = request.get_output_tensor(0).data[0, 0].copy()
        finally:
            self.requests.put(request)
        found = find_lines(probability, self._rules)
        scale = np.array((columns / width, rows / height), np.float32)
        return FoundLines(found.corners * scale, found.scores, found.saturated)


def detection_model(model: Any) -> Any:
    """A detector that takes 1 x H x W x 3 bytes, BGR."""
    pre = ov.preprocess.PrePostProcessor(model)
    port = pre.input()
    port.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    port.tensor().set_color_format(ov.preprocess.ColorFormat.BGR)
    port.model().set_layout(ov.Layout("NCHW"))
    steps = port.preprocess().convert_element_type(ov.Type.f32)
    steps.convert_color(ov.preprocess.ColorFormat.RGB).mean(_MEAN_RGB).scale(_STD_RGB)
    return pre.build()


def model_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `detection_model` gives the network of 1 x H x W x 3 bytes: 1 x 3 x H x W, float32."""
    rgb = (image[..., ::-1].astype(np.float32) - _MEAN_RGB) / _STD_RGB
    return np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), np.float32)
