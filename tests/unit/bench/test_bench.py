"""The bench measures what it says: its baseline reads the same words, its ratios are ratios."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.bench import suite
from jobs.bench.bare import DecoderSteps
from jobs.bench.demo_way import DemoWay
from jobs.bench.embedded import PeerProcess, interpreter
from jobs.bench.lines import mixed
from jobs.bench.pipeline import Pipeline
from jobs.bench.program import main
from jobs.bench.report import ratio_table, settings_yaml, stage_table
from jobs.bench.timing import Timing, interleave, ratio
from tests.support.fast_folder import fast_folder
from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.config import EngineConfig, load_config
from textspot_ray.errors import MissingExtraError, UsageError
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.spotter import TextSpotter

WORDS = {3: "north", 40: "exit9", 77: "harbour"}


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stub_bundle(tmp_path_factory.mktemp("models") / "stub")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "img.png"
    cv2.imwrite(str(path), draw(WORDS))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "cache"))


def test_variants_take_turns_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []

    def work(name: str, units: int) -> int:
        turns.append(name)
        return units

    times = interleave({"a": lambda: work("a", 1), "b": lambda: work("b", 5)}, 2)
    assert turns == ["a", "b"] * 3
    assert [len(t.wall_s) for t in times.values()] == [2, 2]


def test_ratio_is_taken_round_by_round() -> None:
    """A round twice as slow for both leaves the ratio as it is."""
    slow, fast = Timing((4.0, 8.0, 4.0), (2.0,) * 3), Timing((2.0, 4.0, 2.0), (1.0,) * 3)
    found = ratio(slow, fast)
    assert (found.low, found.median, found.high, found.cpu) == (2.0, 2.0, 2.0, 2.0)
    assert fast.ms == 2000.0
    assert slow.per_s == 0.25


def test_the_demos_way_reads_the_same_words(stub: Path, photo: Path) -> None:
    words = TextSpotter.load(str(stub), threads=1)(str(photo))
    demo = DemoWay(load_bundle(str(stub)), max_steps=28)(photo)
    assert [text for text, _ in demo] == [w.text for w in words] == list(WORDS.values())
    assert [c for _, c in demo] == pytest.approx([w.text_confidence for w in words], abs=1e-5)


def test_cut_steps_are_compared_with_published_ones(stub: Path) -> None:
    steps = DecoderSteps(load_bundle(str(stub)), "f32")
    assert steps.largest_difference(5) < 1e-4
    assert steps.published(3) == steps.cut(3) == 3


def test_the_pipeline_is_measured_to_committed_tables(stub: Path, photo: Path) -> None:
    with fast_folder() as work:
        options = suite.Options(
            photos=[photo],
            work=work,
            precisions=("f32",),
            cores=1,
            streams=1,
            images=4,
            rounds=1,
            model=str(stub),
        )
        lines, stages = suite.without_text(options)
    (line,) = lines
    assert line.ratio.median == pytest.approx(line.slow.ms / line.fast.ms)
    assert {"read", "decode", "detect", "write", "wait", "wall"} <= set(stages[0].ms)
    assert stages[0].ms["detect"] > 0
    assert "f32 pipeline on empty photos / bare detector" in ratio_table(lines)
    assert "| f32, no text |" in stage_table(stages)


def test_recognition_is_told_apart_into_encoder_and_steps(stub: Path) -> None:
    table = suite.Stages("x", {"detect": 5.0, "recognise": 3.0})
    split = suite._with_reading_split(table, load_bundle(str(stub)), "f32").ms
    assert set(split) == {"detect", "encode", "step"}
    assert split["encode"] > 0 and split["step"] > 0
    assert split["encode"] + split["step"] == pytest.approx(3.0)
    assert "| encode | step |" in stage_table([table])


def test_rounds_are_whole_shards_of_one_size(stub: Path, photo: Path) -> None:
    """So that every round is the same work, and the last one has as many images as the first."""
    with fast_folder() as work:
        pipeline = Pipeline(
            str(stub),
            "f32",
            [photo],
            work / "tables",
            images=5,
            rounds=3,
            engine=EngineConfig(kind="local", threads=1),
        )
        try:
            assert [pipeline() for _ in range(3)] == [6, 6, 6]
        finally:
            pipeline.close()
    assert pipeline.spent.images == 18
    assert pipeline.spent.words == 18 * len(WORDS)


def test_swept_settings_are_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(settings_yaml(8, 4, 2, "the fastest"))
    engine = load_config(path).engine
    assert (engine.threads, engine.threads_per_inference, engine.detectors_per_slot) == (8, 2, 2)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--photos", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: no images")
    assert said.count("\n") == 1


def test_rapidocr_in_another_interpreter(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot run"):
        PeerProcess("/no/such/python", "", 1, [photo], "RapidOCR")
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr("jobs.bench.embedded.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"textspot-ray\[bench\]"):
        interpreter(None)


def test_a_peer_answers_with_its_words_until_it_ends(photo: Path) -> None:
    program = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    print(int(line) * (len(sys.argv) - 2) if int(line) < 9 else "", flush=True)
"""
    peer = PeerProcess(sys.executable, program, 1, [photo, photo], "a peer")
    try:
        assert peer(3) == 3 and peer.words == 6
        with pytest.raises(UsageError, match="the process of a peer ended"):
            peer(9)
    finally:
        peer.close()
    with pytest.raises(UsageError, match="cannot run a peer: ImportError: no such thing"):
        PeerProcess(sys.executable, "raise ImportError('no such thing')", 1, [photo], "a peer")


