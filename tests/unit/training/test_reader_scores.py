"""Words read right are counted, care words apart."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.reader import losses as reader_losses
from jobs.training.reader import network as net
from jobs.training.reader import scores as reader_scores
from tests.support.tiny_reader import TINY, Drawn, draw, trainer


def test_measure_counts_words_right() -> None:
    run = trainer()

    class Oracle(reader_losses.Reader):
        def encode(self, pixels, codes, bf16):  # type: ignore[no-untyped-def]
            return torch.zeros(len(pixels), 56, 256), torch.zeros(len(pixels), 56, net.N_CTC)

    oracle = Oracle(TINY)
    oracle.decoder.greedy = lambda columns: [("abc", 1.0), ("x1", 1.0), ("dog", 1.0)]  # type: ignore
    picture = draw(np.random.default_rng(0), 0.0)
    words = [Drawn(picture.image, picture.quad, t) for t in ("ABC", "X-1", "cat")]
    score = reader_scores.measure(oracle, words, run.device)
    assert score.attention == pytest.approx(2 / 3)
    assert score.ctc == 0
    assert score.care == pytest.approx(1 / 2)
