"""The text-line detector: the window of an image in, lines in the window's pixels out."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.spotting.lines.contract import STRIDE
from textspot_ray.spotting.lines.db import DbRules, FoundLines, find_lines


@dataclass(frozen=True, slots=True)
class InputRule:
    """The size to which an image is resized; the limit of the longer side takes precedence.

    Attributes:
        shortest: Images are enlarged until their shorter side has this many pixels.
        longest: Images are shrunk until their longer side has this many pixels.
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
    """Holds the compiled detector and one request per stream; `detect` is thread-safe.

    Args:
        compiled: The compiled `detection_model`.
        rule: The input's size.
        rules: Of the post-processing.
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
        return FoundLines(found.corners * scale, found.scores, found.saturated, probability)


def detection_model(
    model: Any, mean: Sequence[float], std: Sequence[float], channels: str = "bgr"
) -> Any:
    """A detector that takes 1 x H x W x 3 bytes, BGR.

    Args:
        model: As published: it takes 1 x 3 x H x W floats.
        mean: Subtracted, 0 to 255, for each channel in the model's order.
        std: Divisor after that.
        channels: The model's order, bgr or rgb.
    """
    pre = ov.preprocess.PrePostProcessor(model)
    port = pre.input()
    port.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    port.model().set_layout(ov.Layout("NCHW"))
    steps = port.preprocess()
    if channels == "rgb":
        steps = steps.reverse_channels()
    steps.convert_element_type(ov.Type.f32).mean(list(mean)).scale(list(std))
    return pre.build()


def model_input(
    image: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], channels: str = "bgr"
) -> NDArray[np.float32]:
    """What `detection_model` gives the network of 1 x H x W x 3 bytes: 1 x 3 x H x W, float32."""
    ordered = image[..., ::-1] if channels == "rgb" else image
    planes = (ordered.astype(np.float32) - np.array(mean)) / np.array(std)
    return np.ascontiguousarray(planes.transpose(0, 3, 1, 2), np.float32)
