"""The reader's network: shapes, budgets, the decode rule, weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.reader import network as net
from textspot_ray.errors import UsageError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that spin for each other cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_view_round_trip_and_contract_shapes() -> None:
    encoder, decoder = net.Encoder().eval(), net.Decoder().eval()
    patches = torch.rand(2, 4, 56, 224) * 255
    with torch.no_grad():
        out = encoder(patches.reshape(2, 64, 28, 28))
        columns, _ = encoder.columns(patches)
    assert out.shape == (2, 256, 28, 28)
    sequence = out.reshape(2, 256, 784).transpose(1, 2)
    for row in range(net.ROWS):
        assert torch.equal(sequence[:, row * 56 : (row + 1) * 56], columns)
    symbol, hidden = torch.zeros(2), torch.zeros(1, 2, 256)
    with torch.no_grad():
        logits, hidden = decoder(sequence, symbol, hidden)
    assert logits.shape == (2, 38)
    assert hidden.shape == (1, 2, 256)


def test_compute_budgets() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder, decoder = net.Encoder().eval(), net.Decoder().eval()
    with FlopCounterMode(display=False) as encoding:
        encoder(torch.rand(1, 64, 28, 28))
    with FlopCounterMode(display=False) as stepping:
        decoder(torch.rand(1, 784, 256), torch.zeros(1), torch.zeros(1, 1, 256))
    assert 1e7 < encoding.get_total_flops() <= 0.30e9
    assert 1e5 < stepping.get_total_flops() <= 0.005e9


def test_reader_ignores_brightness_and_contrast() -> None:
    encoder = net.Encoder().eval()
    patches = torch.rand(1, 4, 56, 224) * 80 + 60
    changed = patches.clone()
    changed[:, :3] = changed[:, :3] * 1.5 + torch.tensor([5.0, -10.0, 20.0]).view(1, 3, 1, 1)
    with torch.no_grad():
        _, a = encoder.columns(patches)
        _, b = encoder.columns(changed)
    assert torch.allclose(a, b, atol=0.02)


class Scripted(net.Decoder):
    """A decoder whose logits are given: a row of symbols a word, one a step."""

    def __init__(self, script: list[list[int]], peak: float) -> None:
        super().__init__()
        self.script = torch.tensor(script)
        self.peak = peak
        self.fed: list[list[int]] = []

    def step(self, columns, symbol, state):  # type: ignore[no-untyped-def]
        self.fed.append(symbol.tolist())
        at = min(len(self.fed) - 1, self.script.shape[1] - 1)
        logits = torch.zeros(len(self.script), net.N_SYMBOLS)
        logits[torch.arange(len(self.script)), self.script[:, at]] = self.peak
        return logits, state


def test_decode_rule() -> None:
    a, b, nine, eos, sos = 2, 3, 37, net.EOS, net.SOS
    decoder = Scripted([[a, b, eos, a], [eos, a, a, a], [a, sos, nine, eos]], peak=4.0)
    words = decoder.greedy(torch.zeros(3, 56, 256))
    step = float(torch.tensor([4.0] + [0.0] * 37).softmax(0)[0])
    assert [w for w, _ in words] == ["ab", "", "a 9"]
    assert [c for _, c in words] == pytest.approx([step**3, step**1, step**4], rel=1e-4)
    assert decoder.fed[0] == [sos, sos, sos]
    assert decoder.fed[1][0] == a


def test_decode_stops_after_28_symbols_without_an_end_factor() -> None:
    decoder = Scripted([[5]], peak=9.0)
    ((text, confidence),) = decoder.greedy(torch.zeros(1, 56, 256))
    step = float(torch.tensor([9.0] + [0.0] * 37).softmax(0)[0])
    assert text == "d" * 28
    assert confidence == pytest.approx(step**28, rel=1e-4)


def test_ctc_reading_merges_repeats() -> None:
    path = [0, 1, 1, 0, 1, 2, 2, 0, 0, 36]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), net.N_CTC).float()
    assert net.read_ctc(logits) == ["aab9"]


def test_weights_survive_saving(tmp_path: Path) -> None:
    size = net.ReaderSize(low_blocks=1)
    encoder, decoder = net.Encoder(size), net.Decoder(size)
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    net.save_reader(tmp_path / "reader.npz", size, state)
    encoder2, decoder2 = net.load_reader(tmp_path / "reader.npz")
    assert encoder2.size == size
    assert not encoder2.training
    patches = torch.rand(1, 4, 56, 224) * 255
    with torch.no_grad():
        ours, theirs = encoder.eval().columns(patches)[0], encoder2.columns(patches)[0]
        assert torch.allclose(ours, theirs, atol=0.02)
        assert decoder2.greedy(theirs)[0][0] == decoder.greedy(theirs)[0][0]


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    size = net.ReaderSize()
    state = {f"encoder.{k}": v for k, v in net.Encoder().state_dict().items()}
    net.save_reader(tmp_path / "half.npz", size, state)
    with pytest.raises(UsageError, match="another network"):
        net.load_reader(tmp_path / "half.npz")
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(UsageError, match="not a reader"):
        net.load_reader(tmp_path / "other.npz")


def test_weights_made_with_another_patch_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = net.ReaderSize(widths=(4, 4, 4, 4, 8), dilations=(1,))
    parts = {"encoder": net.Encoder(size), "decoder": net.Decoder(size)}
    state = {f"{p}.{k}": v for p, m in parts.items() for k, v in m.state_dict().items()}
    net.save_reader(tmp_path / "reader.npz", size, state)
    other = dataclasses.replace(net.READER_PATCH, margin_x=0.3)
    monkeypatch.setattr(net, "READER_PATCH", other)
    with pytest.raises(UsageError, match=r"reader\.npz: .* patch_margin_x 0\.2.* 0\.3"):
        net.load_reader(tmp_path / "reader.npz")
