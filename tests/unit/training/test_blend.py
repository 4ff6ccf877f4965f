"""Weights between two files: half way is the mean, and strangers are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [train]")

from jobs.training.loop import blend
from textspot_ray.errors import UsageError


def write(path: Path, value: float, setting: float = 1.25, size: int = 3) -> Path:
    arrays = {"w": np.full(size, value, np.float16), "made_with.x": np.array(setting)}
    np.savez(path, **arrays)
    return path


def test_a_share_is_a_mean_of_both(tmp_path: Path) -> None:
    old, new = write(tmp_path / "a.npz", 1.0), write(tmp_path / "b.npz", 3.0)
    out = tmp_path / "c.npz"
    assert blend.main([str(old), str(new), "--share", "0.25", "--out", str(out)]) == 0
    found = blend.read(out)
    assert found["w"].dtype == np.float16 and found["w"].tolist() == [1.5] * 3
    assert found["made_with.x"] == 1.25


def test_other_networks_settings_and_files_are_refused(tmp_path: Path) -> None:
    old = write(tmp_path / "a.npz", 1.0)
    for name, other, message in (
        ("b", {"size": 4}, "different networks"),
        ("c", {"setting": 1.5}, r"differ in made_with\.x"),
    ):
        new = write(tmp_path / f"{name}.npz", 3.0, **other)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=message):
            blend.main([str(old), str(new), "--out", str(tmp_path / "x.npz")])
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(UsageError, match=r"text\.npz: no weights"):
        blend.read(tmp_path / "text.npz")
    with pytest.raises(UsageError, match="from 0 to 1"):
        blend.main([str(old), str(old), "--share", "2", "--out", str(tmp_path / "x.npz")])
