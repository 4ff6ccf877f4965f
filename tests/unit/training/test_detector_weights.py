"""The detector's weights: what is loaded, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.detector import weights as detector_weights
from jobs.training.detector.network import DetectorTrunk
from textspot_ray.errors import UsageError


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such checkpoint"):
        detector_weights.load_weights(tmp_path / "none.pt")
    torch.save({"averaged": [1, 2]}, tmp_path / "odd.pt")
    with pytest.raises(UsageError, match="holds no weights"):
        detector_weights.load_weights(tmp_path / "odd.pt")


def test_weights_made_with_another_enlargement_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    trunk, path = DetectorTrunk(), tmp_path / "detector.npz"
    detector_weights.save_weights(trunk.state_dict(), path)
    again = detector_weights.load_trunk(path)
    torch.testing.assert_close(again.head.weight, trunk.head.weight, atol=1e-4, rtol=1e-3)
    monkeypatch.setitem(detector_weights.SETTINGS, "enlargement", 1.5)
    with pytest.raises(UsageError, match=r"detector\.npz: .* enlargement 1\.25.* 1\.5"):
        detector_weights.load_trunk(path)


def test_weights_from_before_settings_were_stored_load(tmp_path: Path) -> None:
    trunk = DetectorTrunk()
    plain = {k: v.numpy() for k, v in trunk.state_dict().items() if v.is_floating_point()}
    np.savez(tmp_path / "old.npz", **plain)
    again = detector_weights.load_trunk(tmp_path / "old.npz")
    torch.testing.assert_close(again.head.weight, trunk.head.weight)
