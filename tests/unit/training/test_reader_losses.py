"""The reader's losses: targets, and what padding must not change."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.reader import losses as reader_losses
from jobs.training.reader.batches import Batch
from tests.support.tiny_reader import trainer


def test_attention_targets() -> None:
    inputs, targets = reader_losses.attention_targets(["az", "", "0"])
    ignore = reader_losses.IGNORE
    assert inputs.tolist() == [[0, 2, 27], [0, 1, 1], [0, 28, 1]]
    assert targets.tolist() == [[2, 27, 1], [1, ignore, ignore], [28, 1, ignore]]


def test_ctc_targets() -> None:
    labels, lengths = reader_losses.ctc_targets(["ab", "", "9"])
    assert labels.tolist() == [1, 2, 36]
    assert lengths.tolist() == [2, 0, 1]


def test_padding_of_a_batch_does_not_change_a_words_loss() -> None:
    run = trainer(wrong_symbol=0.0)
    run.reader.eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 56, 224, 3)).astype(np.uint8)
    codes = np.zeros((2, 2), np.float32)

    def loss_of(texts: list[str]) -> tuple[float, float]:
        batch = Batch(pixels[: len(texts)], codes[: len(texts)], texts, np.ones(2, np.bool_))
        with torch.no_grad():
            ctc, attention, _ = reader_losses.losses(run.reader, batch, 0.0, run.device, bf16=False)
        return float(ctc), float(attention)

    alone, both = loss_of(["ab"]), loss_of(["ab", "abcdefgh1"])
    swapped = Batch(pixels[1:], codes[1:], ["abcdefgh1"], np.ones(1, np.bool_))
    with torch.no_grad():
        ctc, attention, _ = reader_losses.losses(run.reader, swapped, 0.0, run.device, bf16=False)
    assert both[0] == pytest.approx((alone[0] * 3 + float(ctc) * 10) / 13, rel=1e-4)
    assert both[1] == pytest.approx((alone[1] * 3 + float(attention) * 10) / 13, rel=1e-4)
