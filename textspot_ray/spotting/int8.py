"""A graph made int8 by NNCF, as both families ask for it, and what it is calibrated on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from textspot_ray.errors import MissingExtraError
from textspot_ray.spotting.quantization_scope import outside_trunk

MAX_BOXES = 300  # text features kept for calibration: 0.2 MB each


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the parts see on real images.

    Attributes:
        inputs: Inputs of the detector by their index; the picture is uint8, BGR: 1 x 3 x H x W
            of words' detectors, 1 x H x W x 3 of lines'.
        features: Of the pages that were looked at, as the recogniser takes them.
    """

    inputs: tuple[Mapping[int, NDArray[Any]], ...]
    features: tuple[Any, ...]


def check_nncf() -> None:
    """Raise a `MissingExtraError` if NNCF is not installed."""
    if find_spec("nncf") is None:
        raise MissingExtraError("quantising to int8", "quantize")


def quantised_model(model: Any, samples: list[Any], transform: Any = None) -> Any:
    """A model in int8, its coordinates and small last layers aside.

    Args:
        model: An ``openvino.Model``.
        samples: What it is calibrated on.
        transform: Makes the model's inputs of a sample.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    check_nncf()
    import nncf

    nncf.set_log_level(logging.ERROR)  # it tells of every operator it leaves alone
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
    """Give every operator a name of its own: NNCF goes by names, converters repeat some."""
    seen: set[str] = set()
    for number, node in enumerate(model.get_ordered_ops()):
        name = node.get_friendly_name()
        if name in seen:
            node.set_friendly_name(f"{name}/{number}")
        seen.add(name)
