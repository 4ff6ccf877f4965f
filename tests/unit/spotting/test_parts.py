"""Boxes that may be several words: which parts belong to them, and what reading decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.images.decode import Decoded
from textspot_ray.records import DetectedPage, Detection, Item, PageInfo, Reading, Readings
from textspot_ray.spotting.bundle import describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import PART_LABEL
from textspot_ray.spotting.parts import chosen, wholes_and_parts, with_parts
from textspot_ray.spotting.settings import SpotterSettings
from textspot_ray.spotting.spotter import PageDetector, assemble
from textspot_ray.spotting.tiling import Seen, TileWindow


def box(left: float, right: float, score: float = 0.9, *, top: float = 0.0) -> Detection:
    corners = (left, top, right, top, right, top + 20, left, top + 20)
    return Detection(score, (left, top, right, top + 20), corners, 0.0)


def read(text: str, confidence: float) -> Reading:
    return Reading(text, confidence, (confidence,) * len(text))


JOINED = [box(0, 100), replace(box(0, 45), part_of=0), replace(box(55, 100), part_of=0)]


def test_parts_belong_to_the_box_of_their_score_that_they_lie_in() -> None:
    rows = [box(0, 45), box(0, 100), box(0, 100, top=50), box(55, 100), box(10, 90, 0.8)]
    placed = wholes_and_parts(rows, [True, False, False, True, False])
    assert [number for number, _ in placed] == [1, 2, 4, 0, 3]
    assert [detection.part_of for _, detection in placed] == [None, None, None, 0, 0]


@pytest.mark.parametrize("score", [0.7, 0.9])
def test_parts_without_their_box_are_left_out(score: float) -> None:
    """None has their score, or the one that has it is elsewhere."""
    placed = wholes_and_parts([box(300, 400), box(0, 45, score)], [False, True])
    assert [number for number, _ in placed] == [0]


def test_parts_follow_the_boxes_that_were_kept() -> None:
    window = TileWindow(0, 0, 500, 100, 1.0)
    rows = [box(0, 100), box(200, 300), box(300, 400), box(200, 245), box(0, 45)]
    rows[3], rows[4] = replace(rows[3], part_of=1), replace(rows[4], part_of=0)
    seen = [Seen(detection, window, row) for row, detection in enumerate(rows)]
    found = with_parts([seen[2], seen[1]], seen)
    assert [s.row for s in found] == [2, 1, 3]
    assert [s.detection.part_of for s in found] == [None, None, 1]


@pytest.mark.parametrize(
    ("readings", "kept"),
    [
        (("tiptop", 0.1, "tip", 0.9, "top", 0.8), [False, True, True]),
        (("sale", 0.9, "sa", 0.95, "le", 0.99), [True, False, False]),  # one wide word
        (("tiptop", 0.1, "tip", 0.9, "top", 0.2), [True, False, False]),  # one part is no surer
        (("wasc7399", 0.2, "asc7399", 0.9, "", 0.9), [False, True, False]),  # and its rim
        (("", 0.0, "tip", 0.9, "top", 0.8), [False, True, True]),
        (("tiptop", 0.1, "", 0.9, "", 0.9), [True, False, False]),
    ],
)
def test_what_is_read_clearly_more_surely_becomes_words(
    readings: tuple[str | float, ...], kept: list[bool]
) -> None:
    texts = [read(str(t), float(c)) for t, c in zip(readings[::2], readings[1::2], strict=True)]
    assert chosen(JOINED, texts) == kept


def test_a_part_that_is_another_box_as_well_is_left_to_that() -> None:
    readings = [read("tiptop", 0.1), read("tip", 0.9), read("top", 0.9), read("top", 0.8)]
    assert chosen([*JOINED, box(56, 101)], readings) == [False, True, False, True]


def test_boxes_without_parts_all_become_words() -> None:
    assert chosen([box(0, 10), box(20, 30)], [read("", 0), read("a", 0.1)]) == [True, True]
    assert chosen([], []) == []


def parting_detector() -> ov.Model:
    """Four rows: one box with two parts, and a lone part."""
    image = ops.parameter([1, 3, 64, 128], np.float32, name="image")
    image.output(0).set_names({"image"})
    nothing = ops.multiply(ops.reduce_max(image, np.array([0, 1, 2, 3])), np.float32(0))
    rows = np.array(
        [
            [55, 0, 100, 20, 0.9],
            [0, 0, 100, 20, 0.9],
            [0, 0, 45, 20, 0.9],
            [0, 30, 45, 50, 0.8],
        ],
        np.float32,
    )
    outputs = {
        "labels": ops.constant(np.array([PART_LABEL, 0, PART_LABEL, PART_LABEL], np.int32)),
        "boxes": ops.add(ops.constant(rows), nothing),
        "masks": ops.constant(np.ones((4, 28, 28), np.float32)),
        "text_features": ops.constant(np.zeros((4, 64, 28, 28), np.float32)),
    }
    results = []
    for name, node in outputs.items():
        node.output(0).set_names({name})
        results.append(ops.result(node))
    return ov.Model(results, [image], "detector")


def test_a_detector_says_which_rows_are_parts(tmp_path: Path) -> None:
    folder = write_stub_bundle(tmp_path / "parting")
    ov.save_model(parting_detector(), str(folder / "detector.xml"), compress_to_fp16=False)
    names = {part: (f"{part}.xml", f"{part}.bin") for part in ("detector", "encoder", "decoder")}
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, precisions={"f32": describe_files(folder, names)}))
    pages = PageDetector(SpotterSettings(str(folder)))
    image = np.zeros((64, 128, 3), np.uint8)
    detected, features = pages.detect_pixels(Decoded(image, 128, 64, 1, 1, "pixels", 1, 1))
    assert [d.part_of for d in detected.detections] == [None, 0, 0]
    assert [round(d.box[2]) for d in detected.detections] == [100, 100, 45]
    assert len(features) == 3


def test_a_pages_words_are_those_chosen() -> None:
    info = PageInfo(200, 50, "pixels", 1)
    readings = (read("tiptop", 0.1), read("tip", 0.9), read("top", 0.8), read("", 0.0))
    detected = DetectedPage(info, (*JOINED, box(120, 150)), None)
    result = assemble(Item("", ""), 0, detected, Readings(readings, 0.0))
    assert [word.text for word in result.words] == ["tip", "top"]
    assert result.words[0].box == pytest.approx((0, 0, 45, 20))
    assert result.n_unread == 1
    assert np.isfinite([word.text_confidence for word in result.words]).all()
