# mypy: disable-error-code="misc"
"""The detector as the bundle's contract wants it: trunk, selection, masks and features in one IR.

All arithmetic is the torch code that validation runs, converted; the one thing torch lacks,
NMSRotated, is an OpenVINO operation between the converted pieces.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13, opset15
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.training.detector.network import ENLARGEMENT, INPUT_SHAPES, MAP_CHANNELS, STRIDE_PX
from jobs.training.detector.selection import (
    FIRST_KEPT,
    FIRST_NMS_IOU,
    LAST_NMS_IOU,
    MAX_CANDIDATES,
    MAX_WORDS,
    REFINED_NMS_IOU,
    candidates,
    corners,
    vote,
)
from jobs.training.refiner.network import LOOKS, REFINER_PATCH, place
from jobs.training.refiner.rectification import (
    READER_PATCH,
    PatchShape,
    pyramid_level,
    shape_codes,
    shape_plane,
    side_lengths,
)
from textspot_ray.spotting.composite.contract import MASK_SIDE

INPUT_SHAPE = (1, 3, INPUT_SHAPES[0][1], INPUT_SHAPES[0][0])
ANY_IMAGE = (1, 3, -1, -1)
TYPES = {torch.float32: ov.Type.f32, torch.int64: ov.Type.i64, torch.uint8: ov.Type.u8}


class _Candidates(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return candidates(maps)


class _Vote(nn.Module):
    def forward(self, kept: Tensor, voters: Tensor) -> Tensor:
        return vote(kept, voters)


class _Picture(nn.Module):
    def forward(self, packed: Tensor) -> Tensor:
        return packed[:, :, : packed.shape[2] * 2 // 3].float()


class _Levels(nn.Module):
    def forward(self, packed: Tensor) -> Tensor:
        return packed.float()


def planar_grid(
    quads: Tensor,
    map_height: int,
    map_width: int,
    shape: PatchShape = READER_PATCH,
    enlargement: float = ENLARGEMENT,
) -> tuple[Tensor, Tensor]:
    """`rectification.sampling_grid`, in GridSample's coordinates, with one multiply-add a point.

    Along a row of the patch a coordinate is linear, so each row needs an offset and a slope;
    levels, margins and the scaling to -1..1 go into those and into the limits, which are per word.

    Args:
        quads: [K, 4, 2] in input pixels.
        map_height: Of the packed pyramid.
        map_width: Of the packed pyramid.
        shape: Of the patches; the reader's are 56 x 224.
        enlargement: How much larger the picture is shown than those that were learnt from.

    Returns:
        [1, K * height, width, 2] for GridSample, and the shape codes [K, 2].
    """
    image_height = map_height * 2 // 3
    width, height = side_lengths(quads)
    # reader and refiner learn from pictures that are not enlarged
    own_height = height / enlargement
    rows = (torch.arange(shape.height) + 0.5) / shape.height
    cols = (torch.arange(shape.width) + 0.5) / shape.width
    v = (rows * (1 + 2 * shape.margin_y) - shape.margin_y).view(1, 1, -1)
    margin = (shape.margin_x * height / width).clamp(max=shape.max_margin).view(-1, 1, 1)
    stride, left = pyramid_level(own_height, map_width, shape)
    below = (stride > 1).float() * image_height
    per_level = stride.view(-1, 1, 1)

    def axis(index: int, origin: Tensor, size: int, map_size: int) -> Tensor:
        # x and y apart, with plain numbers for constants: the plug-in's INT8 passes mishandle
        # constants of shape [1, 2, 1] here (OpenVINO 2026.4)
        to_unit = 2.0 / map_size
        tl, tr, br, bl = (c[:, index].view(-1, 1, 1) for c in quads.unbind(1))
        start = tl * (1 - v) + bl * v  # [K, 1, rows], down the left side
        slope = tr * (1 - v) + br * v - start
        first = origin.view(-1, 1, 1)
        offset = ((start - slope * margin) / per_level + first) * to_unit - 1
        slope = slope * (1 + 2 * margin) / per_level * to_unit
        low = (first + 0.5) * to_unit - 1
        high = (size / per_level - 0.5 + first) * to_unit - 1
        points = offset.unsqueeze(3) + slope.unsqueeze(3) * cols  # [K, 1, rows, columns]
        return torch.minimum(torch.maximum(points, low.unsqueeze(3)), high.unsqueeze(3))

    x = axis(0, left, map_width, map_width)
    y = axis(1, below, image_height, map_height)
    grid = torch.cat((x, y), 1).permute(0, 2, 3, 1).reshape(1, -1, shape.width, 2)
    return grid, shape_codes(width / enlargement, own_height)


def planar_features(stem_map: Tensor, quads: Tensor, enlargement: float = ENLARGEMENT) -> Tensor:
    """`rectification.text_features` of one image's words, [K, 64, 28, 28]."""
    planes, map_height, map_width = stem_map.shape[1:]
    grid, codes = planar_grid(quads, map_height, map_width, enlargement=enlargement)
    pixels = _sampled(stem_map, grid, planes, READER_PATCH)
    return torch.cat((pixels, shape_plane(codes)), 1).reshape(-1, 64, 28, 28)


