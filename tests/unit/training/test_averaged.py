"""Averaged weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.loop.ema import Averaged


def test_averaged_weights_follow_slowly() -> None:
    layer = torch.nn.BatchNorm2d(2)
    averaged = Averaged(layer, decay=0.9)
    averaged.steps = 1000
    with torch.no_grad():
        layer.weight += 1
        layer.running_mean += 1
    averaged.update(layer)
    torch.testing.assert_close(averaged.module.weight.detach(), torch.full((2,), 1.1))
    torch.testing.assert_close(averaged.module.running_mean, torch.full((2,), 0.1))
