"""The reader's training command."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
torch.set_num_threads(1)

from jobs.training.reader import network as net
from jobs.training.reader import train as training
from tests.support.tiny_reader import draw


def test_command_trains_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "word_renderer", lambda props: draw)
    monkeypatch.setattr(training, "props_of", lambda extra, backgrounds: None)
    monkeypatch.setattr(training, "scene_empties", lambda props, count: [])
    monkeypatch.setattr(training, "rendered_sets", lambda renderer: {"easy": []})
    size = ["--tall-blocks", "0"]
    command = ["--work", str(tmp_path), "--minutes", "0.02", "--batch", "4", "--no-bf16", *size]
    training.main(command)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert len(rows) == 2
    training.main([*command, "--workers", "1"])
    header, first, second = (tmp_path / "log.csv").read_text().splitlines()
    at = header.split(",").index("step")
    assert int(second.split(",")[at]) > int(first.split(",")[at]) > 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert net.load_reader(tmp_path / "reader.npz")[0].size.tall_blocks == 0
