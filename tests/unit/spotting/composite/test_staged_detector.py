"""A detector cut in two gives what the whole one gives of the rows above the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from textspot_ray.spotting.composite.contract import detector_ports, show_score_map
from textspot_ray.spotting.composite.staged_detector import StagedRequest, halves_of
from textspot_ray.spotting.runtime import shared_core

SIDE = 64
SCORES = (0.9, 0.7, 0.4)


def graph(*, staged: bool = True) -> ov.Model:
    """Three words of fixed places; their scores fall with the picture's first pixel."""
    image = ops.parameter([1, 3, SIDE, SIDE], np.float32, name="image")
    image.output(0).tensor.set_names({"image"})
    pooled = ops.avg_pool(image, [4, 4], [0, 0], [0, 0], [4, 4], True)
    maps = ops.concat([pooled, pooled, pooled], 1)
    if staged:
        maps.output(0).tensor.set_names({"maps"})
    first = ops.squeeze(
        ops.slice(maps, *[np.array(v, np.int64) for v in ([0, 0, 0, 0], [1, 1, 1, 1])], [1] * 4),
        np.array([0, 1], np.int64),
    )
    places = np.array([[20 * i + 10, 20, 8, 6, 0, 0] for i in range(3)], np.float32)
    scores = ops.multiply(first, ops.constant(np.array([SCORES], np.float32).T))
    columns = ops.concat([ops.constant(places[:, :5]), scores], 1)
    boxes = ops.unsqueeze(ops.constant(places[:, :5]), np.array(0, np.int64))
    nms = ops.nms_rotated(
        boxes,
        ops.unsqueeze(ops.transpose(scores, np.array([1, 0])), np.array(0)),
        np.array(10, np.int64),
        np.array(0.5, np.float32),
        np.array(0.3, np.float32),
        sort_result_descending=True,
        output_type="i64",
    )
    one = np.array([1], np.int64)
    count = ops.convert(nms.output(2), "i64")
    real = ops.slice(nms.output(0), np.array([0], np.int64), count, one, np.array([0], np.int64))
    third = ops.slice(real, np.array([2]), np.array([3]), one, one)
    rows = ops.gather(columns, ops.squeeze(third, np.array([1])), np.array(0, np.int64))
    plane = ops.unsqueeze(ops.slice(rows, [0], [1], [1], [1]), np.array(2, np.int64))  # N x 1 x 1
    masks = ops.broadcast(
        plane, ops.concat([ops.gather(ops.shape_of(rows), [0], 0), np.array([28, 28])], 0)
    )
    shape = ops.concat([ops.gather(ops.shape_of(rows), [0], 0), np.array([64, 28, 28])], 0)
    features = ops.broadcast(ops.unsqueeze(plane, np.array(3, np.int64)), shape)
    corners = ops.gather(rows, np.array([0, 1, 2, 3, 5], np.int64), np.array(1, np.int64))
    results = []
    for name, node in (("boxes", corners), ("masks", masks), ("text_features", features)):
        node.output(0).tensor.set_names({name})
        results.append(ops.result(node))
    return ov.Model(results, [image], "staged")


def compiled(model: Any) -> Any:
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return shared_core().compile_model(model, "CPU", options).create_infer_request()


@pytest.mark.parametrize(("level", "rows"), [(1.0, 2), (0.8, 1), (0.5, 0), (0.0, 0)])
def test_halves_give_the_rows_that_are_kept(level: float, rows: int) -> None:
    whole = graph()
    ports = detector_ports(whole, "x")
    score_map = show_score_map(whole)
    assert score_map == 3
    halves = halves_of(graph(), graph(), ports)
    assert halves is None or len(halves.finding.outputs) == 2
    model, copy = graph(), graph()
    show_score_map(model)
    halves = halves_of(model, copy, ports)
    assert halves is not None
    staged = StagedRequest(
        compiled(halves.finding), compiled(halves.cutting), ports, score_map, 0.6
    )
    request, picture = compiled(whole), np.full((1, 3, SIDE, SIDE), level, np.float32)
    request.infer({0: picture})
    staged.infer({0: picture}, share_inputs=True, share_outputs=True)
    kept = request.get_output_tensor(ports.boxes).data[:, 4] > 0.6
    assert int(kept.sum()) == rows
    for index in (ports.boxes, ports.masks, ports.features):
        wanted = request.get_output_tensor(index).data[kept]
        found = staged.get_output_tensor(index).data
        assert found.shape == wanted.shape
        assert np.allclose(found, wanted)
    shown = staged.get_output_tensor(score_map).data
    assert np.array_equal(shown, request.get_output_tensor(score_map).data)


def test_a_graph_without_a_map_stays_whole() -> None:
    model = graph(staged=False)
    assert show_score_map(model) is None
    assert halves_of(model, graph(staged=False), detector_ports(model, "x")) is None
