"""The full-size reader has the published sums and shapes, and attends."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.bench.full_size import reader as full
from tests.support.graphs import compiled, named


def test_reader_has_the_published_parameters_and_flops() -> None:
    encoder, decoder = full.build_encoder(), full.build_decoder()
    assert sum(encoder.parameters.values()) == 1_327_872
    assert encoder.gflop == pytest.approx(2.081, abs=0.001)
    # 677,414 in PyTorch's count; OpenVINO stores 4 x 256 GRU biases instead of 6 x 256
    assert sum(decoder.parameters.values()) == 677_414 - 512
    assert decoder.gflop == pytest.approx(0.1048, abs=0.001)


def test_same_seed_same_weights() -> None:
    features = np.random.default_rng(1).standard_normal((1, 64, 28, 28)).astype(np.float32)
    first, again, other = (
        named(compiled(full.build_encoder(seed=s).model)([features]))["output"] for s in (4, 4, 5)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_decoder_attends_and_carries_its_state() -> None:
    step = compiled(full.build_decoder().model)
    rng = np.random.default_rng(2)
    encoded = np.abs(rng.standard_normal((1, full.POSITIONS, full.HIDDEN))).astype(np.float32)
    state = np.zeros((1, 1, full.HIDDEN), np.float32)
    seen = []
    for symbol in (0, 7):
        out = named(step([encoded, np.array([symbol], np.float32), state]))
        seen.append(out["output"])
        state = out["hidden"]
        assert out["output"].shape == (1, full.SYMBOLS)
        assert state.shape == (1, 1, full.HIDDEN)
    assert not np.allclose(*seen)
    assert seen[0].argmax() > 1, "a word must not end by itself"