def _sampled(stem_map: Tensor, grid: Tensor, planes: int, shape: PatchShape) -> Tensor:
    """Pixels [K, planes, height, width] of a grid of `planar_grid`."""
    pixels = F.grid_sample(stem_map, grid, mode="bilinear", align_corners=False)
    return pixels.view(planes, -1, shape.height, shape.width).transpose(0, 1)


class RefinerPatches(nn.Module):
    """What the refiner sees of words: quads [K, 4, 2] to pixels [K, 3, 32, 128]."""

    def forward(self, quads: Tensor, stem_map: Tensor) -> Tensor:
        """Lay the words of one image upright."""
        planes, map_height, map_width = stem_map.shape[1:]
        grid, _codes = planar_grid(quads, map_height, map_width, REFINER_PATCH)
        return _sampled(stem_map, grid, planes, REFINER_PATCH)


class _Corners(nn.Module):
    def forward(self, words: Tensor) -> Tensor:
        return corners(words)


class _Rows(nn.Module):
    """Words [K, 6] and their refined quads to rows [K, 14]: rectangle, score, corners."""

    def forward(self, words: Tensor, quads: Tensor) -> Tensor:
        middle = quads.mean(1)
        width, height = side_lengths(quads)
        along = quads[:, 1] - quads[:, 0] + quads[:, 2] - quads[:, 3]
        angle = torch.atan2(along[:, 1], along[:, 0])
        rects = torch.cat([middle, torch.stack([width, height, angle], 1)], 1)
        return torch.cat([rects, words[:, 5:6], quads.reshape(-1, 8)], 1)


class _Kept(nn.Module):
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[:, :6], rows[:, 6:].reshape(-1, 4, 2)


class _Place(nn.Module):
    def forward(self, quads: Tensor, at: Tensor) -> Tensor:
        return place(quads, at)