def test_images_of_several_folders_take_turns(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "a/3.png", "b/9.jpg", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = mixed([tmp_path / "a", tmp_path / "b"], (".png", ".jpg"))
    assert [p.name for p in found] == ["1.png", "9.jpg", "2.png", "9.jpg", "3.png", "9.jpg"]


def fake_rapidocr(folder: Path, answers: list[str], status: int = 0) -> Path:
    """An interpreter that answers so, whatever it is asked to run."""
    program = folder / "python"
    lines = "".join(f"echo '{answer}'\n" for answer in answers)
    program.write_text(f"#!/bin/sh\n{lines}echo no onnxruntime >&2\nexit {status}\n")
    program.chmod(0o755)
    return program


def test_rapidocr_is_scored_in_pixels_of_the_ground_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("img_1.png", "img_2.png", "other.png"):
        cv2.imwrite(str(photos / name), np.zeros((50, 100, 3), np.uint8))
    gt = tmp_path / "gt"
    gt.mkdir()
    # the ground truth is of pictures twice as large
    words = ["20,20,80,20,80,40,20,40,Exit", "120,20,180,20,180,40,120,40,way"]
    (gt / "gt_img_1.txt").write_text("\n".join(words))
    (gt / "gt_img_2.txt").write_text("20,20,80,20,80,40,20,40,###\n")
    found = [["exit", [10, 10, 40, 10, 40, 20, 10, 20]], ["vay", [60, 10, 90, 10, 90, 20, 60, 20]]]
    python = fake_rapidocr(tmp_path, [json.dumps(found), "[]"])
    asked = ["--photos", str(photos), "--rapidocr-python", str(python), "--gt-size", "200x100"]
    assert main(["--rapidocr-accuracy", str(gt), *asked]) == 0
    table = capsys.readouterr().out
    assert "RapidOCR, 2 photos" in table
    assert "| word-spotting | 50.00% | 50.00% | 50.00% |" in table
    assert "| detection | 100.00% | 100.00% | 100.00% |" in table


def test_rapidocr_that_fails_is_told_in_a_line(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gt = tmp_path / "gt"
    gt.mkdir()
    (gt / "gt_img.txt").write_text("1,1,9,1,9,9,1,9,a\n")
    python = fake_rapidocr(tmp_path, [], status=1)
    asked = ["--photos", str(photo.parent), "--rapidocr-python", str(python)]
    assert main(["--rapidocr-accuracy", str(gt), *asked]) == 2
    said = capsys.readouterr().err
    assert "no onnxruntime" in said and said.count("\n") == 1
