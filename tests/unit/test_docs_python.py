"""The examples of the Python pages run as they stand, with the tests' bundle as the model."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "least"), [("python.md", 6), ("pipelines.md", 2)])
def test_examples_run(
    page: str,
    least: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import textspot_ray.spotting.catalogue as catalogue

    stub = write_stub_bundle(tmp_path / "stub")
    monkeypatch.setattr(catalogue, "built_in_folder", lambda name: stub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = cv2.imencode(".jpg", draw({3: "one", 70: "two"}))[1].tobytes()
    for path in ("photo.jpg", "photos/a.jpg"):
        (tmp_path / path).write_bytes(photo)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= least
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, f"{page}:{block.splitlines()[0]}", "exec"), names)
    assert "one" in capsys.readouterr().out
