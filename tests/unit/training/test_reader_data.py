"""Crops for the reader: targets, splits, cutting, distortions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from textspot_ray.errors import SourceError
from textspot_ray.training import reader_data as data


@pytest.mark.parametrize(
    ("text", "target"),
    [("Café", "cafe"), ("$1.50", "150"), ("WE'RE", "were"), ("I AM", "iam"), ("#!", "")],
)
def test_target(text: str, target: str) -> None:
    assert data.target_of(text) == target


@pytest.mark.parametrize(
    ("text", "care"),
    [
        ("Shop", True),
        ("shop's", True),
        ('"OPEN!', True),
        ("it", False),
        ("B12", False),
        ("two words", False),
        ("", False),
    ],
)
def test_care(text: str, care: bool) -> None:
    assert data.is_care_word(text) is care


def write_set(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "gt").mkdir()
    for number in (800, 801):
        image = np.full((320, 480, 3), 60, np.uint8)
        image[60:90, 120:240] = 255
        cv2.imwrite(str(folder / "images" / f"img_{number}.jpg"), image)
        lines = ["240,120,480,120,480,180,240,180,Word,with", "1,1,9,1,9,9,1,9,###"]
        text = "\ufeff" + "\n".join(lines)
        (folder / "gt" / f"gt_img_{number}.txt").write_text(text, encoding="utf-8")


def test_photo_crops_follow_split_scale_and_legibility(tmp_path: Path) -> None:
    write_set(tmp_path)
    # gt refers to twice the stored size; the detector sees 960x960.
    (crop,) = data.photo_crops(tmp_path, 1, 800, gt_size=(960, 640), input_size=(960, 960))
    assert crop.text == "Word,with"
    assert not crop.sharp
    assert np.ptp(crop.quad, axis=0) == pytest.approx([240, 90])
    pixels, _ = data.cut(crop.image, crop.quad)
    assert pixels[12:-12, 30:-30].min() > 230
    assert crop.image[:5].max() < 90
    assert len(data.photo_crops(tmp_path, 801, 900)) == 1


def test_word_crops_follow_split(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    cv2.imwrite(str(tmp_path / "words" / "w.jpg"), np.zeros((20, 40, 3), np.uint8))
    head = "file\tphoto\tx1\ty1\tx2\ty2\tx3\ty3\tx4\ty4\ttext\n"
    rows = [f"w.jpg\t{n}\t0\t0\t40\t0\t40\t20\t0\t20\t{t}" for n, t in ((5, '"A"'), (801, "b"))]
    rows.append("w.jpg\t6\t0\t0\t40\t0\t40\t20\t0\t20\t---")
    (tmp_path / "words.tsv").write_text(head + "\n".join(rows) + "\n")
    assert [c.text for c in data.word_crops(tmp_path, 1, 800)] == ['"A"']
    assert [c.text for c in data.word_crops(tmp_path, 801, 900)] == ["b"]


def test_empty_crops_avoid_every_word(tmp_path: Path) -> None:
    write_set(tmp_path)
    image = np.full((640, 960, 3), 60, np.uint8)
    image[:, :480] = 255
    cv2.imwrite(str(tmp_path / "images" / "img_800.jpg"), image)
    half = "0,0,640,0,640,720,0,720,###"  # the white half, in coordinates of 1280x720
    (tmp_path / "gt" / "gt_img_800.txt").write_text(half)
    crops = data.empty_crops(tmp_path, 1, 800, per_photo=40)
    assert 5 < len(crops) < 30
    assert {c.text for c in crops} == {""}
    assert all(data.cut(c.image, c.quad)[0][16:-16, 32:-32].max() < 90 for c in crops)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="photos"):
        data.photo_crops(tmp_path / "photos", 1, 2)
    with pytest.raises(SourceError, match=r"words\.tsv"):
        data.word_crops(tmp_path, 1, 2)


def test_jittered_quads_stay_near() -> None:
    rng = np.random.default_rng(0)
    quad = np.array([[10, 10], [110, 10], [110, 30], [10, 30]], np.float32)
    moved = np.stack([data.jitter_quad(rng, quad) for _ in range(300)])
    shift = np.abs(moved - quad)
    assert 0.5 < shift.mean() < 3.0
    assert shift[..., 0].max() < 0.8 * 20
    assert shift[..., 1].max() < 0.8 * 20


def test_wave_keeps_letters_in_order_and_ends_in_place() -> None:
    ramp = np.tile(np.linspace(0, 255, 300, dtype=np.uint8)[None, :, None], (60, 1, 3))
    quad = np.array([[0, 10], [300, 10], [300, 50], [0, 50]], np.float32)
    plain, codes = data.cut(ramp, quad)
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(30):
        bent, same = data.cut(ramp, quad, data.Wave.draw(rng))
        assert np.array_equal(codes, same)
        row = bent[28, :, 0].astype(int)
        assert np.diff(row).min() >= -1
        assert np.abs(row - plain[28, :, 0])[[0, 6, -7, -1]].max() <= 3
        changes.append(np.abs(row - plain[28, :, 0]).max())
    assert max(changes) > 8


def test_rescale_keeps_the_quad_on_the_word() -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[20:40, 30:60] = 255
    quad = np.array([[30, 20], [60, 20], [60, 40], [30, 40]], np.float32)
    for factor in (0.5, 1.5):
        small = data.rescale(data.Crop(image, quad, "x"), factor)
        inside = np.zeros(small.image.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, (small.quad - 0.5).round().astype(np.int32), 1)
        assert small.image[inside > 0].mean() > 200
        assert data.quad_height(small.quad) == pytest.approx(20 * factor)


def test_source_is_seeded_mixes_and_reuses() -> None:
    calls = []

    def draw(rng: np.random.Generator, difficulty: float) -> data.Crop:
        calls.append(difficulty)
        image = rng.integers(0, 255, (30, 60, 3)).astype(np.uint8)
        quad = np.array([[5, 5], [55, 5], [55, 25], [5, 25]], np.float32)
        return data.Crop(image, quad, "Fake")

    real = data.Crop(np.full((20, 40, 3), 9, np.uint8), np.zeros((4, 2), np.float32), "Real")
    real = data.Crop(real.image, np.float32([[2, 2], [38, 2], [38, 18], [2, 18]]), "Real")
    one = data.WordSource(draw, [real], 5, batch=8, reuse=4, pool=10)
    batches = [one.next(0.6, 0.25) for _ in range(12)]
    assert all(b.texts.count("real") == 2 and b.texts.count("fake") == 6 for b in batches)
    assert all((~b.rendered).sum() == 2 for b in batches)
    assert len(one.pool) == 10
    assert 8 <= len(calls) < 12 * 6
    assert min(calls) >= 0
    assert max(calls) <= 0.6
    two = data.WordSource(draw, [real], 5, batch=8, reuse=4, pool=10)
    assert np.array_equal(two.next(0.6, 0.25).pixels, batches[0].pixels)
    assert data.WordSource(draw, [], 5, batch=4).next(0.0, 0.5).texts == ["fake"] * 4
    empty = data.Crop(real.image, real.quad, "")
    three = data.WordSource(draw, [real], 5, batch=8, empties=[empty])
    assert sorted(three.next(0.6, 0.25, 0.125).texts) == ["", *["fake"] * 5, "real", "real"]
    counts = [three.next(0.6, 0.0, 0.03).texts.count("") for _ in range(100)]
    assert 10 < sum(counts) < 40