class WordOutputs(nn.Module):
    """Words [K, 6], their quads and the reader's stem map to the contract's four outputs."""

    def forward(
        self, words: Tensor, quads: Tensor, stem_map: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Build labels [K], boxes [K, 5], masks [K, 28, 28] and text_features [K, 64, 28, 28]."""
        low = quads.amin(1)
        high = quads.amax(1)
        # of the picture, below which the stem's coarser levels lie; told so that a traced graph
        # follows another input shape
        ones = torch.ones_like(low[:, :1])
        limit = torch.cat([ones * stem_map.shape[3], ones * (stem_map.shape[2] * 2 // 3)], 1)
        low = torch.minimum(low.clamp(min=0), limit - 1)
        high = torch.maximum(torch.minimum(high, limit), low + 1)
        boxes = torch.cat([low, high, words[:, 5:6]], 1)
        labels = (words[:, 0] * 0).to(torch.int32)
        return labels, boxes, quad_masks(quads, low, high), planar_features(stem_map, quads)


def quad_masks(quads: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Masks [K, 28, 28] of quads within their upright boxes.

    A cell's value is the signed distance of its centre to the quad's nearest side, in cells, plus
    a half, cut to 0..1: linear across every side, so that a bilinear enlargement cut at 0.5 meets
    the side exactly, the box's own rim (zeros beyond it) included.

    Args:
        quads: [K, 4, 2] clockwise, convex, in pixels.
        low: [K, 2] the boxes' upper left corners.
        high: [K, 2] their lower right ones.
    """
    cells = (quads - low[:, None]) / (high - low)[:, None] * MASK_SIDE
    ends = torch.cat([cells[:, 1:], cells[:, :1]], 1)
    side = ends - cells
    length = side.square().sum(2).sqrt().clamp(min=1e-3)
    normal_x = (-side[:, :, 1] / length)[:, :, None, None]  # inwards, y pointing down
    normal_y = (side[:, :, 0] / length)[:, :, None, None]
    centres = torch.arange(MASK_SIDE, dtype=torch.float32) + 0.5
    dx = centres.view(1, 1, 1, -1) - cells[:, :, 0, None, None]
    dy = centres.view(1, 1, -1, 1) - cells[:, :, 1, None, None]
    distance = (dx * normal_x + dy * normal_y).amin(1)
    return (distance + 0.5).clamp(0, 1)


def convert_trunk(trunk: nn.Module) -> ov.Model:
    """Convert the trunk: ``image`` to raw maps. This is the part that INT8 concerns."""
    example = torch.zeros(INPUT_SHAPE)
    return convert(trunk.eval(), [example], [ANY_IMAGE], ["image"], ["maps"])


def convert_refiner(refiner: nn.Module) -> ov.Model:
    """Convert the refiner: ``pixels`` [K, 3, 32, 128] to ``at`` [K, 4, 2]."""
    shape = (3, REFINER_PATCH.height, REFINER_PATCH.width)
    return convert(refiner, [torch.zeros(3, *shape)], [(-1, *shape)], ["pixels"], ["at"])


def assemble_detector(trunk: ov.Model, score: float, refiner: ov.Model | None = None) -> ov.Model:
    """Put selection, refiner and outputs behind a converted (and perhaps quantised) trunk.

    Args:
        trunk: As `convert_trunk` makes it; it becomes part of the detector.
        score: Words scoring no more than this never leave the graph.
        refiner: As `convert_refiner` makes it. Moves the words' corners before boxes, masks and
            features are cut.

    Returns:
        The detector IR of the contract: ``image`` to ``labels``, ``boxes``, ``masks`` and
        ``text_features``, rows dynamic, 0 included. The image is bytes, [1, 3, H + H/2, W]: the
        picture above its copies, see `rectification.Stem`.
    """
    words = torch.zeros(3, 6)
    words[:, 2:4] = 20.0
    maps_shape = (1, MAP_CHANNELS, *(n // STRIDE_PX for n in INPUT_SHAPE[2:]))
    maps = torch.zeros(maps_shape)
    packed = torch.zeros((1, 3, INPUT_SHAPE[2] * 3 // 2, INPUT_SHAPE[3]), dtype=torch.uint8)
    picture = convert(_Picture(), [packed], [ANY_IMAGE], ["image"], ["picture"])
    levels = convert(_Levels(), [packed], [ANY_IMAGE], ["image"], ["stem_map"])
    pick = convert(_Candidates(), [maps], [(1, MAP_CHANNELS, -1, -1)], ["maps"], ["candidates"])
    voting = convert(
        _Vote(),
        [torch.ones(3, 8), torch.ones(MAX_CANDIDATES, 8)],
        [(-1, 8), (MAX_CANDIDATES, 8)],
        ["kept", "voters"],
        ["words"],
    )
    quads = corners(words)
    outputs = convert(
        WordOutputs(),
        [words, quads, packed.float()],
        [(-1, 6), (-1, 4, 2), (1, 3, -1, -1)],
        ["words", "quads", "stem_map"],
        ["labels", "boxes", "masks", "text_features"],
    )
    image_in = picture.get_parameters()[0]
    _feed(trunk, "image", _result(picture, 0))
    _feed(pick, "maps", _result(trunk, 0))
    found = _result(pick, 0)
    kept = _suppress(found, FIRST_KEPT, FIRST_NMS_IOU, score)
    _feed(voting, "kept", kept)
    _feed(voting, "voters", found)
    final = _suppress(_result(voting, 0), MAX_WORDS, LAST_NMS_IOU, score)
    _feed(levels, "image", image_in.output(0))
    stem_map = _result(levels, 0)
    around = convert(_Corners(), [words], [(-1, 6)], ["words"], ["quads"])
    _feed(around, "words", final)
    placed = _result(around, 0)
    for _ in range(LOOKS if refiner is not None else 0):
        assert refiner is not None
        shown = convert(
            RefinerPatches(),
            [quads, packed.float()],
            [(-1, 4, 2), (1, 3, -1, -1)],
            ["quads", "stem_map"],
            ["pixels"],
        )
        look = refiner.clone()
        move = convert(
            _Place(), [quads, quads], [(-1, 4, 2), (-1, 4, 2)], ["quads", "at"], ["quads"]
        )
        _feed(shown, "quads", placed)
        _feed(shown, "stem_map", stem_map)
        _feed(look, "pixels", _result(shown, 0))
        _feed(move, "quads", placed)
        _feed(move, "at", _result(look, 0))
        placed = _result(move, 0)
    if refiner is not None:  # parts of a word may have become the word
        quads_and_words = [torch.zeros(3, 6), torch.ones(3, 4, 2)]
        shapes = [(-1, 6), (-1, 4, 2)]
        rows = convert(_Rows(), quads_and_words, shapes, ["words", "quads"], ["rows"])
        _feed(rows, "words", final)
        _feed(rows, "quads", placed)
        once = _suppress(_result(rows, 0), MAX_WORDS, REFINED_NMS_IOU, score)
        split = convert(_Kept(), [torch.zeros(3, 14)], [(-1, 14)], ["rows"], ["words", "quads"])
        _feed(split, "rows", once)
        final, placed = _result(split, 0), _result(split, 1)
    _feed(outputs, "words", final)
    _feed(outputs, "quads", placed)
    _feed(outputs, "stem_map", stem_map)
    results = []
    for i, name in enumerate(("labels", "boxes", "masks", "text_features")):
        source = _result(outputs, i)
        source.tensor.set_names({name})
        result = opset15.result(source)
        result.set_friendly_name(name)
        results.append(result)
    model = ov.Model(results, [image_in], "textspot_detector")
    model.validate_nodes_and_infer_types()
    # `reshape` gives it any other shape whose sides divide by 32
    model.reshape(list(packed.shape))
    return model


def _suppress(rows: Any, top: int, iou: float, score: float) -> Any:
    """Gather the rows [N, >=6] (rectangle, then score) that rotated suppression keeps."""

    def column(start: int, stop: int) -> Any:
        bounds = [np.array([v], np.int64) for v in (start, stop, 1, 1)]
        return opset15.slice(rows, *bounds)

    boxes = opset15.unsqueeze(column(0, 5), np.array(0, np.int64))
    scores = opset15.unsqueeze(opset15.transpose(column(5, 6), np.array([1, 0])), np.array(0))
    nms = opset13.nms_rotated(
        boxes,
        scores,
        np.array(top, np.int64),
        np.array(iou, np.float32),
        np.array(score, np.float32),
        sort_result_descending=True,
        output_type="i64",
        clockwise=True,
    )
    # the plug-in may pad the selection: the third output counts what is real
    count = opset15.convert(nms.output(2), "i64")
    zero, one = np.array([0], np.int64), np.array([1], np.int64)
    real = opset15.slice(nms.output(0), zero, count, one, zero)
    indices = opset15.squeeze(
        opset15.slice(real, np.array([2]), np.array([3]), one, one), np.array([1], np.int64)
    )
    return opset15.gather(rows, indices, np.array(0, np.int64)).output(0)


def convert(
    module: nn.Module,
    example: list[Tensor],
    shapes: list[Any],
    inputs: list[str],
    outputs: list[str],
) -> ov.Model:
    """Trace a module and convert it, with these names (and no others) on its ports."""
    with torch.no_grad(), warnings.catch_warnings():
        # the shapes that tracing fixes are meant to be fixed
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), tuple(example), check_trace=False)
        model = ov.convert_model(
            traced,
            example_input=tuple(example),
            input=[
                (ov.PartialShape(list(s)), TYPES[e.dtype])
                for s, e in zip(shapes, example, strict=True)
            ],
        )
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    return model


def _result(model: ov.Model, index: int) -> Any:
    return model.get_results()[index].input_value(0)


def _feed(model: ov.Model, name: str, source: Any) -> None:
    """Let every consumer of the model's input `name` read `source` instead."""
    parameter = next(p for p in model.get_parameters() if p.get_friendly_name() == name)
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(source)
