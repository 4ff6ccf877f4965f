"""A graph made int8 by NNCF, as both families ask for it, and what it is calibrated on.

Operators on the way to a layer with weights may become int8. Box arithmetic, suppression and
sampling grids hold coordinates, for which 256 values are far too few; a quantiser that goes by
operator types alone would take their additions for layers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from textspot_ray.errors import MissingExtraError

MAX_BOXES = 300  # text features kept for calibration: 0.2 MB each
_CONVOLUTIONS = frozenset(
    {
        "Convolution",
        "GroupConvolution",
        "ConvolutionBackpropData",
        "GroupConvolutionBackpropData",
    }
)
# Operators whose outputs are coordinates, indices or shapes: no way leads through them.
_ENDS = frozenset(
    {
        "Constant",
        "ExperimentalDetectronDetectionOutput",
        "ExperimentalDetectronGenerateProposalsSingleImage",
        "ExperimentalDetectronPriorGridGenerator",
        "ExperimentalDetectronTopKROIs",
        "MulticlassNms",
        "NMSRotated",
        "NonMaxSuppression",
        "NonZero",
        "Parameter",
        "Proposal",
        "ShapeOf",
        "TopK",
    }
)
# Operators that sample a feature map at coordinates: only these inputs are feature maps.
_FEATURE_INPUTS = {
    "DeformableConvolution": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "GridSample": (0,),
    "ROIAlign": (0,),
    "ROIAlignRotated": (0,),
    "ROIPooling": (0,),
}
_SMALL = 0.05  # share of all arithmetic up to which a last layer keeps its precision


@dataclass(frozen=True, slots=True)
class Calibration:
    """Inputs of the parts on real images.

    Attributes:
        inputs: Inputs of the detector by index; the picture is uint8, BGR: 1 x 3 x H x W for
            detectors of words, 1 x H x W x 3 for those of lines.
        features: Of the pages, as the recogniser takes them.
    """

    inputs: tuple[Mapping[int, NDArray[Any]], ...]
    features: tuple[Any, ...]


def check_nncf() -> None:
    """Raise a `MissingExtraError` if NNCF is not installed."""
    if find_spec("nncf") is None:
        raise MissingExtraError("quantising to int8", "quantize")


def quantised_model(model: Any, samples: list[Any], transform: Any = None) -> Any:
    """A model in int8, except for its coordinates and small last layers.

    Args:
        model: An ``openvino.Model``.
        samples: Calibration data.
        transform: Makes the model's inputs from a sample.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    check_nncf()
    import nncf

    # It logs every operator that it skips. `nncf.set_log_level` would also change handlers that
    # others have put on its logger, as pytest does with its own.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    _name_apart(model)
    # mixed: asymmetric activations, which signed feature maps of the pyramid need
    return nncf.quantize(
        model,
        nncf.Dataset(samples, transform),
        subset_size=len(samples),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=outside_trunk(model), validate=False),
    )


def _name_apart(model: Any) -> None:
    """Give every operator a unique name: NNCF identifies them by name, converters repeat some."""
    seen: set[str] = set()
    for number, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if name in seen:
            node.set_friendly_name(f"{name}/{number}")
        seen.add(name)


def outside_trunk(model: Any) -> list[str]:
    """Friendly names of the operators that must keep their precision.

    Among them are small layers that no other layer follows (they yield scores and offsets) and
    small products that follow none: their inputs are not pictures but numbers, for which 8 bits are
    too few. (In an encoder with the shape of each word as two input numbers, quantising only these
    cost 8 of 466 words.)

    Args:
        model: An ``openvino.Model`` whose operators have names of their own.
    """
    layers = {n.get_friendly_name(): n for n in model.get_ordered_ops() if _is_layer(n)}
    feeding: set[str] = set()
    for layer in layers.values():
        feeding |= _upstream(layer)
    following = _downstream(model, set(layers))
    inside = feeding & following  # not what scales the input before the layers
    macs = {name: _macs(layer) for name, layer in layers.items()}
    small = _SMALL * sum(macs.values())
    inside |= {name for name in layers if name in feeding or macs[name] > small}
    inside -= {
        name
        for name in layers.keys() - following
        if layers[name].get_type_name() == "MatMul" and macs[name] <= small
    }
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_friendly_name() not in inside
        and node.get_type_name() not in ("Constant", "Parameter", "Result")
    ]


def _is_layer(node: Any) -> bool:
    """Whether an operator multiplies by weights."""
    kind = node.get_type_name()
    if kind in _CONVOLUTIONS:
        return True
    return kind == "MatMul" and any(_is_constant(value.get_node()) for value in node.input_values())


def _upstream(layer: Any) -> set[str]:
    """Names of all operators that feed a layer with features, without the layer itself."""
    found: set[str] = set()
    waiting = _features(layer)
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in found or node.get_type_name() in _ENDS:
            continue
        found.add(name)
        waiting += _features(node)
    return found


def _downstream(model: Any, starts: set[str]) -> set[str]:
    """Names of all operators that depend on a layer's output."""
    found: set[str] = set()
    for node in model.get_ordered_ops():
        sources = {value.get_node().get_friendly_name() for value in node.input_values()}
        if sources & (found | starts):
            found.add(node.get_friendly_name())
    return found


def _features(node: Any) -> list[Any]:
    """The nodes that feed an operator with features."""
    values = node.input_values()
    kind = node.get_type_name()
    if kind in _CONVOLUTIONS:
        ports: tuple[int, ...] = (0,)
    elif kind == "ExperimentalDetectronROIFeatureExtractor":
        ports = tuple(range(1, len(values)))  # the first are the regions
    else:
        ports = _FEATURE_INPUTS.get(kind, tuple(range(len(values))))
    return [values[i].get_node() for i in ports]


def _macs(layer: Any) -> int:
    """Multiply-accumulates of one row; unknown sizes count as one."""
    given = layer.input_values()[:2]
    weights = max(math.prod(_known(v)) for v in given if _is_constant(v.get_node()))
    out = _known(layer.output(0))
    places = out[2:] if layer.get_type_name() != "MatMul" else out[1:-1]
    return weights * math.prod(places)


def _known(value: Any) -> list[int]:
    return [d.get_length() if d.is_static else 1 for d in value.get_partial_shape()]


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", "FakeQuantize", "Reshape", "Multiply"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
