"""The reader's training: targets, losses, curriculum, resume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from textspot_ray.training import network as net  # noqa: E402
from textspot_ray.training import reader_data as data  # noqa: E402
from textspot_ray.training import train_reader as training  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that spin for each other cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY = net.ReaderSize(widths=(8, 8, 8, 8, 16), dilations=(1,))


@dataclass(frozen=True)
class Drawn:
    image: np.ndarray
    quad: np.ndarray
    text: str


def draw(rng: np.random.Generator, difficulty: float) -> Drawn:
    text = "".join(rng.choice(list("abc1"), int(rng.integers(1, 4))))
    image = np.full((40, 100, 3), 200, np.uint8)
    cv2.putText(image, text, (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
    quad = np.array([[8, 8], [92, 8], [92, 34], [8, 34]], np.float32)
    return Drawn(image, quad, text)


def trainer(**recipe: float) -> training.Trainer:
    settings = training.Recipe(batch=8, warmup_steps=1, **recipe)  # type: ignore[arg-type]
    return training.Trainer(settings, TINY, torch.device("cpu"), bf16=False)


def source(seed: int = 3) -> data.WordSource:
    return data.WordSource(draw, [], seed, batch=8, reuse=2, pool=32)


def test_attention_targets() -> None:
    inputs, targets = training.attention_targets(["az", "", "0"])
    ignore = training.IGNORE
    assert inputs.tolist() == [[0, 2, 27], [0, 1, 1], [0, 28, 1]]
    assert targets.tolist() == [[2, 27, 1], [1, ignore, ignore], [28, 1, ignore]]


def test_ctc_targets() -> None:
    labels, lengths = training.ctc_targets(["ab", "", "9"])
    assert labels.tolist() == [1, 2, 36]
    assert lengths.tolist() == [2, 0, 1]


def test_padding_of_a_batch_does_not_change_a_words_loss() -> None:
    run = trainer(wrong_symbol=0.0)
    run.reader.eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 56, 224, 3)).astype(np.uint8)
    codes = np.zeros((2, 2), np.float32)

    def loss_of(texts: list[str]) -> tuple[float, float]:
        batch = data.Batch(pixels[: len(texts)], codes[: len(texts)], texts, np.ones(2, np.bool_))
        with torch.no_grad():
            ctc, attention, _ = training.losses(
                run.reader, batch, run.recipe, run.device, bf16=False
            )
        return float(ctc), float(attention)

    alone, both = loss_of(["ab"]), loss_of(["ab", "abcdefgh1"])
    swapped = data.Batch(pixels[1:], codes[1:], ["abcdefgh1"], np.ones(1, np.bool_))
    with torch.no_grad():
        ctc, attention, _ = training.losses(run.reader, swapped, run.recipe, run.device, bf16=False)
    assert both[0] == pytest.approx((alone[0] * 3 + float(ctc) * 10) / 13, rel=1e-4)
    assert both[1] == pytest.approx((alone[1] * 3 + float(attention) * 10) / 13, rel=1e-4)


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
    average = run.average.decoder.output.weight
    assert 0 < float((own - average).detach().abs().max()) < 0.05
    mean = run.average.encoder.trunk[0][1].running_mean
    assert float(mean.abs().max()) > 0


def test_resume_gives_the_same_state(tmp_path: Path) -> None:
    def start() -> tuple[training.Trainer, data.WordSource]:
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
    for a, b in zip(run.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert training.stored_size(tmp_path / "state.pt") == TINY
    assert not list(tmp_path.glob("*.part"))


def test_a_grown_network_starts_where_the_small_one_stood(tmp_path: Path) -> None:
    small = trainer()
    small.step(source().next(0.0, 0.0))
    small.export(tmp_path / "reader.npz")
    bigger = net.ReaderSize(widths=TINY.widths, low_blocks=2, tall_blocks=2, dilations=(1, 2))
    big = training.Trainer(small.recipe, bigger, torch.device("cpu"), bf16=False)
    training.grow(big, tmp_path / "reader.npz")
    patches = torch.rand(1, 4, 56, 224) * 255
    with torch.no_grad():
        a, _ = small.average.eval().encoder.columns(patches)
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


def test_measure_counts_words_right() -> None:
    run = trainer()

    class Oracle(training.Reader):
        def encode(self, pixels, codes, bf16):  # type: ignore[no-untyped-def]
            return torch.zeros(len(pixels), 56, 256), torch.zeros(len(pixels), 56, net.N_CTC)

    oracle = Oracle(TINY)
    oracle.decoder.greedy = lambda columns: [("abc", 1.0), ("x1", 1.0), ("dog", 1.0)]  # type: ignore
    picture = draw(np.random.default_rng(0), 0.0)
    words = [Drawn(picture.image, picture.quad, t) for t in ("ABC", "X-1", "cat")]
    score = training.measure(oracle, words, run.device)
    assert score.attention == pytest.approx(2 / 3)
    assert score.ctc == 0
    assert score.care == pytest.approx(1 / 2)


def test_log_keeps_old_rows_when_columns_join(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    training.append_row(log, {"step": 1, "a": 0.5})
    training.append_row(log, {"step": 2, "b": 0.25})
    assert log.read_text().splitlines() == ["step,a,b", "1,0.5,", "2,,0.25"]


def test_command_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "scene_renderer", lambda extra, backgrounds: draw)
    monkeypatch.setattr(training, "rendered_sets", lambda renderer: {"easy": []})
    size = ["--tall-blocks", "0"]
    command = ["--work", str(tmp_path), "--minutes", "0.02", "--batch", "4", "--no-bf16", *size]
    training.main(command)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert len(rows) == 2
    training.main([*command, "--workers", "1"])
    header, first, second = (tmp_path / "log.csv").read_text().splitlines()
    at = header.split(",").index("step")
    assert int(second.split(",")[at]) > int(first.split(",")[at]) > 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert net.load_reader(tmp_path / "reader.npz")[1].size.tall_blocks == 0
