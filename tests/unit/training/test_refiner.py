"""The second look at a word's corners: geometry, learning, weights."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.data import datasets
from jobs.training.detector.scores import quad_iou
from jobs.training.refiner import network as refiner_module
from jobs.training.refiner import train as train_refiner
from jobs.training.refiner.network import (
    REFINER_PATCH,
    Refiner,
    corner_loss,
    load_refiner,
    place,
    save_refiner,
)
from textspot_ray.errors import UsageError


def picture(seed: int, angle: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """A light word-like bar on a dark ground, and its quad."""
    rng = np.random.default_rng(seed)
    size = (float(rng.uniform(60, 140)), float(rng.uniform(18, 34)))
    quad = datasets.rect_corners((128.0, 128.0), size, angle)
    image = rng.integers(30, 60, (256, 256, 3)).astype(np.uint8)
    cv2.fillConvexPoly(image, np.round(quad).astype(np.int32), (220, 220, 220))
    return image, quad


def test_true_corners_survive_the_way_into_a_sample_and_back() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        image, quad = picture(seed, angle=float(rng.uniform(-180, 180)))
        rect = train_refiner.moved_rect(rng, quad)
        made = train_refiner.sample(image, quad, rect)
        assert made.pixels.shape == (REFINER_PATCH.height, REFINER_PATCH.width, 3)
        back = place(torch.tensor(rect[None]), torch.tensor(made.wanted[None]))[0].numpy()
        np.testing.assert_allclose(back, quad, atol=0.05)


def test_moved_rectangles_stay_on_their_word_and_are_off_it() -> None:
    rng = np.random.default_rng(2)
    _, quad = picture(0)
    ious = np.array([quad_iou(quad, train_refiner.moved_rect(rng, quad)) for _ in range(200)])
    assert ious.min() > 0.2
    assert 0.6 < np.median(ious) < 0.9


def test_an_untrained_refiner_leaves_words_where_they_are() -> None:
    torch.manual_seed(0)
    quads = torch.tensor(np.stack([picture(s)[1] for s in range(3)]))
    with torch.no_grad():
        at = Refiner().eval()(torch.rand(3, 3, REFINER_PATCH.height, REFINER_PATCH.width) * 255)
    np.testing.assert_allclose(place(quads, at).numpy(), quads.numpy(), atol=1.0)


def test_the_loss_counts_in_heights() -> None:
    right = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    ends_off = right + torch.tensor([0.1, 0.0])
    tops_off = right + torch.tensor([0.0, 0.1])
    short, long = torch.tensor([1.0]), torch.tensor([5.0])
    assert float(corner_loss(right, right, long)) == 0
    assert float(corner_loss(ends_off, right, long)) > 3 * float(
        corner_loss(ends_off, right, short)
    )
    torch.testing.assert_close(
        corner_loss(tops_off, right, long), corner_loss(tops_off, right, short)
    )


def test_it_learns_where_a_word_ends() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(3)
    made = []
    for seed in range(160):
        image, quad = picture(seed)
        made.append(train_refiner.sample(image, quad, train_refiner.moved_rect(rng, quad)))
    refiner = Refiner()
    optimiser = torch.optim.AdamW(refiner.parameters(), lr=2e-3)
    for step in range(80):
        start = step * 32 % 128
        pixels, wanted, aspect = train_refiner.tensors(made[start : start + 32])
        optimiser.zero_grad()
        corner_loss(refiner(pixels), wanted, aspect).backward()
        optimiser.step()
    before, after, off, left = train_refiner.validate(refiner.eval(), made[128:])
    assert after > before + 0.05
    assert left < 0.8 * off


def test_weights_survive_saving_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    refiner = Refiner().eval()
    save_refiner(refiner, tmp_path / "r.npz")
    pixels = torch.rand(2, 3, REFINER_PATCH.height, REFINER_PATCH.width) * 255
    with torch.no_grad():
        torch.testing.assert_close(
            load_refiner(tmp_path / "r.npz")(pixels), refiner(pixels), atol=1e-3, rtol=0
        )
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(UsageError, match=r"other\.npz"):
        load_refiner(tmp_path / "other.npz")
    with pytest.raises(UsageError, match=r"none\.npz"):
        load_refiner(tmp_path / "none.npz")


@pytest.mark.parametrize(("name", "value"), [("LOOKS", 3), ("STEP", 0.5)])
def test_weights_made_with_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    save_refiner(Refiner(), tmp_path / "r.npz")
    monkeypatch.setattr(refiner_module, name, value)
    with pytest.raises(UsageError, match=rf"r\.npz: weights made with {name.lower()}") as caught:
        load_refiner(tmp_path / "r.npz")
    assert "\n" not in str(caught.value)


def test_weights_from_before_settings_were_stored_load(tmp_path: Path) -> None:
    refiner = Refiner()
    state = {k: v.numpy() for k, v in refiner.state_dict().items() if v.is_floating_point()}
    np.savez(tmp_path / "old.npz", **state)
    torch.testing.assert_close(
        load_refiner(tmp_path / "old.npz").corners.weight, refiner.corners.weight
    )


def test_training_writes_what_it_resumes_from(tmp_path: Path) -> None:
    photos = tmp_path / "set"
    (photos / "images").mkdir(parents=True)
    (photos / "gt").mkdir()
    for number in (1, 801):
        image, quad = picture(number)
        cv2.imwrite(str(photos / "images" / f"img_{number}.jpg"), cv2.resize(image, (1280, 720)))
        at = np.round(quad * [5.0, 2.8125]).astype(int).ravel()
        (photos / "gt" / f"gt_img_{number}.txt").write_text(",".join(map(str, at)) + ",Word\n")
    arguments = ["--work", str(tmp_path / "w"), "--icdar2015", str(photos), "--minutes", "0"]
    for _ in range(2):
        assert train_refiner.main([*arguments, "--batch", "4", "--crop", "256"]) == 0
    with (tmp_path / "w" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["samples"]) for row in rows] == [4, 8]
    assert 0 < float(rows[1]["iou_before"]) < 1
    assert load_refiner(tmp_path / "w" / "refiner.npz")


def test_training_goes_on_from_given_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    begun = Refiner()
    torch.nn.init.constant_(begun.corners.bias, 0.5)
    save_refiner(begun, tmp_path / "r.npz")
    words = ["--work", str(tmp_path / "w"), "--scenes", "1", "--minutes", "0", "--batch", "2"]
    assert train_refiner.main([*words, "--lr", "0", "--init", str(tmp_path / "r.npz")]) == 0
    after = load_refiner(tmp_path / "w" / "refiner.npz")
    torch.testing.assert_close(after.corners.bias, begun.corners.bias.detach(), atol=1e-3, rtol=0)


def test_without_data_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--icdar2015"):
        train_refiner.main(["--work", str(tmp_path), "--minutes", "0"])
