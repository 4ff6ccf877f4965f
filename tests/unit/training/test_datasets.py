from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from jobs.training.data import datasets
from jobs.training.detector.crops import (
    CropRules,
    base_scale,
    random_crop,
    recolour,
    rect_of_quad,
    target_maps,
)
from textspot_ray.errors import SourceError


def picture(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_set(root: Path, ids: range | list[int], gt: str = "0,0,40,0,40,12,0,12,word\n") -> Path:
    (root / "images").mkdir(parents=True)
    (root / "gt").mkdir()
    for n in ids:
        cv2.imwrite(str(root / "images" / f"img_{n}.png"), picture(n))
        (root / "gt" / f"gt_img_{n}.txt").write_text("\ufeff" + gt, encoding="utf-8")
    return root


def test_gt_text_may_hold_commas_and_hashes_mark_ignored_regions() -> None:
    text = "\ufeff1,2,3,2,3,4,1,4,Hello, world\r\n\r\n5,6,7,6,7,8,5,8,###\n"
    words = datasets.parse_gt(text)
    assert [(w.text, w.legible) for w in words] == [("Hello, world", True), ("###", False)]
    np.testing.assert_array_equal(words[0].quad, [[1, 2], [3, 2], [3, 4], [1, 4]])


@pytest.mark.parametrize("line", ["1,2,3", "a,2,3,2,3,4,1,4,x", "1,2,3,2,3,4,1"])
def test_a_bad_gt_line_is_named(line: str) -> None:
    with pytest.raises(SourceError, match=r"some\.txt, line 2"):
        datasets.parse_gt("1,2,3,2,3,4,1,4,x\n" + line, "some.txt")


def test_validation_photos_are_never_among_the_training_photos(tmp_path: Path) -> None:
    root = write_set(tmp_path / "ic15", [799, 800, 801, 850, 900])
    training = datasets.icdar2015_training(root)
    validation = datasets.icdar2015_validation(root)
    assert [datasets.image_number(p.path) for p in training] == [799, 800]
    assert [datasets.image_number(p.path) for p in validation] == [801, 850, 900]


def test_icdar2015_coordinates_are_brought_to_the_stored_size(tmp_path: Path) -> None:
    root = write_set(tmp_path / "ic15", [1], "128,72,1152,72,1152,648,128,648,x\n")
    (photo,) = datasets.icdar2015_training(root)
    np.testing.assert_allclose(photo.words[0].quad[0], [16, 12])  # 160 x 120 stored
    np.testing.assert_allclose(photo.words[0].quad[2], [144, 108])


def test_missing_gt_and_empty_folders_are_told(tmp_path: Path) -> None:
    root = write_set(tmp_path / "ic15", [1, 2])
    (root / "gt" / "gt_img_2.txt").unlink()
    with pytest.raises(SourceError, match=r"gt_img_2\.txt"):
        datasets.icdar_photos(root)
    with pytest.raises(SourceError, match="no images"):
        datasets.background_photos(tmp_path / "nowhere")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"broken\.jpg"):
        datasets.read_image(tmp_path / "broken.jpg")


def test_words_of_a_mask_regain_their_size_and_angle() -> None:
    quad = datasets.rect_corners((100, 60), (90, 24), 20)
    shrunken = datasets.rect_corners(
        (100, 60), (90 * datasets.MLT_MASK_SCALE, 24 * datasets.MLT_MASK_SCALE), 20
    )
    mask = np.zeros((120, 200), np.uint8)
    cv2.fillPoly(mask, [np.round(shrunken).astype(np.int32)], 255)
    (word,) = datasets.words_of_mask(mask)
    assert word.legible
    assert np.abs(word.quad - quad).max() < 3


def test_tall_and_tiny_mask_regions_are_ignored_ones() -> None:
    mask = np.zeros((120, 200), np.uint8)
    mask[10:90, 20:35] = 255  # taller than wide: its direction is unknown
    mask[50:52, 100:120] = 255
    assert [w.legible for w in datasets.words_of_mask(mask)] == [False, False]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-180, 180), st.floats(10, 200), st.floats(8, 60), st.floats(-50, 300),
    st.floats(-50, 300),
)  # fmt: skip
def test_a_rectangle_survives_the_way_through_its_corners(
    angle: float, width: float, height: float, x: float, y: float
) -> None:
    rect = rect_of_quad(datasets.rect_corners((x, y), (width, height), angle))
    assert (rect.cx, rect.cy) == pytest.approx((x, y), abs=1e-2)
    assert (rect.width, rect.height) == pytest.approx((width, height), abs=1e-2)
    assert (rect.cos, rect.sin) == pytest.approx(
        (np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))), abs=1e-3
    )


