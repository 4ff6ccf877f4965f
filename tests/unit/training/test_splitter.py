"""Rectangles around several words: what is learnt of them, and how they are parted."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)
ov = pytest.importorskip("openvino")

import textspot_ray
from jobs.training.data.datasets import PhotoWord, rect_corners
from jobs.training.detector.graph import convert
from jobs.training.splitter import train as train_splitter
from jobs.training.splitter.network import (
    COLUMNS,
    SPLITTER_PATCH,
    Splitter,
    column_edges,
    gap_loss,
    load_splitter,
    maps_along,
    save_splitter,
    split,
)
from jobs.training.splitter.spans import GAP_WEIGHT, column_targets, joined, spans_in
from textspot_ray.errors import UsageError

WORD, GAP = -8.0, 8.0  # logits
DETECTOR = Path(textspot_ray.__file__).parent / "models" / "embedded" / "detector-int8.xml"
SILENT = np.zeros((1, 7, 32, 96), np.float32)  # maps of a detector that tells nothing


def upright(left: float, right: float, top: float = 100.0, bottom: float = 130.0) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def word(left: float, right: float, *, legible: bool = True, top: float = 100.0) -> PhotoWord:
    return PhotoWord(upright(left, right, top, top + 30), "word" if legible else "###", legible)


def logits_of(words: torch.Tensor, *gaps: tuple[float, float]) -> torch.Tensor:
    """Logits [K, 48] with gaps between these shares of the rectangles' widths."""
    edges = column_edges(words[:, 2], words[:, 3])
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    logits = torch.full((len(words), COLUMNS), WORD)
    for low, high in gaps:
        logits[(middle > low) & (middle < high)] = GAP
    return logits


def test_a_rectangle_is_parted_at_its_gap_along_its_direction() -> None:
    angle = 0.3
    rect = torch.tensor([[500.0, 300.0, 200.0, 30.0, angle, 0.9]])
    parts = split(rect, logits_of(rect, (0.4, 0.5)))
    assert len(parts) == 2
    column = float(column_edges(rect[:, 2], rect[:, 3])[0].diff()[0])
    along = (parts[:, :2] - rect[0, :2]) @ torch.tensor([np.cos(angle), np.sin(angle)]).float()
    starts, ends = along / 200 + 0.5 - parts[:, 2] / 400, along / 200 + 0.5 + parts[:, 2] / 400
    assert starts[0] == pytest.approx(0, abs=1e-5) and ends[1] == pytest.approx(1, abs=1e-5)
    assert ends[0] == pytest.approx(0.4, abs=column) and starts[1] == pytest.approx(0.5, abs=column)
    across = (parts[:, :2] - rect[0, :2]) @ torch.tensor([-np.sin(angle), np.cos(angle)]).float()
    np.testing.assert_allclose(across, 0, atol=1e-3)
    assert (parts[:, 3:] == rect[0, 3:]).all()


def test_rectangles_without_a_gap_between_words_have_no_parts() -> None:
    rects = torch.tensor([[300.0, 200.0, 120.0, 30.0, 0.1, 0.9], [90.0, 80.0, 60.0, 20.0, 0, 0.5]])
    assert split(rects, logits_of(rects)).shape == (0, 6)
    assert len(split(rects, logits_of(rects, (-1, 0.3)))) == 0  # a gap beside the word
    assert len(split(rects, logits_of(rects, (-1, 2)))) == 0  # nothing but gap
    assert split(rects[:0], torch.zeros(0, COLUMNS)).shape == (0, 6)


def test_what_is_left_at_an_end_beside_a_gap_is_no_word() -> None:
    rect = torch.tensor([[300.0, 200.0, 300.0, 30.0, 0.0, 0.9]])
    assert len(split(rect, logits_of(rect, (0.01, 0.2)))) == 0  # 0.1 heights left of the gap
    three = split(rect, logits_of(rect, (0.3, 0.35), (0.6, 0.7)))
    assert len(three) == 3
    assert float(three[:, 2].sum()) == pytest.approx(300 * 0.85, abs=30)


