# mypy: disable-error-code="misc"
"""The detector's weights: from a checkpoint, or from the .npz that the export keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from jobs.training.detector.network import DISTANCE_UNIT_PX, ENLARGEMENT, DetectorTrunk
from jobs.training.detector.thin import ranks_of, thin
from jobs.training.loop.checkpoints import (
    as_tensors,
    fill,
    load_arrays,
    load_checkpoint,
    save_arrays,
)
from textspot_ray.errors import UsageError

SETTINGS = {"enlargement": ENLARGEMENT, "distance_unit_px": DISTANCE_UNIT_PX}


def load_weights(path: Path) -> dict[str, Tensor]:
    """Load averaged weights from a checkpoint or from a weights file written by export.

    Raises:
        UsageError: the file is missing, holds something else, or weights made with other settings.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; train first or give another --init")
    if path.suffix == ".npz":
        return as_tensors(load_arrays(path, SETTINGS, "detector"))
    state = load_checkpoint(path)
    weights = state.get("averaged", state.get("weights", state))
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise UsageError(f"{path}: holds no weights; give last.pt, best.pt or detector.npz")
    return {k: v.float() if v.dtype.is_floating_point else v for k, v in weights.items()}


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as FP16 in an .npz, to go on from with ``--init`` (no pickle inside)."""
    save_arrays(path, weights, SETTINGS)


def load_trunk(path: Path) -> DetectorTrunk:
    """Build the trunk with the weights of a checkpoint or an .npz, in eval mode.

    Raises:
        UsageError: the file holds weights of another network, or none.
    """
    weights = load_weights(path)
    trunk = thin(DetectorTrunk(), ranks_of(weights))
    fill(trunk, weights, path)
    trunk.eval()
    return trunk
