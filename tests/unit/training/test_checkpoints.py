"""Checkpoints: replaced whole, read back, refused when they are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.loop import checkpoints
from textspot_ray.errors import UsageError


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save_checkpoint(path, {"step": 1})

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save_checkpoint(path, {"step": 2})
    assert checkpoints.load_checkpoint(path) == {"step": 1}


def test_arrays_come_back_without_their_settings(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    weights = {"a": torch.tensor([0.5, -2.0]), "num_batches": torch.tensor(3)}
    checkpoints.save_arrays(path, weights, {"looks": 2, "step": 0.25}, {"size.n": np.array([7])})
    loaded = checkpoints.load_arrays(path, {"looks": 2, "step": 0.25}, "refiner")
    assert sorted(loaded) == ["a", "size.n"]
    assert loaded["a"].dtype == np.float16
    assert loaded["a"].tolist() == [0.5, -2.0]
    assert loaded["size.n"].tolist() == [7]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"looks": 3.0}, "made with looks 2, but this version has 3; train again"),
        ({}, "made with looks 2, but this version has no such setting"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, own: dict[str, float], message: str) -> None:
    path = tmp_path / "w.npz"
    checkpoints.save_arrays(path, {"a": torch.zeros(1)}, {"looks": 2})
    with pytest.raises(UsageError, match=message):
        checkpoints.load_arrays(path, own, "refiner")


def test_what_is_no_npz_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, content in (("text.npz", b"hello"), ("cut.npz", b"PK\x03\x04"), ("none.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=name) as caught:
            checkpoints.load_arrays(tmp_path / name, {}, "refiner")
        assert "\n" not in str(caught.value)