def test_crops_keep_words_where_their_pixels_go() -> None:
    # a white word on black: after any crop its quad must still cover exactly the white pixels
    word = datasets.PhotoWord(datasets.rect_corners((300, 200), (120, 40), 10), "w")
    image = np.zeros((400, 600, 3), np.uint8)
    cv2.fillConvexPoly(image, np.round(word.quad * 16).astype(np.int32), (255,) * 3, shift=4)
    rng = np.random.default_rng(5)
    rules = CropRules(size_px=256, quarter_turns=0.5)
    seen = 0
    for _ in range(30):
        crop, words = random_crop(rng, image, [word], rules, np.full(2, 2.0, np.float32))
        assert crop.shape == (256, 256, 3)
        if not words or not words[0].legible:
            continue
        expected = np.zeros((256, 256), np.uint8)
        cv2.fillConvexPoly(
            expected, np.round((words[0].quad - 0.5) * 16).astype(np.int32), 255, shift=4
        )
        actual = crop[..., 0] > 127
        common = (actual & (expected > 0)).sum()
        assert common / (actual | (expected > 0)).sum() > 0.9
        seen += 1
    assert seen > 15


def test_crops_are_repeatable() -> None:
    word = datasets.PhotoWord(datasets.rect_corners((80, 60), (60, 20), 0), "w")
    crops = [
        recolour(rng, random_crop(rng, picture(1), [word], CropRules(128), base_scale(160, 120))[0])
        for rng in (np.random.default_rng(7), np.random.default_rng(7))
    ]
    np.testing.assert_array_equal(*crops)


def test_targets_lead_from_every_core_pixel_back_to_the_word() -> None:
    quad = datasets.rect_corners((70, 60), (80, 30), 25)
    maps = target_maps([datasets.PhotoWord(quad, "w")], 128)
    ys, xs = np.nonzero(maps[0])
    assert len(ys) > 20
    for y, x in zip(ys, xs, strict=True):
        top, right, bottom, left, c, s = maps[2:8, y, x]
        pixel = np.array([(x + 0.5) * 4, (y + 0.5) * 4])
        corner = pixel - left * np.array([c, s]) - top * np.array([-s, c])
        np.testing.assert_allclose(corner, quad[0], atol=0.01)
        assert right + left == pytest.approx(80, abs=0.01)
        assert top + bottom == pytest.approx(30, abs=0.01)
    # the score is trained outside the word, not between core and rim
    assert maps[1, 0, 0] == 1
    assert maps[0, 17, 16] == 0 and maps[1, 17, 16] == 0


def test_illegible_and_tiny_words_train_nothing() -> None:
    words = [
        datasets.PhotoWord(datasets.rect_corners((40, 40), (40, 20), 0), "###", False),
        datasets.PhotoWord(datasets.rect_corners((90, 90), (20, 5), 0), "tiny"),
    ]
    maps = target_maps(words, 128)
    assert maps[0].sum() == 0 and maps[8].sum() == 0
    assert maps[1, 10, 10] == 0 and maps[1, 22, 22] == 0
    assert maps[1, 2, 2] == 1


def test_the_gap_between_two_words_of_a_line_is_a_target_and_no_core_of_theirs() -> None:
    left = datasets.PhotoWord(datasets.rect_corners((50, 60), (60, 24), 0), "left")
    right = datasets.PhotoWord(datasets.rect_corners((116, 60), (60, 24), 0), "right")
    below = datasets.PhotoWord(datasets.rect_corners((50, 100), (60, 24), 0), "below")
    maps = target_maps([left, right, below], 160)
    ys, xs = np.nonzero(maps[9])
    # from 80 to 86, and 0.15 heights into the words on both sides; as high as their cores
    assert {(x + 0.5) * 4 for x in xs} == {78.0, 82.0, 86.0}
    assert {(y + 0.5) * 4 for y in ys} == {54.0, 58.0, 62.0, 66.0}
    assert (maps[0][ys, xs] == 0).all() and (maps[1][ys, xs] > 0).all()
    assert (maps[8][ys, xs] == 0).all() and (maps[10][ys, xs] > 0).all()
    # its rim is left open, the words' middles are none
    assert maps[10, 15, 18] == 0 and maps[9, 15, 12] == 0 and maps[10, 15, 12] > 0


def test_words_apart_across_or_inside_each_other_have_no_gap() -> None:
    def gaps(centre: tuple[float, float], size: tuple[float, float], turn: float) -> float:
        first = datasets.PhotoWord(datasets.rect_corners((50, 60), (60, 24), 0), "a")
        second = datasets.PhotoWord(datasets.rect_corners(centre, size, turn), "b")
        return float(target_maps([first, second], 240)[9].sum())

    assert gaps((116, 60), (60, 24), 0) > 0
    assert gaps((50, 92), (60, 24), 0) == 0  # the line below
    assert gaps((180, 60), (60, 24), 0) == 0  # too far
    assert gaps((110, 60), (60, 24), 90) == 0  # across
    assert gaps((60, 60), (30, 20), 0) == 0  # inside
    assert gaps((116, 60), (60, 10), 0) == 0  # much lower


def test_even_the_thinnest_trained_word_has_a_positive_pixel_wherever_it_lies() -> None:
    for offset in np.linspace(0, 4, 9):
        quad = datasets.rect_corners((60, 40 + offset), (24, 7.5), 0)
        assert target_maps([datasets.PhotoWord(quad, "w")], 128)[0].sum() >= 3
