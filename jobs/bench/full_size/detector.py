"""The published detector, layer for layer, with seeded random weights.

It is what 0003, 0004 and 0005 share (the Open Model Zoo's composite; Mask R-CNN with ResNet-50, FPN
of 64 channels; its reader is in :mod:`jobs.bench.full_size.reader`). The weights cannot be
fetched everywhere, so tests and benchmarks run on this: the same names, shapes, operators,
parameter and FLOP sums. It reads nothing. Buildable with OpenVINO and numpy alone.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino.utils.node_factory import NodeFactory

from jobs.bench.full_size.layers import CHANNELS, FullModel, Layers, Node, named_result
from textspot_ray.spotting.composite.contract import INPUT_HEIGHT, INPUT_WIDTH

MAX_ROWS = 100
PROPOSALS = 300
# ImageNet statistics of RGB values in 0..255, as written into the published graphs
MEAN = (123.675, 116.28, 103.53)
SCALE = (58.395, 57.12, 57.375)
STRIDES = (4, 8, 16, 32, 64)
_SURE = 30.0  # a logit so large that random weights cannot outvote it


def build_detector(
    *, boxes: int = 10, signature: str = "image", dynamic_rows: bool = False, seed: int = 0
) -> FullModel:
    """Build the detector.

    Args:
        boxes: Rows that pass the score threshold on any image, 0 to 100.
        signature: ``image`` (one input, as the published files have it) or ``im_data`` (with
            ``im_info`` 1 x 3: height, width, scale; as the published page says).
        dynamic_rows: Only the rows found, instead of 100 rows padded with score 0.
        seed: Of the weights.
    """
    if not 0 <= boxes <= MAX_ROWS:
        raise ValueError(f"boxes must be 0 to {MAX_ROWS}, not {boxes}")
    layers = Layers(seed)
    factory = NodeFactory("opset6")
    name = "image" if signature == "image" else "im_data"
    image = ops.parameter([1, 3, INPUT_HEIGHT, INPUT_WIDTH], np.float32, name=name)
    image.output(0).set_names({name})
    inputs = [image]
    if signature == "im_data":
        im_info = ops.parameter([1, 3], np.float32, name="im_info")
        im_info.output(0).set_names({"im_info"})
        inputs.append(im_info)
        size = ops.squeeze(im_info, ops.constant(np.array([0], np.int64)))
    else:
        size = ops.constant(np.array([INPUT_HEIGHT, INPUT_WIDTH, 1.0], np.float32))
    pyramid = _pyramid(layers, _backbone(layers, _normalise(image)))
    rois = _proposals(layers, factory, image, size, pyramid, boxes)
    detections, classes, scores = _box_head(layers, factory, rois, size, pyramid, boxes)
    if dynamic_rows:
        found = ops.squeeze(
            ops.non_zero(ops.greater(scores, ops.constant(np.float32(0))), output_type="i64"),
            ops.constant(np.array([0], np.int64)),
        )
        zero = ops.constant(np.int64(0))
        detections, classes, scores = (
            ops.gather(x, found, zero) for x in (detections, classes, scores)
        )
    masks = _masks(layers, factory, detections, pyramid)
    features = _roi_features(factory, detections, pyramid, 28)
    rows = ops.concat([detections, ops.unsqueeze(scores, ops.constant(np.int64(1)))], 1)
    text_features = "text_features" if signature == "image" else "text_features.0"
    outputs = {"labels": classes, "boxes": rows, "masks": masks, text_features: features}
    model = ov.Model([named_result(x, n) for n, x in outputs.items()], inputs, "detector")
    return FullModel(model, layers.parameters, layers.macs)


def _normalise(image: Node) -> Node:
    """BGR 0..255 to RGB of zero mean and unit variance."""
    order = ops.constant(np.array([2, 1, 0], np.int64))
    rgb = ops.gather(image, order, ops.constant(np.int64(1)))
    mean = ops.constant(np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
    scale = ops.constant(np.array(SCALE, np.float32).reshape(1, 3, 1, 1))
    return ops.divide(ops.subtract(rgb, mean), scale)


def _backbone(layers: Layers, x: Node) -> list[Node]:
    """ResNet-50 (He et al. 2016), the stride on the 3x3 convolution; C2..C5."""
    layers.block = "backbone"
    x = layers.convolution(x, (64, 3, 7, 7), stride=2)
    x = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3])
    # max_pool of the newer opsets returns values and indices
    x, channels, stages = x.output(0), 64, []
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = layers.convolution(x, (width, channels, 1, 1))
            y = layers.convolution(y, (width, width, 3, 3), stride=stride)
            # a small gain on the last convolution keeps the random residual sum from growing
            y = layers.convolution(y, (4 * width, width, 1, 1), relu=False, gain=0.3)
            if not block:
                x = layers.convolution(x, (4 * width, channels, 1, 1), stride=stride, relu=False)
                channels = 4 * width
            x = ops.relu(ops.add(x, y))
        stages.append(x)
    return stages


def _pyramid(layers: Layers, stages: list[Node]) -> list[Node]:
    """FPN of 64 channels without norm or activation; P2..P6."""
    layers.block = "fpn"
    laterals = [
        layers.convolution(x, (CHANNELS, 256 << i, 1, 1), relu=False) for i, x in enumerate(stages)
    ]
    for i in range(len(laterals) - 1, 0, -1):
        doubled = ops.interpolate(
            laterals[i],
            ops.constant(np.array([2.0, 2.0], np.float32)),
            "nearest",
            "scales",
            axes=ops.constant(np.array([2, 3], np.int64)),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        laterals[i - 1] = ops.add(laterals[i - 1], doubled)
    pyramid = [layers.convolution(x, (CHANNELS, CHANNELS, 3, 3), relu=False) for x in laterals]
    coarsest = ops.max_pool(pyramid[-1], [2, 2], [1, 1], [0, 0], [0, 0], [1, 1])
    return [*pyramid, coarsest.output(0)]


def _anchors(stride: int) -> NDArray[np.float32]:
    """Three anchors of a cell as corners about its centre: scale 8, height/width 0.5, 1, 2."""
    side = 8.0 * stride
    boxes = []
    for ratio in (0.5, 1.0, 2.0):
        width, height = side / np.sqrt(ratio), side * np.sqrt(ratio)
        boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    # the operator centres at (i + 0.5) * stride, the published anchors at i * stride
    return np.array(boxes, np.float32) - 0.5 * stride


def _planted(boxes: int) -> NDArray[np.float32]:
    """Objectness offsets of the stride-16 level that make `boxes` places the surest proposals.

    The places lie on a lattice so wide that their boxes do not overlap.
    """
    offsets = np.zeros((1, 3, INPUT_HEIGHT // 8, INPUT_WIDTH // 8), np.float32)
    rows, columns = 10, 10
    for i in range(boxes):
        y = int((i // columns + 0.5) * INPUT_HEIGHT / rows / 8)
        x = int((i % columns + 0.5) * INPUT_WIDTH / columns / 8)
        offsets[0, 0, y, x] = _SURE
    return offsets


def _proposals(
    layers: Layers, factory: NodeFactory, image: Node, size: Node, pyramid: list[Node], boxes: int
) -> Node:
    """The region proposal network, shared over five levels; 300 x 4 regions of interest."""
    layers.block = "rpn"
    shared = layers.parameters.get("rpn", 0)
    rois, scores = [], []
    for level, (stride, features) in enumerate(zip(STRIDES, pyramid, strict=True)):
        layers.block = "rpn"
        head = Layers(layers.seed + 3, "rpn")  # the same seed a level: shared weights
        x = head.convolution(features, (CHANNELS, CHANNELS, 3, 3))
        objectness = head.convolution(x, (3, CHANNELS, 1, 1), relu=False, gain=0.05)
        deltas = head.convolution(x, (12, CHANNELS, 1, 1), relu=False, gain=0.01)
        if level == 1:
            objectness = ops.add(objectness, ops.constant(_planted(boxes)))
        layers.macs["rpn"] = layers.macs.get("rpn", 0) + head.macs["rpn"]
        layers.parameters["rpn"] = shared + head.parameters["rpn"]
        prior = ops.constant(_anchors(stride))
        anchors = factory.create(
            "ExperimentalDetectronPriorGridGenerator",
            [prior.output(0), _out(features), image.output(0)],
            {"flatten": True, "h": 0, "w": 0, "stride_x": float(stride), "stride_y": float(stride)},
        )
        probabilities = ops.sigmoid(objectness)
        squeeze = ops.constant(np.array([0], np.int64))
        found = factory.create(
            "ExperimentalDetectronGenerateProposalsSingleImage",
            [
                size.output(0),
                anchors.output(0),
                ops.squeeze(deltas, squeeze).output(0),
                ops.squeeze(probabilities, squeeze).output(0),
            ],
            {
                "min_size": 0.0,
                "nms_threshold": 0.7,
                "post_nms_count": PROPOSALS,
                "pre_nms_count": PROPOSALS,
            },
        )
        rois.append(found.output(0))
        scores.append(found.output(1))
    best = factory.create(
        "ExperimentalDetectronTopKROIs",
        [ops.concat(rois, 0).output(0), ops.concat(scores, 0).output(0)],
        {"max_rois": PROPOSALS},
    )
    return best


def _out(x: Node) -> Node:
    return x if isinstance(x, ov.Output) else x.output(0)


def _roi_features(factory: NodeFactory, rois: Node, pyramid: list[Node], side: int) -> Node:
    """RoIAlign of P2..P5, one level a region, adaptive sampling, aligned corners."""
    return factory.create(
        "ExperimentalDetectronROIFeatureExtractor",
        [_out(rois), *(_out(x) for x in pyramid[:4])],
        {
            "output_size": side,
            "sampling_ratio": 0,
            "pyramid_scales": [4, 8, 16, 32],
            "aligned": True,
        },
    ).output(0)


def _box_head(
    layers: Layers, factory: NodeFactory, rois: Node, size: Node, pyramid: list[Node], boxes: int
) -> tuple[Node, Node, Node]:
    """Two hidden layers of 512, scores and deltas; boxes [100,4], classes [100], scores [100]."""
    layers.block = "box_head"
    x = _roi_features(factory, rois, pyramid, 7)
    x = ops.reshape(x, ops.constant(np.array([-1, CHANNELS * 49], np.int64)), False)
    x = layers.dense(x, 512, CHANNELS * 49, relu=True, rows=PROPOSALS)
    x = layers.dense(x, 512, 512, relu=True, rows=PROPOSALS)
    logits = layers.dense(x, 2, 512, gain=0.01, rows=PROPOSALS)
    deltas = layers.dense(x, 4, 512, gain=0.001, rows=PROPOSALS)
    # proposals come surest first, so the planted ones are the first rows
    votes = np.full((PROPOSALS, 2), [-_SURE, _SURE], np.float32)
    votes[:boxes] = [_SURE, -_SURE]
    scores = ops.softmax(ops.add(logits, ops.constant(votes)), 1)
    # the operator counts class 0 as background; text is class 0 here, so text goes second
    flipped = ops.gather(
        scores, ops.constant(np.array([1, 0], np.int64)), ops.constant(np.int64(1))
    )
    found = factory.create(
        "ExperimentalDetectronDetectionOutput",
        [
            _out(rois),
            ops.concat([deltas, deltas], 1).output(0),
            flipped.output(0),
            ops.unsqueeze(size, ops.constant(np.int64(0))).output(0),
        ],
        {
            "score_threshold": 0.5,
            "nms_threshold": 0.5,
            "max_delta_log_wh": float(np.log(1000.0 / 16.0)),
            "num_classes": 2,
            "post_nms_count": MAX_ROWS,
            "max_detections_per_image": MAX_ROWS,
            "class_agnostic_box_regression": False,
            "deltas_weights": [10.0, 10.0, 5.0, 5.0],
        },
    )
    label = ops.subtract(found.output(1), ops.constant(np.int32(1)))
    return found.output(0), ops.maximum(label, ops.constant(np.int32(0))), found.output(2)


def _masks(layers: Layers, factory: NodeFactory, detections: Node, pyramid: list[Node]) -> Node:
    """Four convolutions on 14 x 14, doubled to 28 x 28, sigmoid; [N,28,28]."""
    layers.block = "mask_head"
    x = _roi_features(factory, detections, pyramid, 14)
    for _ in range(4):
        x = layers.convolution(x, (CHANNELS, CHANNELS, 3, 3), rows=MAX_ROWS)
    x = layers.transposed(x, CHANNELS, rows=MAX_ROWS)
    # a bias of one: random masks then cover most of their box, as a word's mask does
    bias = np.ones(1, np.float32)
    x = layers.convolution(x, (1, CHANNELS, 1, 1), relu=False, gain=0.3, bias=bias, rows=MAX_ROWS)
    return ops.squeeze(ops.sigmoid(x), ops.constant(np.array([1], np.int64)))