def test_the_graph_parts_as_torch_does() -> None:
    class Split(torch.nn.Module):
        def forward(self, words: torch.Tensor, gaps: torch.Tensor) -> torch.Tensor:
            return split(words, gaps)

    rng = np.random.default_rng(0)
    words = rng.uniform(20, 900, (50, 6)).astype(np.float32)
    gaps = rng.normal(0, 3, (50, COLUMNS)).astype(np.float32)
    example = [torch.from_numpy(words[:3]), torch.from_numpy(gaps[:3])]
    model = convert(Split(), example, [(-1, 6), (-1, COLUMNS)], ["words", "gaps"], ["parts"])
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = split(torch.from_numpy(words), torch.from_numpy(gaps)).numpy()
    assert len(wanted) > 30
    np.testing.assert_allclose(compiled([words, gaps])[0], wanted, rtol=1e-4, atol=1e-3)
    assert compiled([words[:0], gaps[:0]])[0].shape == (0, 6)


def test_columns_between_two_words_weigh_more_than_those_beside_them() -> None:
    words = [word(100, 200), word(215, 300), word(100, 300, top=200)]  # the last: another line
    rect = upright(90, 310)
    wanted, weight = column_targets(rect, spans_in(rect, words))
    margin = 0.5 * 30 / 220
    middle = ((np.arange(COLUMNS) + 0.5) / COLUMNS * (1 + 2 * margin) - margin) * 220 + 90
    between = (middle > 203) & (middle < 212)
    assert between.any() and (wanted[between] == 1).all() and (weight[between] == GAP_WEIGHT).all()
    inside = ((middle > 106) & (middle < 194)) | ((middle > 221) & (middle < 294))
    assert (wanted[inside] == 0).all() and (weight[inside] == 1).all()
    beside = middle < 90
    assert (wanted[beside] == 1).all() and (weight[beside] == 1).all()


def test_illegible_words_and_those_across_the_line_teach_nothing() -> None:
    rect = upright(100, 300)
    _, weight = column_targets(rect, spans_in(rect, [word(100, 300, legible=False)]))
    assert (weight[5:-5] == 0).all()
    across = PhotoWord(rect_corners((200.0, 115.0), (80.0, 30.0), 90), "across")
    _, weight = column_targets(rect, spans_in(rect, [across]))
    middle = np.arange(COLUMNS) / COLUMNS
    assert (weight[(middle > 0.47) & (middle < 0.53)] == 0).all()


def test_the_detectors_ends_are_told_in_shares_of_the_rectangle() -> None:
    """Two words of 60 and 40 px in a rectangle around both."""
    maps = np.zeros((1, 7, 32, 64), np.float32)
    x = (np.arange(64) + 0.5) * 4
    for left, right in ((40.0, 100.0), (110.0, 150.0)):
        word = (x > left) & (x < right)
        maps[0, 0][:, word] = 5.0
        maps[0, 2][:, word] = np.log((right - x[word]) / 16)  # to the right side
        maps[0, 4][:, word] = np.log((x[word] - left) / 16)
        maps[0, 1][:, word] = maps[0, 3][:, word] = np.log(10 / 16)
    quad = torch.from_numpy(upright(40, 150, 50, 70))[None]
    along = maps_along(torch.from_numpy(maps), quad)[0].reshape(4, 3, COLUMNS)[:, 1]
    edges = column_edges(torch.tensor([110.0]), torch.tensor([20.0]))[0]
    middle = (edges[1:] + edges[:-1]) / 2 * 110 + 40
    first, second = (middle > 48) & (middle < 92), (middle > 116) & (middle < 144)
    assert (along[0][first] > 0.9).all()
    for part, left, right in ((first, 40, 100), (second, 110, 150)):
        np.testing.assert_allclose(along[1][part], (left - 40) / 110, atol=0.02)
        np.testing.assert_allclose(along[2][part], (right - 40) / 110, atol=0.02)
        np.testing.assert_allclose(along[3][part], 0, atol=0.02)


def test_words_whose_quads_overlap_are_parted_in_the_middle() -> None:
    rect = upright(100, 300)
    wanted, weight = column_targets(rect, spans_in(rect, [word(100, 206), word(198, 300)]))
    (gap,) = np.flatnonzero(weight == GAP_WEIGHT)
    assert wanted[gap] == 1 and abs(gap - COLUMNS / 2) < 2
    assert (weight[[gap - 1, gap + 1]] == 0).all()


