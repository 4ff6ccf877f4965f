"""Every variant of the contract runs and reads the same; what breaks it is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import check_encoder, decoder_ports, detector_ports
from textspot_ray.spotting.composite.family import _in_words
from textspot_ray.spotting.spotter import TextSpotter

WORDS = {0: "hello", 42: "w9", 95: "abcdefgh", 50: ""}
VARIANTS = [
    {},
    {"signature": "im_data"},
    {"rows": "dynamic"},
    {"signature": "im_data", "rows": "dynamic", "suffix": ".0"},
    {"symbol_shape": (1, 1)},
    {"symbol_type": "i32"},
    {"symbol_shape": (1, 1), "symbol_type": "i64", "suffix": ".0"},
    {"resize": "keep_aspect"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: " ".join(map(str, v.values())) or "-")
def test_all_variants_read_the_same(tmp_path: Path, variant: dict[str, object]) -> None:
    folder = write_stub_bundle(tmp_path / "stub", **variant)  # type: ignore[arg-type]
    spotter = TextSpotter.load(str(folder), threads=1)
    words = {w.text: w for w in spotter(draw(WORDS))}
    assert set(words) == {"hello", "w9", "abcdefgh"}
    assert words["w9"].box == pytest.approx((320, 320, 480, 384), abs=0.5)
    xs, ys = words["w9"].polygon[0::2], words["w9"].polygon[1::2]
    assert words["w9"].box == (min(xs), min(ys), max(xs), max(ys))
    assert len(words["hello"].char_confidences) == 5
    assert spotter(draw({})) == [], "no detections is an answer, not a fault"


@pytest.mark.parametrize("resize", ["stretch", "keep_aspect"])
@pytest.mark.parametrize("size", [(640, 384), (1920, 1080), (900, 900), (2000, 600)])
def test_boxes_come_back_in_the_images_pixels(
    tmp_path: Path, resize: str, size: tuple[int, int]
) -> None:
    folder = write_stub_bundle(tmp_path / "stub", resize=resize)
    width, height = size
    picture = draw({9: "pixel"}, width, height)
    if resize == "keep_aspect":  # the lattice fills the input, so paint it where it will end up
        scale = min(1280 / width, 768 / height)
        full = draw({9: "pixel"})[: round(height * scale), : round(width * scale)]
        import cv2

        picture = cv2.resize(full, size, interpolation=cv2.INTER_AREA)
        expected = np.array([160, 64, 320, 128]) / scale
    else:
        expected = np.array([160, 64, 320, 128]) * np.tile([width / 1280, height / 768], 2)
    (word,) = TextSpotter.load(str(folder), threads=1)(picture)
    assert word.text == "pixel"
    assert word.box == pytest.approx(tuple(expected), abs=1.5)


def model(inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> ov.Model:
    parameters = []
    for name, shape in inputs.items():
        parameter = ops.parameter(shape, np.float32, name=name)
        parameter.output(0).set_names({name})
        parameters.append(parameter)
    results = []
    for name, shape in outputs.items():
        constant = ops.constant(np.zeros(shape, np.float32))
        constant.output(0).set_names({name})
        results.append(ops.result(constant))
    return ov.Model(results, parameters, "made")


IMAGE = {"image": [1, 3, 768, 1280]}
ROWS = {
    "labels": [100],
    "boxes": [100, 5],
    "masks": [100, 28, 28],
    "text_features": [100, 64, 28, 28],
}


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"data": [1, 3, 8, 8], "more": [1, 3, 8, 8]}, ROWS, "its inputs are data .*; more"),
        ({"image": [1, 1, 768, 1280]}, ROWS, r"wanted \[1, 3, H, W\]"),
        (IMAGE, {k: v for k, v in ROWS.items() if k != "masks"}, "no output for masks"),
        (IMAGE, {**ROWS, "boxes": [100, 4]}, "no output for boxes"),
        (IMAGE, {"logits": [1, 1000]}, "no output for boxes, masks, features"),
    ],
)
def test_foreign_detectors_are_refused(
    inputs: dict[str, list[int]], outputs: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        detector_ports(model(inputs, outputs), "detector.xml")
    assert "detector.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_names_are_told_by_shape() -> None:
    renamed = {f"out{i}": shape for i, shape in enumerate(ROWS.values())}
    ports = detector_ports(model(IMAGE, renamed), "x")
    assert (ports.labels, ports.boxes, ports.masks, ports.features) == (0, 1, 2, 3)
    assert (ports.width, ports.height) == (1280, 768)


def test_foreign_readers_are_refused() -> None:
    with pytest.raises(BundleError, match=r"enc\.xml is not a recognizer encoder"):
        check_encoder(model({"input": [1, 64, 14, 14]}, {"output": [1, 256, 14, 14]}), "enc.xml")
    step = {
        "encoder_outputs": [1, 784, 256],
        "prev_symbol": [1],
        "prev_hidden": [1, 1, 256],
    }
    out = {"output": [1, 38], "hidden": [1, 1, 256], "attention": [1, 784]}
    ports = decoder_ports(model(step, out), "dec.xml", 38)
    assert (ports.logits, ports.next_hidden) == (0, 1), "the attention output is not the logits"
    with pytest.raises(BundleError, match=r"dec\.xml yields 38 symbols, .* alphabet has 20"):
        decoder_ports(model(step, out), "dec.xml", 20)
    with pytest.raises(BundleError, match="not a recognizer decoder"):
        decoder_ports(model({**step, "prev_hidden": [1, 256]}, out), "dec.xml", 38)


def test_a_model_in_the_wrong_place_is_named(tmp_path: Path) -> None:
    folder = write_stub_bundle(tmp_path / "stub")
    spec = load_bundle(str(folder)).spec
    names = {"detector": "encoder", "encoder": "encoder", "decoder": "decoder"}
    swapped = describe_files(folder, {k: (f"{v}.xml", f"{v}.bin") for k, v in names.items()})
    write_spec(folder, replace(spec, precisions={"f32": swapped}))
    with pytest.raises(
        BundleError, match=r"encoder\.xml: the image input is input \[1, 64, 28, 28\]"
    ):
        TextSpotter.load(str(folder))


def test_truncated_weights_with_a_matching_checksum_are_one_line(tmp_path: Path) -> None:
    folder = write_stub_bundle(tmp_path / "stub")
    weights = folder / "detector.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    spec = load_bundle(str(folder)).spec
    parts = ("detector", "encoder", "decoder")
    files = describe_files(folder, {p: (f"{p}.xml", f"{p}.bin") for p in parts})
    write_spec(folder, replace(spec, precisions={"f32": files}))
    with pytest.raises(BundleError, match=r"detector\.xml cannot be read with detector\.bin") as e:
        TextSpotter.load(str(folder))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("alphabet", "told"),
    [
        ("abcdefghijklmnopqrstuvwxyz0123456789", "a-z and 0-9"),
        ("0123456789abcdefghijklmnopqrstuvwxyz", "a-z and 0-9"),
        ("abcdefghijklmnopqrstuvwxyz", "a-z"),
        ("0123", "0123"),
    ],
)
def test_what_a_bundle_reads_is_told_in_words(alphabet: str, told: str) -> None:
    assert _in_words(alphabet) == told
