# mypy: disable-error-code="misc"
"""A cheaper trunk: square convolutions become a column and a row.

    python -m jobs.training thin WEIGHTS --out NPZ

A 3 x 3 convolution is the sum of products of 3 x 1 and 1 x 3 ones; the strongest of them (by
singular values, Jaderberg et al. 2014) stand for it with fewer multiplications.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.training.detector.network import DetectorTrunk
from textspot_ray.errors import UsageError

# Half of the multiplications of the layers that have most, where three quarters of the columns
# keep 0.87 to 0.97 of the weights' energy; a third at the last one. Where the stride is 2 nothing
# would be won, and s4's own layer sees the smallest letters.
RANKS = {
    **{f"s8.1.{part}.0": 48 for part in ("first", "second")},
    **{
        f"{stage}.{block}.{part}.0": 96
        for stage in ("s16", "s32")
        for block in (1, 2)
        for part in ("first", "second")
    },
    "merge16.0": 64,
    "merge8.0": 48,
    "merge4.0": 16,
}


def thin(trunk: DetectorTrunk, ranks: Mapping[str, int] = RANKS) -> DetectorTrunk:
    """Replace convolutions of a trunk by columns and rows, in place.

    Args:
        trunk: Trained, or about to be filled.
        ranks: Of each convolution, by its name within the trunk.
    """
    for name, rank in ranks.items():
        whole = trunk.get_submodule(name)
        assert isinstance(whole, nn.Conv2d)
        parent, _, own = name.rpartition(".")
        setattr(trunk.get_submodule(parent), own, column_and_row(whole, rank))
    return trunk


def column_and_row(whole: nn.Conv2d, rank: int) -> nn.Sequential:
    """The best stand-in of a 3 x 3 convolution, stride 1, as 3 x 1 and 1 x 3 ones."""
    outputs, inputs = whole.weight.shape[:2]
    matrix = whole.weight.detach().permute(1, 2, 0, 3).reshape(inputs * 3, outputs * 3)
    left, strengths, right = torch.linalg.svd(matrix, full_matrices=False)
    half = strengths[:rank].sqrt()
    column = nn.Conv2d(inputs, rank, (3, 1), padding=(1, 0), bias=False)
    row = nn.Conv2d(rank, outputs, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad():
        column.weight.copy_((left[:, :rank] * half).T.reshape(rank, inputs, 3, 1))
        row.weight.copy_(
            (half[:, None] * right[:rank]).reshape(rank, outputs, 1, 3).transpose(0, 1)
        )
    return nn.Sequential(column, row)


def ranks_of(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Which convolutions of stored weights are columns and rows, and their ranks."""
    suffix = ".0.weight"
    return {
        name.removesuffix(suffix): len(tensor)
        for name, tensor in weights.items()
        if name.endswith(suffix) and tensor.ndim == 4 and tensor.shape[2:] == (3, 1)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from jobs.training.detector.weights import load_trunk, save_weights

    parser = argparse.ArgumentParser(prog="thin", description=__doc__.split("\n")[0])
    parser.add_argument("weights", type=Path, help="detector.npz or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    args = parser.parse_args(argv)
    trunk = load_trunk(args.weights)
    if ranks_of(trunk.state_dict()):
        raise UsageError(f"{args.weights}: is made cheaper already")
    save_weights(thin(trunk).state_dict(), args.out)
    return 0
