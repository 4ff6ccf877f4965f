"""The reader's trainer: learning, averaging, curriculum, resume."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.reader import network as net
from jobs.training.reader import trainer as reader_trainer
from jobs.training.reader.batches import WordSource
from tests.support.tiny_reader import TINY, source, trainer


def test_it_learns() -> None:
    run, words = trainer(lr=5e-3), source()
    batch = words.next(0.0, 0.0)
    first = run.step(batch)
    for _ in range(20):
        last = run.step(batch)
    assert last[0] < 0.6 * first[0]
    assert last[1] < 0.6 * first[1]


def test_averaged_weights_follow() -> None:
    run, words = trainer(ema=0.5), source()
    for _ in range(3):
        run.step(words.next(0.0, 0.0))
    own = run.reader.decoder.output.weight
    average = run.averaged.module.decoder.output.weight
    assert 0 < float((own - average).detach().abs().max()) < 0.05
    mean = run.averaged.module.encoder.trunk[0][1].running_mean
    assert float(mean.abs().max()) > 0


def test_resume_gives_the_same_state(tmp_path: Path) -> None:
    def start() -> tuple[reader_trainer.Trainer, WordSource]:
        return trainer(), source()

    run, words = start()
    for _ in range(2):
        run.step(words.next(0.3, 0.0))
    run.save(tmp_path / "state.pt", words.state())
    # The pool is rendered anew after a resume: do the same in the run that goes on.
    words.pool.clear()
    words._debt = 0.0
    went_on = [run.step(words.next(0.3, 0.0)) for _ in range(2)]
    resumed, again = start()
    again.restore(resumed.restore(tmp_path / "state.pt"))
    for losses in went_on:
        assert resumed.step(again.next(0.3, 0.0)) == pytest.approx(losses, rel=1e-5)
    assert resumed.progress == run.progress
    for a, b in zip(
        run.averaged.module.parameters(), resumed.averaged.module.parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)
    assert reader_trainer.stored_size(tmp_path / "state.pt") == TINY
    assert not list(tmp_path.glob("*.part"))


def test_a_grown_network_starts_where_the_small_one_stood(tmp_path: Path) -> None:
    small = trainer()
    small.step(source().next(0.0, 0.0))
    small.export(tmp_path / "reader.npz")
    bigger = net.ReaderSize(widths=TINY.widths, low_blocks=2, tall_blocks=2, dilations=(1, 2))
    big = reader_trainer.Trainer(small.recipe, bigger, torch.device("cpu"), bf16=False)
    reader_trainer.grow(big, tmp_path / "reader.npz")
    patches = torch.rand(1, 4, 56, 224) * 255
    with torch.no_grad():
        a, _ = small.averaged.module.eval().encoder.columns(patches)
        b, _ = big.reader.eval().encoder.columns(patches)
    assert 0 < float((a - b).abs().mean()) < 0.02
    big.step(source().next(0.0, 0.0))
    for block in (big.reader.encoder.trunk.low1, big.reader.encoder.context[1]):
        assert float(block.body[0].weight.grad.abs().max()) > 0


def test_difficulty_rises_with_what_is_read() -> None:
    run, words = trainer(rise_above=-1.0, rise_wait_steps=1), source()
    for _ in range(3):
        run.step(words.next(0.0, 0.0))
    assert run.progress.difficulty == pytest.approx(3 * run.recipe.rise)
    strict = trainer(rise_above=1.0, rise_wait_steps=1)
    strict.step(words.next(0.0, 0.0))
    assert strict.progress.difficulty == 0
