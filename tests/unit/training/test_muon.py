"""The optimizer of the reader's hidden matrices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.loop.muon import Muon, orthogonalised


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that spin for each other cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(40, 40), (96, 24), (24, 96)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * 1e-3
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalised(matrix)
    kept = values / values.max() > 0.05
    along = torch.diag(left.T @ result @ right.T)[kept]
    assert float(along.min()) > 0.6
    assert float(along.max()) < 1.3


def test_step_has_the_size_of_the_learning_rate_and_goes_downhill() -> None:
    torch.manual_seed(0)
    filters = torch.nn.Parameter(torch.randn(32, 16, 3, 3))
    target = torch.randn(32, 16, 3, 3)
    optimizer = Muon([filters], lr=0.01)
    before = filters.detach().clone()
    for n in range(50):
        loss = (filters - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        if n == 0:
            first = float(loss.detach())
        optimizer.step()
        if n == 0:
            rms = float((filters.detach() - before).square().mean().sqrt())
            assert 0.001 < rms < 0.004
    assert float(loss.detach()) < 0.95 * first


def test_parameters_without_gradient_and_decay() -> None:
    still, shrinking = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    optimizer = Muon([still, shrinking], lr=0.1, weight_decay=0.5)
    shrinking.grad = torch.zeros(4, 4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert torch.allclose(shrinking, torch.full((4, 4), 0.95))
