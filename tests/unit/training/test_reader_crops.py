"""Real crops for the reader: splits, scale, legibility, places without text."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.reader import crops as reader_crops
from jobs.training.reader.cutting import cut
from textspot_ray.errors import SourceError


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
    (crop,) = reader_crops.photo_crops(tmp_path, 1, 800, gt_size=(960, 640), input_size=(960, 960))
    assert crop.text == "Word,with"
    assert not crop.sharp
    assert np.ptp(crop.quad, axis=0) == pytest.approx([240, 90])
    pixels, _ = cut(crop.image, crop.quad)
    assert pixels[12:-12, 30:-30].min() > 230
    assert crop.image[:5].max() < 90
    assert len(reader_crops.photo_crops(tmp_path, 801, 900)) == 1


def test_word_crops_follow_split(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    cv2.imwrite(str(tmp_path / "words" / "w.jpg"), np.zeros((20, 40, 3), np.uint8))
    head = "file\tphoto\tx1\ty1\tx2\ty2\tx3\ty3\tx4\ty4\ttext\n"
    rows = [f"w.jpg\t{n}\t0\t0\t40\t0\t40\t20\t0\t20\t{t}" for n, t in ((5, '"A"'), (801, "b"))]
    rows.append("w.jpg\t6\t0\t0\t40\t0\t40\t20\t0\t20\t---")
    (tmp_path / "words.tsv").write_text(head + "\n".join(rows) + "\n")
    assert [c.text for c in reader_crops.word_crops(tmp_path, 1, 800)] == ['"A"']
    assert [c.text for c in reader_crops.word_crops(tmp_path, 801, 900)] == ["b"]


def test_empty_crops_avoid_every_word(tmp_path: Path) -> None:
    write_set(tmp_path)
    image = np.full((640, 960, 3), 60, np.uint8)
    image[:, :480] = 255
    cv2.imwrite(str(tmp_path / "images" / "img_800.jpg"), image)
    half = "0,0,640,0,640,720,0,720,###"  # the white half, in coordinates of 1280x720
    (tmp_path / "gt" / "gt_img_800.txt").write_text(half)
    crops = reader_crops.empty_crops(tmp_path, 1, 800, per_photo=40)
    assert 5 < len(crops) < 30
    assert {c.text for c in crops} == {""}
    assert all(cut(c.image, c.quad)[0][16:-16, 32:-32].max() < 90 for c in crops)


def test_street_photos_are_left_out_where_none_of_their_sets_is_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data set in it"):
        reader_crops.train_sets(tmp_path)
    write_set(tmp_path / "packages_words")
    assert [kind.name for kind in reader_crops.train_sets(tmp_path)] == ["packages"]
    assert reader_crops.train_empties(tmp_path) == []
    write_set(tmp_path / "icdar2015_train")
    with pytest.raises(SourceError, match="icdar2015_words"):  # a part of them was forgotten
        reader_crops.train_sets(tmp_path)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="photos"):
        reader_crops.photo_crops(tmp_path / "photos", 1, 2)
    with pytest.raises(SourceError, match=r"words\.tsv"):
        reader_crops.word_crops(tmp_path, 1, 2)