def test_neighbours_in_a_line_are_joined_and_no_others() -> None:
    rng = np.random.default_rng(0)
    near = [word(100, 200), word(212, 300)]
    quads = [quad for _ in range(20) for quad in joined(rng, near)]
    assert len(quads) == 20
    for quad in quads:
        assert quad[0, 0] < 170 and 230 < quad[1, 0] <= 300
    assert joined(rng, [word(100, 200), word(300, 400)]) == []  # too far
    assert joined(rng, [word(100, 200), word(212, 300, top=140)]) == []  # another line
    assert joined(rng, [word(100, 200, legible=False), word(212, 300, legible=False)]) == []


def picture(rng: np.random.Generator) -> tuple[np.ndarray, list[PhotoWord]]:
    """One or two light bars of stripes on a dark ground, as words."""
    image = rng.integers(20, 50, (128, 384, 3)).astype(np.uint8)
    words, left = [], 40
    for _ in range(int(rng.integers(1, 3))):
        right = left + int(rng.integers(90, 140))
        for x in range(left, right, 10):
            cv2.rectangle(image, (x, 50), (x + 6, 79), (220, 220, 220), -1)
        words.append(PhotoWord(upright(left, right, 50, 80), "w"))
        left = right + int(rng.integers(12, 20))
    return image, words


def test_it_learns_where_words_end() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    samples = []
    for _ in range(400):
        image, words = picture(rng)
        rect = upright(words[0].quad[0, 0], words[-1].quad[1, 0], 50, 80)
        samples += train_splitter.samples_of(image, SILENT, [rect], words)
    splitter = Splitter()
    optimiser = torch.optim.AdamW(splitter.parameters(), lr=3e-3)
    for step in range(60):
        start = step * 32 % 320
        pixels, along, wanted, weight = train_splitter.tensors(samples[start : start + 32])
        optimiser.zero_grad()
        gap_loss(splitter(pixels, along), wanted, weight).backward()
        optimiser.step()
    figures = train_splitter.validate(splitter.eval(), samples[320:])
    assert figures["parted_0"] > 0.9 and figures["false_0"] < 0.1


def test_weights_survive_saving_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splitter = Splitter().eval()
    save_splitter(splitter, tmp_path / "s.npz")
    pixels = torch.rand(2, 3, SPLITTER_PATCH.height, SPLITTER_PATCH.width) * 255
    along = torch.rand(2, 12, COLUMNS)
    with torch.no_grad():
        again = load_splitter(tmp_path / "s.npz")(pixels, along)
        torch.testing.assert_close(again, splitter(pixels, along), atol=1e-2, rtol=0)
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(UsageError, match=r"other\.npz"):
        load_splitter(tmp_path / "other.npz")


def test_training_writes_what_it_resumes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_splitter, "HELD_OUT", 6)
    photos = tmp_path / "set"
    (photos / "images").mkdir(parents=True)
    (photos / "gt").mkdir()
    rng = np.random.default_rng(2)
    for number in (1, 801):
        image, words = picture(rng)
        cv2.imwrite(str(photos / "images" / f"img_{number}.jpg"), cv2.resize(image, (1280, 720)))
        lines = []
        for found in words:
            at = np.round(found.quad * [1280 / 384, 720 / 128]).astype(int).ravel()
            lines.append(",".join(map(str, at)) + ",Word")
        (photos / "gt" / f"gt_img_{number}.txt").write_text("\n".join(lines))
    arguments = ["--work", str(tmp_path / "w"), "--icdar2015", str(photos), "--minutes", "0"]
    arguments += ["--detector", str(DETECTOR)]
    for _ in range(2):
        assert train_splitter.main([*arguments, "--batch", "4", "--crop", "640"]) == 0
    with (tmp_path / "w" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["samples"]) for row in rows] == [4, 8]
    assert float(rows[1]["loss_held_out"]) > 0
    assert load_splitter(tmp_path / "w" / "splitter.npz")


def test_without_data_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--icdar2015"):
        train_splitter.main(
            ["--work", str(tmp_path), "--minutes", "0", "--detector", str(DETECTOR)]
        )
    with pytest.raises(UsageError, match="--detector"):
        train_splitter.main(["--work", str(tmp_path), "--minutes", "0", "--scenes", "1"])
