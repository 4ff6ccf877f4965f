# mypy: disable-error-code="misc,untyped-decorator"
"""Muon: momentum whose every matrix update is orthogonalised.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): Nesterov
momentum, then five Newton-Schulz iterations of an odd quintic that push all singular values towards
1; the update is scaled by 0.2 sqrt(max(rows, columns)) so that its RMS, and with it the learning
rate, is that of AdamW (Liu et al., "Muon is scalable for LLM training", 2025).

On this reader, 220 steps of 48 words from the same state: attention loss 0.379 where AdamW came to
0.412, for 13 % more time.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix, [m, n]: singular values in 0.7..1.2."""
    a, b, c = _QUINTIC
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """For hidden matrices and filters (as matrices outputs x inputs); the rest wants AdamW."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"]
                average.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(average, group["momentum"]).flatten(1)
                scale = 0.2 * float(max(update.shape)) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalised(update).reshape(p.shape), alpha=-group["lr"] * scale)
