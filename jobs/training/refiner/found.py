"""Where a detector finds words before its refiner moves them: what the refiner sees in use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from jobs.training.data.datasets import ByteArray, FloatArray, PhotoWord, rect_corners
from jobs.training.detector.scores import quad_iou
from textspot_ray.errors import UsageError
from textspot_ray.spotting.composite.detector import pyramid

BEFORE_REFINER = 1  # which of the graph's suppressions gives what the refiner sees
LEAST_IOU = 0.25  # of a found rectangle with the word that it is taken to mean
# A rectangle that means two words about as much is one that joins them: no corners are right.
MOST_SECOND_IOU = 0.2


class FoundRectangles:
    """Runs a detector's graph up to its refiner, on square crops of one size.

    Args:
        detector: The detector's IR, as `assemble_detector` made it.
        size_px: Side of the crops, a multiple of 32 and at least 448: the graph takes the best
            3,000 of its cells of 8 px.

    Raises:
        UsageError: the graph has no suppression whose rows could be taken.
    """

    def __init__(self, detector: Path, size_px: int) -> None:
        core = ov.Core()
        model = core.read_model(detector)
        found = [op for op in model.get_ordered_ops() if op.get_type_name() == "NMSRotated"]
        if len(found) <= BEFORE_REFINER:
            raise UsageError(f"{detector} is no detector of this project")
        rows = _gathered(found[BEFORE_REFINER])
        model = ov.Model([rows], model.get_parameters(), "found")
        model.reshape([1, 3, size_px * 3 // 2, size_px])
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(model, "CPU", options)

    def rects(self, image: ByteArray) -> list[FloatArray]:
        """Rectangles [4, 2] found in a crop [size, size, 3], in its pixels, best first."""
        rows = self._compiled([pyramid(image)[np.newaxis]])[0]
        return [
            rect_corners((float(x), float(y)), (float(w), float(h)), float(np.degrees(angle)))
            for x, y, w, h, angle, _ in rows
        ]


def _gathered(suppression: ov.Node) -> ov.Output:
    """The rows [K, 6] that a suppression keeps: its selection goes into one Gather."""
    reach = [suppression]
    while reach:
        node = reach.pop(0)
        for output in node.outputs():
            for target in output.get_target_inputs():
                after = target.get_node()
                if after.get_type_name() == "Gather" and target.get_index() == 1:
                    return after.output(0)
                reach.append(after)
    raise UsageError("nothing gathers what the detector's last suppression keeps")


def matched(
    rects: Sequence[FloatArray], words: Sequence[PhotoWord]
) -> list[tuple[FloatArray, FloatArray]]:
    """Pairs of a found rectangle and the quad of the word it means; joined words mean none.

    Args:
        rects: [4, 2] each.
        words: All words of the crop, illegible ones included.
    """
    lows = np.array([word.quad.min(0) for word in words], np.float32).reshape(-1, 2)
    highs = np.array([word.quad.max(0) for word in words], np.float32).reshape(-1, 2)
    pairs = []
    for rect in rects:
        meet = (highs > rect.min(0)).all(1) & (lows < rect.max(0)).all(1)
        ious = {int(i): quad_iou(rect, words[i].quad) for i in np.flatnonzero(meet)}
        if not ious:
            continue
        best = max(ious, key=lambda i: ious[i])
        second = max((iou for i, iou in ious.items() if i != best), default=0.0)
        if ious[best] >= LEAST_IOU and second <= MOST_SECOND_IOU and _same_way(rect, words[best]):
            pairs.append((rect, words[best].quad))
    return pairs


def _same_way(rect: FloatArray, word: PhotoWord) -> bool:
    """Whether text is read along both within 45 degrees."""
    a = rect[1] - rect[0]
    b = word.quad[1] - word.quad[0]
    return float(a @ b) > 0.7 * float(np.hypot(*a) * np.hypot(*b))
