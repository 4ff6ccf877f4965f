"""Quantising on one's own images: an int8 bundle that agrees, measured, or none at all."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.cli import main
from textspot_ray.commands.models_quantize import QuantizeOutcome, _refusal
from textspot_ray.errors import BundleError, ExitCode
from textspot_ray.records import ImageResult, Item, Word
from textspot_ray.spotting.bundle import describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.quantize import Agreement, agreement_of, calibrate
from textspot_ray.spotting.spotter import TextSpotter

try:
    importlib.import_module("nncf")
    NNCF = True
except ImportError:
    NNCF = False
needs_nncf = pytest.mark.skipif(not NNCF, reason="NNCF is not installed (extra quantize)")
# every word that calibrates has the largest symbol, 9: ranges are means of the words' maxima
WORDS = [{3: "north", 40: "exit9"}, {10: "west9"}, {77: "a9", 20: "harbour9"}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stub that reads, with an encoder of convolutions, so that there is what to quantise."""
    folder = write_stub_bundle(tmp_path_factory.mktemp("models") / "stub", signature="im_data")
    features = ops.parameter([1, 64, 28, 28], np.float32, name="input")
    features.output(0).set_names({"input"})
    x = features
    for channels in (64, 256):
        weights = np.zeros((256, channels, 1, 1), np.float32)
        weights[np.arange(64), np.arange(64)] = 1
        x = ops.convolution(x, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    x.output(0).set_names({"output"})
    encoder = ov.Model([ops.result(x)], [features], "encoder")
    ov.save_model(encoder, str(folder / "encoder.xml"), compress_to_fp16=False)
    names = {part: (f"{part}.xml", f"{part}.bin") for part in ("detector", "encoder", "decoder")}
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, precisions={"f32": describe_files(folder, names)}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(9):
        cv2.imwrite(str(folder / f"img_{i}.png"), draw(WORDS[i % 3]))
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gt")
    for i in range(9):
        lines = []
        for cell, text in WORDS[i % 3].items():
            y, x = divmod(cell, 8)
            x0, y0, x1, y1 = x * 160, y * 64, x * 160 + 160, y * 64 + 64
            lines.append(f"{x0},{y0},{x1},{y0},{x1},{y1},{x0},{y1},{text}")
        (folder / f"gt_img_{i}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTSPOT_CACHE", str(tmp_path / "cache"))


@needs_nncf
def test_int8_bundle_reads_the_same(
    bundle: Path, photos: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8"
    arguments = ["models", "quantize", str(bundle), "--calibrate", str(photos)]
    assert main([*arguments, "--gt", str(truth), "--out", str(out)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "held-out images: 3" in said
    assert "words as in the original: 100.0 %" in said
    assert "word spotting hmean: 100.00 % (original 100.00 %)" in said
    made = load_bundle(str(out))
    made.verify("int8")
    assert made.spec.default_precision == "int8"
    assert list(made.spec.precisions) == ["int8"]
    assert made.spec.provenance["original_sha256s"] == load_bundle(str(bundle)).sha256s("f32")
    assert made.sha256s("int8") != load_bundle(str(bundle)).sha256s("f32")
    kinds = {n.get_type_name() for n in ov.Core().read_model(str(out / "encoder.xml")).get_ops()}
    assert "FakeQuantize" in kinds
    words = TextSpotter.load(str(out), threads=1)(draw({5: "street", 50: "2026"}))
    assert [word.text for word in words] == ["street", "2026"]
    assert main([*arguments, "--out", str(out)]) == ExitCode.USAGE
    assert "exists; name another place with --out" in capsys.readouterr().err


@needs_nncf
def test_a_loss_above_the_stated_writes_nothing_unless_forced(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8"
    arguments = ["models", "quantize", str(bundle), "--calibrate", str(photos), "--out", str(out)]
    assert main([*arguments, "--min-agreement", "1.01"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "100.0 % of the words agree" in said
    assert "--force" in said
    assert not out.exists()
    assert main([*arguments, "--min-agreement", "1.01", "--force"]) == ExitCode.OK
    assert load_bundle(str(out)).spec.accuracy["words as in the original"] == "100.0 %"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.60, 0.595, None),
        (0.60, 0.70, None),
        (0.60, 0.585, "hmean falls by 0.015, more than --max-loss 0.01"),
        (0.0, 0.0, "finds no word of the ground truth"),
    ],
)
def test_with_ground_truth_the_loss_of_hmean_decides(
    before: float, after: float, said: str | None
) -> None:
    far_apart = Agreement(10, 100, 100, 100, words=100, other_words=100, same_text=1)
    arguments = argparse.Namespace(max_loss=0.01, min_agreement=0.9)
    refused = _refusal(QuantizeOutcome(far_apart, (before, after)), arguments)
    assert refused is None if said is None else said in str(refused)
    assert "1.0 % of the words agree" in str(_refusal(QuantizeOutcome(far_apart, None), arguments))


@needs_nncf
def test_ground_truth_that_fits_nothing_allows_nothing(
    bundle: Path, photos: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong --gt-size makes both figures 0: no loss, and no proof either."""
    out = tmp_path / "int8"
    arguments = ["models", "quantize", str(bundle), "--calibrate", str(photos), "--out", str(out)]
    assert main([*arguments, "--gt", str(truth), "--gt-size", "64x64"]) == ExitCode.USAGE
    assert "finds no word of the ground truth" in capsys.readouterr().err
    assert not out.exists()


@needs_nncf
def test_the_reader_can_be_left_alone(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    arguments = ["models", "quantize", str(bundle), "--calibrate", str(photos), "--out", str(out)]
    assert main([*arguments, "--detector-only"]) == ExitCode.OK
    for part in ("encoder", "decoder"):
        kinds = {
            n.get_type_name() for n in ov.Core().read_model(str(out / f"{part}.xml")).get_ops()
        }
        assert "FakeQuantize" not in kinds


@needs_nncf
def test_mistakes_are_one_line(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few").mkdir()
    cv2.imwrite(str(tmp_path / "few" / "one.png"), draw({}))
    out = ["--out", str(tmp_path / "int8")]
    code = main(["models", "quantize", str(bundle), "--calibrate", str(tmp_path / "few"), *out])
    assert code == ExitCode.USAGE
    assert "1 readable images are too few" in capsys.readouterr().err
    code = main(["models", "quantize", "/no/such", "--calibrate", str(photos), *out])
    assert code == ExitCode.USAGE
    assert "no model" in capsys.readouterr().err


def test_calibration_sees_what_the_parts_see(bundle: Path) -> None:
    pictures = [cv2.imencode(".png", draw(words))[1].tobytes() for words in WORDS]
    seen = calibrate(load_bundle(str(bundle)), [b"no image", *pictures])
    assert len(seen.inputs) == 3
    assert np.array_equal(seen.inputs[0][0][0].transpose(1, 2, 0), draw(WORDS[0]))
    assert seen.inputs[0][1].tolist() == [[768, 1280, 1]]
    assert [len(page) for page in seen.features] == [0, 2, 1, 2]
    assert seen.features[1].shape == (2, 64, 28, 28)


def test_images_that_cannot_be_read_calibrate_nothing(bundle: Path) -> None:
    with pytest.raises(BundleError, match="none of the calibration images"):
        calibrate(load_bundle(str(bundle)), [b"no image"])


def result(*words: tuple[str, float], confidence: float = 1.0) -> ImageResult:
    made = tuple(
        Word(text, confidence, (), 1.0, (x, 0.0, x + 10, 10.0), (0.0,) * 8, 0.0)
        for text, x in words
    )
    return ImageResult(item=Item("x", "x"), page=0, info=None, words=made)


def test_agreement_pairs_the_best_overlap_and_counts_both_sides() -> None:
    before = {"a": result(("one", 0), ("two", 100)), "b": result(("far", 0)), "c": result()}
    after = {"a": result(("tvo", 101), ("uno", 2), ("one", 1)), "b": result(("far", 50))}
    found = agreement_of(before, after)
    assert found == Agreement(
        images=3, boxes=3, other_boxes=4, paired=2, words=3, other_words=4, same_text=1
    )
    assert found.box_agreement == pytest.approx(4 / 7)
    assert found.word_agreement == pytest.approx(2 / 7)


def test_a_word_counts_if_one_of_the_two_is_sure_of_it() -> None:
    sure, unsure = (
        result(("one", 0), ("two", 100)),
        result(("one", 0), ("tvo", 100), ("noise", 200), confidence=0.1),
    )
    noise = result(("x", 0)), result(("y", 0), confidence=0.1)
    found = agreement_of({"a": sure}, {"a": unsure}, 0.5)
    assert (found.words, found.other_words, found.same_text) == (2, 2, 1)
    assert found.word_agreement == 0.5
    assert agreement_of({"a": unsure}, {"a": sure}, 0.5).word_agreement == 0.5
    found = agreement_of({"a": noise[1]}, {"a": noise[1]}, 0.5)
    assert (found.paired, found.words, found.word_agreement) == (1, 0, 1.0)
    assert agreement_of({"a": noise[0]}, {"a": noise[1]}, 0.5).word_agreement == 0.0


def test_nothing_found_by_either_is_agreement() -> None:
    assert agreement_of({"a": result()}, {"a": result()}).word_agreement == 1.0
