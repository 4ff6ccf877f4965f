"""The reader's network: sampling, shapes, budgets, the decode rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from textspot_ray.training import network as net  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that spin for each other cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def to_map(*images: np.ndarray) -> torch.Tensor:
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return net.Stem()(batch)


def box(x: float, y: float, w: float, h: float) -> np.ndarray:
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)


def rectify_one(image: np.ndarray, quad: np.ndarray) -> torch.Tensor:
    return net.rectify(to_map(image), torch.from_numpy(quad)[None], torch.zeros(1).long())[0]


@pytest.mark.parametrize("angle", [-150.0, -90.0, -30.0, 12.0, 90.0, 180.0])
@pytest.mark.parametrize("size", [(120, 24), (200, 100), (30, 60)])
def test_rectify_undoes_rotation(angle: float, size: tuple[int, int]) -> None:
    image = smooth_image(512, 512)
    quad = box(256 - size[0] / 2, 256 - size[1] / 2, *size)
    turn = cv2.getRotationMatrix2D((255.5, 255.5), angle, 1.0)
    turned = cv2.warpAffine(image, turn, (512, 512), flags=cv2.INTER_CUBIC)
    # Pixel centres lie at halves here, at whole numbers in OpenCV.
    turned_quad = ((quad - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5).astype(np.float32)
    upright, rotated = rectify_one(image, quad), rectify_one(turned, turned_quad)
    assert float((upright - rotated).abs().mean()) < 3.0
    # The comparison means something: another corner first gives another patch.
    other = rectify_one(turned, np.roll(turned_quad, 2, 0))
    assert float((upright - other)[:3].abs().mean()) > 15.0


def test_rectify_reads_the_named_image_and_does_not_mix_levels() -> None:
    black = np.zeros((64, 128, 3), np.uint8)
    white = np.full((64, 128, 3), 255, np.uint8)
    quads = torch.from_numpy(np.stack([box(0, 0, 128, 64), box(0, 0, 20, 10), box(90, 50, 60, 30)]))
    for index, value in ((torch.tensor([0, 0, 0]), 0.0), (torch.tensor([1, 1, 1]), 255.0)):
        pixels = net.rectify(to_map(black, white), quads, index)[:, :3]
        assert float((pixels - value).abs().max()) < 0.01


@pytest.mark.parametrize("height", [10, 60, 80, 160, 300, 600])
def test_rectify_averages_tall_words(height: int) -> None:
    # One-pixel stripes: where rows lie far apart, plain bilinear sampling would alias to 0 or 255.
    image = np.zeros((640, 1280, 3), np.uint8)
    image[::2] = 255
    pixels = rectify_one(image, box(20, 10, 1200, height))[:3]
    if height >= 80:
        assert float((pixels - 127.5).abs().max()) < 2.0
    else:
        assert float(pixels.max() - pixels.min()) > 100


def test_rectify_agrees_with_opencv_cut() -> None:
    from textspot_ray.training.reader_data import cut

    image = smooth_image(192, 320)
    for quad in (box(30, 40, 90, 20), box(10, 20, 280, 150)):
        quad = quad + np.array([[0, 3], [2, 0], [0, -2], [1, 4]], np.float32)
        ours, (theirs, codes) = rectify_one(image, quad), cut(image, quad)
        assert float((ours[:3].permute(1, 2, 0) - torch.from_numpy(theirs)).abs().max()) < 5.0
        plane = net.shape_plane(torch.from_numpy(codes)[None])[0]
        assert torch.allclose(ours[3:], plane, atol=1e-3)


def test_no_words_give_no_rows() -> None:
    features = net.text_features(
        to_map(smooth_image(64, 128)), torch.zeros(0, 4, 2), torch.zeros(0).long()
    )
    assert features.shape == (0, 64, 28, 28)


def test_view_round_trip_and_contract_shapes() -> None:
    encoder, decoder = net.Encoder().eval(), net.Decoder().eval()
    patches = torch.rand(2, net.PATCH_PLANES, net.PATCH_HEIGHT, net.PATCH_WIDTH) * 255
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
    _, encoder2, decoder2 = net.load_reader(tmp_path / "reader.npz")
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
    with pytest.raises(ValueError, match="not a reader"):
        net.load_reader(tmp_path / "half.npz")
