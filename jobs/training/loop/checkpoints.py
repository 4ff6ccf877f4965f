"""Checkpoints and weights on disk: replaced in one go, never half written.

Weights to start from, and to export, are FP16 in an .npz (no pickle inside) beside the settings of
the code that they were trained under: a network sees what an enlargement or a margin makes of an
image, so weights are worth nothing where those differ. Files written before settings were stored
have none and are taken as they are.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textspot_ray.errors import UsageError

Settings = Mapping[str, float]
_PREFIX = "made_with."  # of a setting's key in an .npz


def replace_file(path: Path, content: bytes) -> None:
    """Write beside and rename, so that a kill leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write what a training resumes from."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    replace_file(path, buffer.getvalue())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing in the file is run."""
    return dict(torch.load(path, map_location=device, weights_only=True))


def save_arrays(
    path: Path,
    weights: Mapping[str, Tensor],
    settings: Settings,
    sizes: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write the floating-point tensors as FP16.

    Args:
        path: The .npz.
        weights: Tensors by name; whole numbers (BatchNorm's counters) are left out.
        settings: What the network was trained under, by name.
        sizes: Other arrays to keep, as they are.
    """
    arrays: dict[str, Any] = {
        name: value.detach().cpu().numpy().astype(np.float16)
        for name, value in weights.items()
        if value.dtype.is_floating_point
    }
    arrays |= sizes or {}
    arrays |= {_PREFIX + name: np.array(value, np.float64) for name, value in settings.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    replace_file(path, buffer.getvalue())


def load_arrays(path: Path, settings: Settings, part: str) -> dict[str, NDArray[Any]]:
    """Read what `save_arrays` wrote, without the settings.

    Args:
        path: The .npz.
        settings: What this code works with.
        part: The part of ``python -m jobs.training`` that makes such a file, for messages.

    Raises:
        UsageError: The file is missing, no .npz, or made with other settings.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such weights; train first: python -m jobs.training {part}")
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except (ValueError, OSError, AttributeError, EOFError, zipfile.BadZipFile) as exc:
        raise UsageError(f"{path}: no weights of python -m jobs.training {part} ({exc})") from exc
    for key in [k for k in arrays if k.startswith(_PREFIX)]:
        name, stored = key.removeprefix(_PREFIX), float(arrays.pop(key))
        own = settings.get(name)
        if own is None or not np.isclose(own, stored):
            raise UsageError(
                f"{path}: weights made with {name} {stored:g}, but this version has "
                f"{'no such setting' if own is None else f'{own:g}'}; train again "
                f"(python -m jobs.training {part}) or take the version that made them"
            )
    return arrays


def as_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """Arrays as float32 tensors."""
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()}


def fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a module; only BatchNorm's counters may lack.

    Raises:
        UsageError: They are another network's.
    """
    missing, unexpected = module.load_state_dict(dict(weights), strict=False)
    if unexpected or any("num_batches" not in name for name in missing):
        raise UsageError(f"{path}: weights of another network; train again")
