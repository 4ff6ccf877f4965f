"""The detector's training with the rounding of INT8."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.detector.fake_int8 import rounded_input, rounded_weights, simulate_int8
from jobs.training.detector.network import DetectorTrunk


def test_inputs_have_256_values_over_their_range() -> None:
    x = torch.rand(2, 3, 40, 40) * 7
    rounded = rounded_input(x)
    assert len(rounded.unique()) <= 256
    assert (rounded - x).abs().max() <= 7 / 255 / 2 * 1.01
    assert rounded.max() == pytest.approx(float(x.max()), rel=1e-5)
    assert rounded_input(torch.zeros(2, 3)).abs().max() == 0
    signed = x - 3
    assert rounded_input(signed).min() == pytest.approx(float(signed.min()), rel=1e-5)
    half = x.to(torch.bfloat16)
    assert rounded_input(half).dtype == torch.bfloat16
    off = (rounded_input(half).float() - rounded_input(half.float())).abs()
    assert off.max() <= 7 / 512  # half of bfloat16's last place, no more


def test_weights_have_255_values_an_output() -> None:
    weight = torch.randn(4, 8, 3, 3) * torch.tensor([1e-3, 1.0, 30.0, 0.0]).view(4, 1, 1, 1)
    rounded = rounded_weights(weight)
    for mine, theirs in zip(rounded, weight, strict=True):
        assert len(mine.unique()) <= 255
        assert (mine - theirs).abs().max() <= theirs.abs().max() / 127 / 2 * 1.01 + 1e-12


def test_a_network_learns_through_the_rounding() -> None:
    torch.manual_seed(0)
    network = DetectorTrunk().train()
    plain = copy.deepcopy(network)
    names = list(network.state_dict())
    simulate_int8(network)
    assert list(network.state_dict()) == names
    image = torch.rand(1, 3, 64, 64) * 255
    rounded, exact = network(image), plain(image)
    assert 0 < (rounded - exact).abs().max() < 0.5
    rounded.square().mean().backward()
    exact.square().mean().backward()
    learnt = zip(network.parameters(), plain.parameters(), strict=True)
    for (name, _), (mine, theirs) in zip(network.named_parameters(), learnt, strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
    assert network.s8[0][0].weight.grad.abs().sum() > 0
    # what is measured and exported is a copy of the weights, made before, without rounding
    fresh = DetectorTrunk().eval()
    fresh.load_state_dict(network.state_dict())
    plain.load_state_dict(network.state_dict())
    assert torch.equal(plain.eval()(image), fresh(image))
    assert not torch.equal(network.eval()(image), fresh(image))


def test_the_last_layer_and_the_one_on_the_pixels_are_left_alone() -> None:
    network = DetectorTrunk()
    simulate_int8(network)
    kept = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    changed = [n for n in kept if "forward" in vars(network.get_submodule(n))]
    assert set(kept) - set(changed) == {"head", "stem.0"}
