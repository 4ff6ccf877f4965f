# mypy: disable-error-code="misc,untyped-decorator"
"""The averaged twin of a network in training: what is measured and exported."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Averaged(Generic[Network]):
    """Exponential moving average of a module's weights and buffers.

    Attributes:
        module: The average, in eval mode.
        decay: Share of the old average that a step keeps, once warm.
        steps: Steps taken so far.
    """

    def __init__(self, module: Network, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).eval()
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, module: Network) -> None:
        """Take one step towards the module; the first steps follow it closely."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.module.state_dict(), module.state_dict()
        for name, value in mine.items():
            if value.dtype.is_floating_point:
                value.lerp_(theirs[name], 1 - decay)
            else:
                value.copy_(theirs[name])
