"""A detector that is reshaped to the picture: which shape, where the words are, and tiles alike."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.config import ImageConfig
from textspot_ray.errors import BundleError
from textspot_ray.images.decode import Decoded
from textspot_ray.spotting.bundle import BundleSpec, describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import SCORE_MAP
from textspot_ray.spotting.composite.detector import Detector, pyramid
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import PageDetector

SHAPES = ((1280, 768), (768, 1280), (1024, 1024))


def shape_telling_detector(*, score_map: bool = False) -> ov.Model:
    """One row, the whole input: x_max and y_max are its width and height."""
    image = ops.parameter([1, 3, 768, 1280], np.float32, name="image")
    image.output(0).set_names({"image"})
    size = ops.convert(ops.shape_of(image), "f32")

    def at(index: int) -> ov.Node:
        return ops.gather(size, np.array([index], np.int64), np.int64(0))

    brightest = ops.reduce_max(image, np.array([1]), keep_dims=True)
    if score_map:
        brightest.output(0).set_names({SCORE_MAP})
    light = ops.reshape(ops.reduce_max(brightest, np.array([0, 1, 2, 3])), np.array([1]), False)
    score = ops.add(ops.multiply(light, np.float32(0)), np.float32(0.9))
    zero = np.zeros(1, np.float32)
    row = ops.unsqueeze(ops.concat([zero, zero, at(3), at(2), score], 0), np.int64(0))
    outputs = {
        "boxes": row,
        "masks": ops.constant(np.ones((1, 28, 28), np.float32)),
        "text_features": ops.constant(np.zeros((1, 64, 28, 28), np.float32)),
    }
    results = []
    for name, node in outputs.items():
        node.output(0).set_names({name})
        results.append(ops.result(node))
    return ov.Model(results, [image], "detector")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_stub_bundle(tmp_path_factory.mktemp("models") / "shapes")
    ov.save_model(shape_telling_detector(), str(folder / "detector.xml"), compress_to_fp16=False)
    names = {part: (f"{part}.xml", f"{part}.bin") for part in ("detector", "encoder", "decoder")}
    spec = replace(
        load_bundle(str(folder)).spec,
        precisions={"f32": describe_files(folder, names)},
        resize="keep_aspect",
        shapes=SHAPES,
    )
    write_spec(folder, spec)
    return folder


def detector_of(pages: PageDetector) -> Detector:
    found: Detector = pages._regions._detector  # type: ignore[attr-defined]
    return found


def decoded(width: int, height: int) -> Decoded:
    return Decoded(np.zeros((height, width, 3), np.uint8), width, height, 1, 1, "pixels", 1, 1)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1600, 900), (1280, 768)),
        ((900, 1600), (768, 1280)),
        ((500, 500), (1024, 1024)),
        ((640, 480), (1280, 768)),
        ((400, 1000), (768, 1280)),
    ],
)
def test_a_picture_takes_the_shape_that_shows_it_largest(
    folder: Path, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    pages = PageDetector(SpotterSettings(str(folder), image=ImageConfig(tiles="off")))
    detected, _ = pages.detect_pixels(decoded(*size))
    (word,) = detected.detections
    # the row spans the whole input, of which the picture is a part: clipped to the picture
    assert word.box == pytest.approx((0, 0, *size))
    found = detector_of(pages).detect(np.zeros((size[1], size[0], 3), np.uint8))
    scale = min(shape[0] / size[0], shape[1] / size[1])
    assert found.boxes[0, 2:] == pytest.approx((shape[0] / scale, shape[1] / scale), rel=0.01)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        # 4:3: as large as in 1280 x 768, a fifth of which would be empty
        ((640, 480), (1024, 768)),
        ((480, 640), (768, 1024)),
        ((1280, 720), (1280, 768)),
        ((700, 600), (1024, 1024)),
    ],
)
def test_no_more_of_the_input_is_empty_than_need_be(
    folder: Path, tmp_path: Path, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    other = tmp_path / "mapped"
    shutil.copytree(folder, other)
    model = shape_telling_detector(score_map=True)
    ov.save_model(model, str(other / "detector.xml"), compress_to_fp16=False)
    spec = load_bundle(str(folder)).spec
    names = {part: (f"{part}.xml", f"{part}.bin") for part in ("detector", "encoder", "decoder")}
    write_spec(other, replace(spec, precisions={"f32": describe_files(other, names)}))
    detector = detector_of(PageDetector(SpotterSettings(str(other))))
    found = detector.detect(np.zeros((size[1], size[0], 3), np.uint8))
    largest = max(min(w / size[0], h / size[1]) for w, h in SHAPES)
    assert found.boxes[0, 2:] == pytest.approx((shape[0] / largest, shape[1] / largest), rel=0.01)


def test_a_picture_nearly_of_its_shape_fills_it(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "filling"
    shutil.copytree(folder, other)
    write_spec(other, replace(load_bundle(str(folder)).spec, max_stretch=1.12))
    detector = detector_of(PageDetector(SpotterSettings(str(other))))
    for size, filled in (((960, 640), True), ((640, 960), True), ((1024, 768), False)):
        found = detector.detect(np.zeros((size[1], size[0], 3), np.uint8))
        # the row is the whole input: no larger than the window where that fills it
        assert (tuple(found.boxes[0, 2:]) == pytest.approx(size)) == filled
    told = result_fingerprint(resolve(SpotterSettings(str(other)), verify=False))["resize"]
    assert told.endswith("stretch 1.12 smallest")


def test_an_enlarged_pyramid_changes_neither_tiles_nor_coordinates(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "pyramid"
    shutil.copytree(folder, other)
    larger = tuple((w * 5 // 4, h * 5 // 4) for w, h in SHAPES)
    spec = replace(load_bundle(str(folder)).spec, shapes=larger, enlargement=1.25, pyramid=True)
    write_spec(other, spec)
    pages, plain = (PageDetector(SpotterSettings(str(f))) for f in (other, folder))
    assert detector_of(pages).input_size == detector_of(plain).input_size == (1280, 768)
    assert pages._passes(3000, 5000) == plain._passes(3000, 5000)
    for width, height in ((1280, 768), (768, 1280), (640, 384), (2560, 1536)):
        found = detector_of(pages).detect(np.zeros((height, width, 3), np.uint8))
        # the row is the whole of what the graph sees: the picture, and below it half as much
        assert found.boxes[0, 2:] == pytest.approx((width, height * 1.5))
    told = result_fingerprint(resolve(SpotterSettings(str(other)), verify=False))["resize"]
    assert told.endswith("enlarged 1.25 smallest")


def test_a_pyramid_holds_the_picture_and_its_copies() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    packed = pyramid(image)
    assert packed.shape == (3, 48, 48)
    assert (packed[:, :32].transpose(1, 2, 0) == image).all()
    left = 0
    for side in (2, 4, 8):
        blocks = image.reshape(32 // side, side, 48 // side, side, 3).mean((1, 3))
        copy = packed[:, 32 : 32 + 32 // side, left : left + 48 // side].transpose(1, 2, 0)
        assert np.abs(copy - blocks).max() <= 1.5  # rounded once a level
        left += 48 // side


def test_tiles_have_the_shape_of_their_picture(folder: Path) -> None:
    pages = PageDetector(SpotterSettings(str(folder)))
    standing = pages._passes(3000, 5000)
    assert len(standing) == 10
    assert {(p.width, p.height) for p in standing[:-1]} == {(1536, 2560)}
    assert {(p.width, p.height) for p in pages._passes(5000, 3000)[:-1]} == {(2560, 1536)}


def test_strips_are_tiled_before_they_are_too_small(folder: Path) -> None:
    """A receipt five times as long as wide fills a fifth of an input: whole it would be a blur."""
    pages = PageDetector(SpotterSettings(str(folder)))
    strip = pages._passes(500, 2500)
    assert len(strip) > 1
    assert max(p.shrink for p in strip[:-1]) < 1.3
    # one that the input shows as it is stays whole, and so does a photo of any ordinary aspect
    assert len(pages._passes(300, 1200)) == len(pages._passes(2400, 1400)) == 1
    assert len(pages._passes(463, 1013)) == 1


def test_shapes_are_in_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    found = result_fingerprint(resolve(SpotterSettings(str(folder)), verify=False))
    assert found["resize"] == "keep_aspect linear 1280x768 768x1280 1024x1024 smallest"
    assert "cut by saturation" in found["tiles"]
    off = SpotterSettings(str(folder), image=ImageConfig(tiles="off"))
    assert result_fingerprint(resolve(off, verify=False))["tiles"] == "off"


def test_a_graph_that_cannot_be_reshaped_is_refused(tmp_path: Path) -> None:
    folder = write_stub_bundle(tmp_path / "fixed")
    spec: BundleSpec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, resize="keep_aspect", shapes=((640, 640),)))
    with pytest.raises(BundleError, match="cannot be reshaped to 640 x 640"):
        PageDetector(SpotterSettings(str(folder)))
