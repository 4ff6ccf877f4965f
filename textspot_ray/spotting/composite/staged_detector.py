"""A one-stage detector's graph cut in two: finding words, and cutting out what is read of them.

The second half (the picture's pyramid, the refiner, crops and masks) is an eighth of a pass over
a picture without words, and does its work for every row of the graph, also for those below the
threshold. Cut off, it runs for the rows that are kept, if there are any. Boxes then differ in the
fourth decimal of a pixel from those of the whole graph, which is why fingerprints name it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from textspot_ray.spotting.composite.contract import DetectorPorts, show_score_map

_COLUMNS = 6  # of a row between the halves: centre, sides, angle, score
_SCORE = 5


@dataclass(frozen=True, slots=True)
class Halves:
    """The two graphs.

    Attributes:
        finding: The picture to rows [N, 6] and the score map.
        cutting: The picture and rows to the outputs of the contract, in the order of the whole.
    """

    finding: Any
    cutting: Any


def halves_of(model: Any, copy: Any, ports: DetectorPorts) -> Halves | None:
    """Cut a graph where it holds its words as rows; None where that cannot be told.

    Args:
        model: An ``openvino.Model`` with a score map; changed.
        copy: The same again; changed.
        ports: Of both.
    """
    rows, again, score_map = _rows(model), _rows(copy), show_score_map(copy)
    if rows is None or again is None or ports.im_info is not None or score_map is None:
        return None
    shown = copy.outputs[score_map].get_node()
    result = ops.result(again)
    result.set_friendly_name("rows")  # a number of the process's would miss the kept blob
    found = ov.Model([result, shown], copy.get_parameters(), "finding")
    given = ops.parameter([-1, _COLUMNS], np.float32, name="rows")
    for target in rows.get_target_inputs():
        target.replace_source_output(given.output(0))
    parameters = [*model.get_parameters(), given]
    return Halves(found, ov.Model(model.get_results(), parameters, "cutting"))


def _rows(model: Any) -> Any | None:
    """The one tensor [N, 6] that a gathering behind suppression gives."""
    found = [
        op.output(0)
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Gather" and _is_rows(op.output(0).get_partial_shape())
    ]
    suppressing = any(op.get_type_name() == "NMSRotated" for op in model.get_ordered_ops())
    return found[0] if len(found) == 1 and suppressing else None


def _is_rows(shape: Any) -> bool:
    if len(shape) != 2 or not shape[1].is_static or shape[0].is_static:
        return False
    return bool(shape[1].get_length() == _COLUMNS)


@dataclass(slots=True)
class _Empty:
    """Stands for an output tensor without rows."""

    data: NDArray[np.float32]


class StagedRequest:
    """Both halves' requests as one request of the whole graph, but for rows below the threshold.

    Args:
        finding: Request of the first half.
        cutting: Of the second.
        ports: Of the whole graph.
        score_map: Index that its score map has among the whole graph's outputs.
        threshold: Of rows that are kept.
    """

    def __init__(
        self, finding: Any, cutting: Any, ports: DetectorPorts, score_map: int, threshold: float
    ) -> None:
        self._finding = finding
        self._cutting = cutting
        self._ports = ports
        self._map = score_map
        self._threshold = threshold
        self._kept = 0

    def infer(self, inputs: dict[int, Any], **options: Any) -> None:
        """As an ``openvino.InferRequest`` does."""
        self._finding.infer(inputs, **options)
        rows = self._finding.get_output_tensor(0).data
        kept = rows[rows[:, _SCORE] > self._threshold]
        self._kept = len(kept)
        if self._kept:
            self._cutting.infer({**inputs, 1: kept}, **options)

    def get_output_tensor(self, index: int) -> Any:
        """Of the whole graph's outputs, by index."""
        if index == self._map:
            return self._finding.get_output_tensor(1)
        if self._kept:
            return self._cutting.get_output_tensor(index)
        sides = {
            self._ports.boxes: (5,),
            self._ports.masks: (28, 28),
            self._ports.features: (64, 28, 28),
        }
        return _Empty(np.zeros((0, *sides.get(index, ())), np.float32))
