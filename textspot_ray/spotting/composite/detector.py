"""The compiled detector: a window of an image in, kept rows in the window's pixels out."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from textspot_ray.errors import BundleError
from textspot_ray.spotting.composite.contract import (
    DetectorPorts,
    detector_ports,
    show_score_map,
)
from textspot_ray.spotting.runtime import Runtime
from textspot_ray.spotting.settings import Resolved

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
Shape = tuple[int, int]  # width and height, px
_COPIES = 3  # of a pyramid, each half as large as the one before it
# A picture decoded a little too small for its first pass is enlarged by so much at most. Linear
# interpolation blurs it: of 35 words 6 to 14 px high, of street photos made large, 71 % then lifted
# the map above 0.2, 86 % with a cubic one or without enlargement.
_NEARLY = 1.1


@dataclass(frozen=True, slots=True)
class RawRows:
    """Rows above the threshold, copied out of the request's buffers.

    Attributes:
        boxes: N x 4, float64, in pixels of the window that was given.
        scores: N, float64.
        masks: N x 28 x 28, float32.
        features: N x 64 x 28 x 28, float32.
        saturated: Whether the model's limit of rows was met, so that words may be missing.
        evidence: H x W over the window, float32, 0 to 1: whether a place is inside a word; None
            where it was not asked for or the graph has no such map.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    masks: NDArray[np.float32]
    features: NDArray[np.float32]
    saturated: bool
    evidence: NDArray[np.float32] | None = None


