"""Lines of one width are read together, and read as if each were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lines_bundle import dark, draw_line, write_lines_bundle
from textspot_ray.spotting.lines.contract import reads_batches
from textspot_ray.spotting.lines.family import FAMILY
from textspot_ray.spotting.lines.recognizer import LineRecognizer, batches_of
from textspot_ray.spotting.lines.strips import cut_strips, padded_width
from textspot_ray.spotting.settings import SpotterSettings

_TEXTS = ["abc", "xyz", "0815", "k1k", "words", "of7", "one", "wide", "by.", "x"]


@given(st.lists(st.integers(1, 3000).map(padded_width), max_size=60))
def test_every_strip_is_in_one_batch_of_its_width(columns: list[int]) -> None:
    batches = batches_of(columns)
    assert sorted(i for batch in batches for i in batch) == list(range(len(columns)))
    for batch in batches:
        assert len({columns[i] for i in batch}) == 1
        assert len(batch) in (1, 2, 4)
        assert len(batch) == 1 or len(batch) * columns[batch[0]] <= 1024


def test_batches_are_as_large_as_they_may_be() -> None:
    assert batches_of([96] * 7 + [320] * 4 + [640] * 2) == [
        [7, 8],
        [9, 10],
        [11],
        [12],
        [0, 1, 2, 3],
        [4, 5],
        [6],
    ]
    assert batches_of([96, 128, 96], most=1) == [[1], [0], [2]]


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_change_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    bundle = write_lines_bundle(tmp_path / "bundle")
    image, quads = dark(900, 900), []
    for i, text in enumerate(_TEXTS):
        x0, y0, x1, y1 = draw_line(image, text, 20 + 7 * i, 20 + 80 * i, 40)
        quads.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64))
    recognizer = FAMILY.load_recognizer(SpotterSettings(str(bundle), threads=threads))
    assert isinstance(recognizer, LineRecognizer)
    strips = cut_strips(image, quads)
    columns = [strip.shape[2] for strip in strips.strips()]
    assert max(map(len, batches_of(columns))) == 4
    together = recognizer.read(strips).readings
    assert [reading.text for reading in together][:3] == _TEXTS[:3]
    alone = [recognizer.read(cut_strips(image, [quad])).readings[0] for quad in quads]
    assert list(together) == alone


def _exported(*, batch: int, steps_first: bool) -> ov.Model:
    strip = ops.parameter([batch, 3, 48, -1], np.float32, name="x")
    pooled = ops.avg_pool(strip, [48, 8], [0, 0], [0, 0], [48, 8], False)
    order = [2, 0, 1] if steps_first else [0, 2, 1]
    steps = ops.transpose(
        ops.squeeze(pooled, ops.constant(np.array([2]))), ops.constant(np.array(order))
    )
    return ov.Model([ops.result(ops.softmax(steps, 2))], [strip], "recognizer")


def test_a_recogniser_that_takes_one_strip_gets_one() -> None:
    assert reads_batches(_exported(batch=-1, steps_first=False))
    assert not reads_batches(_exported(batch=1, steps_first=False))
    assert not reads_batches(_exported(batch=-1, steps_first=True))
