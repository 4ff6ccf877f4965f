"""The pipelines of the documentation, run as they stand: Ray Data under Ray, and `datasets`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "jobs" / "demo" / "photos"
PAGES = ("README.md", "docs/start.md", "docs/python.md", "docs/pipelines.md")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in sorted(PHOTOS.iterdir())[:4]:
        shutil.copy(path, tmp_path / "photos")
    return tmp_path / "photos"


def test_ray_data_runs_the_spotter(photos: Path) -> None:
    """In a program of its own: Ray Data brings a Ray of this machine up and down."""
    import pyarrow.parquet as pq

    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(import ray\n.*?)```", page, re.S)
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = pq.read_table("words").to_pylist()
    assert sorted(Path(row["path"]).name for row in rows) == sorted(
        p.name for p in photos.iterdir()
    )
    assert all(row["error"] == "" for row in rows)
    assert any(json.loads(row["words"]) for row in rows)


def test_datasets_maps_words_over_rows(photos: Path) -> None:
    datasets = pytest.importorskip("datasets")
    import textspot_ray as ts

    lost = photos / "lost.jpg"
    rows = datasets.Dataset.from_dict({"image": [*map(str, sorted(photos.iterdir())), str(lost)]})
    mapped = rows.map(ts.ray.add_words, fn_kwargs={"threads": 1}, writer_batch_size=1)
    assert mapped.column_names == ["image", "text", "words", "error"]
    *read, missing = mapped
    assert any(row["words"] for row in read) and all(row["error"] == "" for row in read)
    assert "No such file" in missing["error"]
    pictures = rows.select(range(2)).cast_column("image", datasets.Image())
    assert pictures.map(ts.ray.add_words, fn_kwargs={"threads": 1})["text"] == mapped["text"][:2]


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_examples_pass_strict_type_checkers(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    for name in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)
        assert blocks, name
        (tmp_path / f"{Path(name).stem}_examples.py").write_text("\n".join(blocks))
    if checker == "mypy":
        (tmp_path / "mypy.ini").write_text(
            "[mypy]\nstrict = True\nfollow_untyped_imports = False\n"
            f"mypy_path = {ROOT}\n[mypy-textspot_ray.*]\nfollow_imports = silent\n"
            "[mypy-pyarrow.*,cv2.*,openvino.*,pandas.*,fsspec.*,psutil.*,requests.*,yaml.*,ray.*]\n"
            "ignore_missing_imports = True\n"
        )
        command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "."]
    else:
        settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
        (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
