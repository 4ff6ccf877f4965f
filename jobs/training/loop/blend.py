"""Weights between two files of the same network: fine-tuned ones, and those they started from.

    python -m jobs.training blend OLD.npz NEW.npz --share 0.5 --out FILE.npz

Both lie in one basin, so what is between them is a network too; it keeps what the old one knew and
has most of what the new one learnt (Wortsman et al. 2022, WiSE-FT). The share is chosen on
validation.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.loop.checkpoints import replace_file
from textspot_ray.errors import UsageError

Arrays = dict[str, NDArray[Any]]


def blend(old: Arrays, new: Arrays, share: float) -> Arrays:
    """Arrays between two sets of the same names and shapes.

    Args:
        old: At share 0.
        new: At share 1. What is not in half precision (settings, sizes) must be equal.
        share: From 0 to 1.

    Raises:
        UsageError: They are of different networks or settings.
    """
    if set(old) != set(new) or any(old[k].shape != new[k].shape for k in old):
        raise UsageError("the two files hold weights of different networks")
    between: Arrays = {}
    for name, value in old.items():
        if value.dtype == np.float16:
            mixed = (1 - share) * value.astype(np.float32) + share * new[name].astype(np.float32)
            between[name] = mixed.astype(np.float16)
        elif np.array_equal(value, new[name]):
            between[name] = value
        else:
            raise UsageError(f"the two files differ in {name}: {value} and {new[name]}")
    return between


def read(path: Path) -> Arrays:
    """All arrays of a weights file.

    Raises:
        UsageError: There is none, or it is no .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise UsageError(f"{path}: no weights (.npz) there: {exc}") from exc


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="blend", description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the new weights, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    if not 0 <= args.share <= 1:
        raise UsageError(f"--share must be from 0 to 1, not {args.share:g}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **blend(read(args.old), read(args.new), args.share))
    replace_file(args.out, buffer.getvalue())
    return 0