class Detector:
    """Holds the compiled detector and one request a stream; `detect` may be called from threads.

    Where the bundle names several input shapes, the graph is reshaped to each at its first use.

    Args:
        resolved: Bundle, precision and threshold.
        runtime: Where to compile.

    Raises:
        BundleError: The detector breaks the contract or does not compile.
    """

    def __init__(self, resolved: Resolved, runtime: Runtime) -> None:
        spec = self._spec = resolved.bundle.spec
        self._threshold = resolved.detection_threshold
        self._runtime = runtime
        self._name = resolved.bundle.model_files(resolved.precision)["detector"].graph.file
        model = runtime.read("detector")
        self._ports = detector_ports(model, self._name)
        height = self._ports.height * 2 // 3 if spec.pyramid else self._ports.height
        # as large as a tile; the graph shows it larger by the bundle's enlargement
        self._shapes = tuple(
            (round(w / spec.enlargement), round(h / spec.enlargement))
            for w, h in spec.shapes or ((self._ports.width, height),)
        )
        self.has_score_map = show_score_map(model) is not None
        self._smaller = _smaller(self._shapes) if spec.shapes and self.has_score_map else ()
        self._lock = threading.Lock()
        self._own = threading.local()
        self._requests: dict[Shape, queue.SimpleQueue[Any]] = {}
        self.requests = self._compile(self._shapes[0], model)

    @property
    def input_size(self) -> Shape:
        """Width and height of a tile of the model's (first) input in pixels."""
        return self._shapes[0]

    def _enlarged(self, shape: Shape) -> Shape:
        return round(shape[0] * self._spec.enlargement), round(shape[1] * self._spec.enlargement)

    @property
    def zoom_below(self) -> float:
        """Height of words, input px, below which a pass of many is cut; 0 = never."""
        return self._spec.zoom_below

    @property
    def shrink_above(self) -> float:
        """Height of words, input px, above which a coarser pass sees them better; 0 = never, also
        where the graph has no smaller inputs to make one with."""
        return self._spec.shrink_above if self._smaller else 0.0

    def input_size_for(self, width: int, height: int) -> Shape:
        """The input that shows a window of that size largest, the first of equals."""
        return max(self._shapes, key=lambda shape: min(shape[0] / width, shape[1] / height))

    def tile_over(self, width: int, height: int, over: float) -> float:
        """How much a picture may be shrunk before it is tiled.

        With several shapes, a strip that fills only a share of its input is tiled earlier: at as
        many of its pixels a pass, which is the square root of that share, but not while it is seen
        at its own size.
        """
        if not self._spec.shapes:
            return over
        shape = self.input_size_for(width, height)
        scale = min(shape[0] / width, shape[1] / height)
        filled = width * height * scale**2 / (shape[0] * shape[1])
        return max(1.0, over * math.sqrt(filled))

    def small_size_for(self, width: int, height: int) -> Shape | None:
        """A quarter of that input, for windows around single hints; None where there is none."""
        shape = self.input_size_for(width, height)
        small = shape[0] // 2, shape[1] // 2
        return small if small in self._smaller else None

    def _smallest(self, hold: tuple[float, float], usual: Shape) -> Shape:
        """The smallest input that holds so many pixels, the usual one if none of the smaller."""
        width, height = hold[0] - 1, hold[1] - 1
        holding = [s for s in (*self._smaller, usual) if s[0] >= width and s[1] >= height]
        return min(holding, key=lambda s: s[0] * s[1], default=usual)

    def _compile(self, shape: Shape, model: Any) -> queue.SimpleQueue[Any]:
        width, height = self._enlarged(shape)
        rows = height * 3 // 2 if self._spec.pyramid else height
        if (self._ports.width, self._ports.height) != (width, rows):
            try:
                model.reshape({self._ports.image: [1, 3, rows, width]})
            except RuntimeError as exc:
                raise BundleError(
                    f"{self._name} cannot be reshaped to {width} x {height}, which bundle.yaml "
                    "names among its shapes"
                ) from exc
        self._map = show_score_map(model)
        compiled = self._runtime.compile(_takes_bytes(model, self._ports))
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._runtime.share.streams):
            requests.put(compiled.create_infer_request())
        self._requests[shape] = requests
        return requests

    def _requests_for(self, shape: Shape) -> queue.SimpleQueue[Any]:
        with self._lock:
            found = self._requests.get(shape)
            return found or self._compile(shape, self._runtime.read("detector"))

    def detect(
        self,
        window: NDArray[np.uint8],
        *,
        stretch: bool = True,
        hold: tuple[float, float] | None = None,
        fill: bool = True,
    ) -> RawRows:
        """Find words in a window.

        Args:
            window: H x W x 3, uint8, BGR.
            stretch: False = keep the aspect, whatever the bundle's rule says.
            hold: Width and height, input px, at which to show it, and that the map of scores is
                wanted; None: as large as any input shows it. The smallest input that holds it is
                taken.
            fill: Show it as large as that input does, rather than no larger than `hold`.
        """
        shape = self.input_size_for(window.shape[1], window.shape[0])
        stretch = stretch and self._spec.resize == "stretch"
        scale = min(shape[0] / window.shape[1], shape[1] / window.shape[0])
        shown_at = hold or (window.shape[1] * scale, window.shape[0] * scale)
        shape = self._smallest(shown_at, shape)
        shown = self._enlarged(shape)
        sharp = hold is not None
        if hold is None or fill:
            image, used_width, used_height = self._fit(window, shown, stretch, sharp)
        else:
            size = hold[0] * self._spec.enlargement, hold[1] * self._spec.enlargement
            image, used_width, used_height = self._placed(window, shown, size)
        rows = image.shape[0] * 3 // 2 if self._spec.pyramid else image.shape[0]
        planes = self._buffer("planes", (3, rows, image.shape[1]))
        if self._spec.pyramid:
            write_pyramid(image, planes)
        else:
            cv2.split(image, list(planes))
        inputs: dict[int, Any] = {self._ports.image: planes[np.newaxis]}
        if self._ports.im_info is not None:
            inputs[self._ports.im_info] = np.array([[used_height, used_width, 1.0]], np.float32)
        requests = self._requests_for(shape)
        request = requests.get()
        try:
            # outputs are read in place: a copy of 100 padded rows would be 20 MB an image
            request.infer(inputs, share_inputs=True, share_outputs=True)
            scale = window.shape[1] / used_width, window.shape[0] / used_height
            kept = self._kept(request, *scale)
            if hold is not None and self._map is not None:
                shares = used_width / shown[0], used_height / shown[1]
                kept = replace(kept, evidence=self._evidence(request, *shares))
            return kept
        finally:
            requests.put(request)

    def _fit(
        self, window: NDArray[np.uint8], shape: Shape, stretch: bool, sharp: bool
    ) -> tuple[NDArray[np.uint8], int, int]:
        """Resize, with zeros at the bottom or right if need be; also the picture's size in it."""
        width, height = shape
        rows, columns = window.shape[:2]
        if stretch:
            return self._resized(window, width, height, sharp), width, height
        scale = min(height / rows, width / columns)
        w = min(width, max(1, round(columns * scale)))
        h = min(height, max(1, round(rows * scale)))
        if max(width / w, height / h) <= self._spec.max_stretch:
            return self._resized(window, width, height, sharp), width, height
        return self._placed(window, shape, (w, h), sharp)

    def _placed(
        self,
        window: NDArray[np.uint8],
        shape: Shape,
        size: tuple[float, float],
        sharp: bool = False,
    ) -> tuple[NDArray[np.uint8], int, int]:
        """Resize to a size, with zeros beside it; also that size in pixels."""
        width, height = shape
        w = min(width, max(1, round(size[0])))
        h = min(height, max(1, round(size[1])))
        canvas = self._buffer("canvas", (height, width, 3))
        canvas[:h, :w] = self._resized(window, w, h, sharp)
        canvas[h:] = 0
        canvas[:h, w:] = 0
        return canvas, w, h

    def _buffer(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of the calling thread's own, as it last left it.

        Fresh ones of several megabytes a picture are given back to the system and mapped anew each
        time, page by page: 24 ms of a picture's 111 of CPU time, on a virtual machine.
        """
        buffer: NDArray[np.uint8] | None = getattr(self._own, name, None)
        if buffer is None or buffer.shape != shape:
            buffer = np.zeros(shape, np.uint8)
            setattr(self._own, name, buffer)
        return buffer

    def _resized(
        self, window: NDArray[np.uint8], width: int, height: int, sharp: bool
    ) -> NDArray[np.uint8]:
        """Resize; what has more pixels than a tile is made as small, and enlarged from there.

        Straight to the enlarged size, print of single dots stays rough, and 13 of 1,137 words of
        receipts kept aside were lost that this smoothing keeps.
        """
        rows, columns = window.shape[:2]
        larger = self._spec.enlargement
        tile = round(width / larger), round(height / larger)
        if tile[0] < columns or tile[1] < rows:
            how = _INTERPOLATION[self._spec.interpolation]
            window = np.asarray(cv2.resize(window, tile, interpolation=how), np.uint8)
            how = cv2.INTER_LINEAR
        else:  # area averaging is only defined for shrinking
            nearly = sharp and tile[0] <= _NEARLY * columns and tile[1] <= _NEARLY * rows
            how = cv2.INTER_CUBIC if nearly else cv2.INTER_LINEAR
        if window.shape[1::-1] == (width, height):
            return np.ascontiguousarray(window)
        buffer = self._buffer("resized", (height, width, 3))
        return np.asarray(cv2.resize(window, (width, height), buffer, interpolation=how), np.uint8)

    def _kept(self, request: Any, scale_x: float, scale_y: float) -> RawRows:
        ports = self._ports
        rows = request.get_output_tensor(ports.boxes).data
        scores = rows[:, 4].astype(np.float64)
        # padding rows have score 0; NaN compares false, so a broken row is no row either
        keep = np.flatnonzero((scores > self._threshold) & (scores > 0))
        boxes = rows[keep, :4].astype(np.float64) * (scale_x, scale_y, scale_x, scale_y)
        keep = keep[np.isfinite(boxes).all(axis=1)]
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        # indexing copies: the buffers belong to the request's next image
        return RawRows(
            boxes=boxes,
            scores=scores[keep],
            masks=request.get_output_tensor(ports.masks).data[keep].astype(np.float32, copy=False),
            features=request.get_output_tensor(ports.features)
            .data[keep]
            .astype(np.float32, copy=False),
            saturated=len(keep) >= self._spec.max_rows,
        )

    def _evidence(self, request: Any, used_x: float, used_y: float) -> NDArray[np.float32]:
        """The part of the score map that lies over the picture, as probabilities."""
        logits = request.get_output_tensor(self._map).data[0, 0]
        rows, columns = math.ceil(logits.shape[0] * used_y), math.ceil(logits.shape[1] * used_x)
        logits = logits[:rows, :columns].astype(np.float32).clip(-30, 30)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _smaller(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Further inputs of a detector that takes several: halves of each, and 4:3 out of 5:3.

    Those whose sides are no multiples of 128 are left out: the bundle's are such multiples, and
    says of no others that it takes them.
    """
    found = {(w // 2, h // 2) for w, h in shapes}
    found |= {(w * 4 // 5, h) for w, h in shapes if w > h} | {
        (w, h * 4 // 5) for w, h in shapes if h > w
    }
    return tuple(sorted(s for s in found - set(shapes) if s[0] % 128 == s[1] % 128 == 0))


def _takes_bytes(model: Any, ports: DetectorPorts) -> Any:
    """Let the graph take bytes: a quarter of the traffic, no conversion in Python."""
    pre = ov.preprocess.PrePostProcessor(model)
    pre.input(ports.image).tensor().set_element_type(ov.Type.u8)
    return pre.build()


def pyramid(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [H, W, 3] above its copies at 1/2, 1/4 and 1/8, side by side: [3, H + H/2, W]."""
    packed = np.zeros((3, image.shape[0] * 3 // 2, image.shape[1]), np.uint8)
    write_pyramid(image, packed)
    return packed


def write_pyramid(image: NDArray[np.uint8], packed: NDArray[np.uint8]) -> None:
    """Write what `pyramid` gives; what lies beside the copies stays.

    Large words are cut from the copies. Averaging bytes here takes a ninth of what pooling and
    joining floating-point planes takes within the graph (1.5 ms of 13 for 1600 x 960).
    """
    rows = image.shape[0]
    cv2.split(image, list(packed[:, :rows]))
    left = 0
    for _ in range(_COPIES):
        width, height = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        packed[:, rows : rows + height, left : left + width] = image.transpose(2, 0, 1)
        left += width
