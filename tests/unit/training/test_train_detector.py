"""The detector's training command."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.data.datasets import Photo
from jobs.training.detector import batches
from jobs.training.detector import train as train_detector
from jobs.training.detector.batches import SceneSource, Source
from jobs.training.detector.crops import CropRules
from jobs.training.detector.network import DetectorTrunk
from jobs.training.detector.sources import sources_of, validation_photos
from jobs.training.detector.weights import load_weights
from textspot_ray.errors import UsageError


def write_photos(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "gt").mkdir()
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 801):
        image = rng.integers(0, 60, (96, 160, 3), dtype=np.uint8)
        cv2.putText(image, "WORD", (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (255,) * 3, 2)
        cv2.imwrite(str(root / "images" / f"img_{n}.png"), image)
        gt = "240,270,864,270,864,465,240,465,WORD\n"
        (root / "gt" / f"gt_img_{n}.txt").write_text(gt)
    return root


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "ic15")
    command = ["--work", str(tmp_path / "work"), "--icdar2015", str(photos), "--crop", "64"]
    command += ["--batch", "2", "--minutes", "0.01", "--validate-every", "1000"]
    assert train_detector.main(command) == 0
    last = tmp_path / "work" / "last.pt"
    first = torch.load(last, weights_only=True)
    assert first["step"] > 0
    assert train_detector.main(command) == 0
    second = torch.load(last, weights_only=True)
    assert second["step"] > first["step"]
    assert second["minutes"] > first["minutes"]
    assert second["steps_averaged"] > first["steps_averaged"]
    assert not list((tmp_path / "work").glob("*.tmp"))
    weights = load_weights(last)
    DetectorTrunk().load_state_dict(weights)


def test_photos_to_measure_on_are_not_learnt_from(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "sets" / "icdar2015_train")
    options = train_detector.arguments()
    args = options.parse_args(["--work", "w", "--scenes", "1", "--validation", str(photos.parent)])
    (validation,) = validation_photos(args)
    assert validation.path.stem == "img_801"
    sources = sources_of(args, train_detector.mixture(64))
    assert [type(source) for source in sources] == [SceneSource]


def test_photos_with_ground_truth_are_no_photos_without_text(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    command = ["--work", "w", "--scenes", "1", "--backgrounds", str(photos)]
    args = train_detector.arguments().parse_args(command)
    (only,) = sources_of(args, train_detector.mixture(64))
    assert isinstance(only, SceneSource) and only.backgrounds == photos


def test_training_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--icdar2015"):
        train_detector.main(["--work", str(tmp_path)])


def test_decoded_photos_are_kept_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [Photo(tmp_path / f"{i}.png", ()) for i in range(5)]
    for photo in photos:
        cv2.imwrite(str(photo.path), np.full((40, 50, 3), 90, np.uint8))
    monkeypatch.setattr(batches, "_KEPT_BYTES", 2 * 40 * 50 * 3)
    source = Source(photos, 1.0, CropRules(size_px=32, scale_range=(1.0, 1.0)))
    rng = np.random.default_rng(0)
    crops = [source.draw(rng)[0] for _ in range(30)]
    assert {crop.shape for crop in crops} == {(32, 32, 3)}
    assert len(source.cache) == 2
