"""Words that go through encoder and decoder side by side, and columns instead of a map."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.errors import BundleError
from textspot_ray.records import Reading
from textspot_ray.spotting.bundle import built_in_folder, read_spec, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import decoder_ports
from textspot_ray.spotting.composite.decoder_graph import SplitDecoder, split_decoder
from textspot_ray.spotting.composite.recognizer import Recognizer, check_rows
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import PageDetector

WORDS = ("LIBRARY", "l1brary", "Exit", "OF", "1997", "bi1lboard", "Station", "x", "internationally")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Of words that are partly hard to read, as the embedded detector gives them; 20 rows."""
    picture = np.full((720, 1280, 3), 150, np.uint8)
    for i, word in enumerate(WORDS):
        place = (60 + 620 * (i % 2), 80 + 120 * (i // 2))
        cv2.putText(picture, word, place, cv2.FONT_HERSHEY_DUPLEX, 1.2, (50, 50, 50), 2)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.6)
    done, data = cv2.imencode(".png", picture)
    assert done
    _, rows = PageDetector(SpotterSettings()).detect(data.tobytes())
    assert len(rows) >= 6
    rows = np.resize(rows, (20, *rows.shape[1:]))
    # some of them unsure, so that they are read from several cuts and weighed
    rows[9:] += np.random.default_rng(0).normal(0, 18, rows[9:].shape).astype(np.float32)
    return rows.clip(0, None)


def with_batch(folder: Path, batch: int) -> str:
    """The embedded bundle that reads so many words at a time."""
    shutil.copytree(built_in_folder(), folder)
    write_spec(folder, replace(read_spec(folder / "bundle.yaml"), read_batch=batch))
    return str(folder)


def read(rows: np.ndarray, model: str, threads: int = 1) -> Sequence[Reading]:
    return Recognizer(SpotterSettings(model, threads=threads)).read(rows).readings


def test_the_words_are_those_of_one_at_a_time(tmp_path: Path, features: np.ndarray) -> None:
    single = read(features, with_batch(tmp_path / "one", 1))
    assert {"library", "exit", "1997"} <= {r.text for r in single}
    assert any(r.confidence < 0.8 for r in single)
    for batch in (2, 8):
        many = read(features, with_batch(tmp_path / f"b{batch}", batch))
        assert [r.text for r in many] == [r.text for r in single]
        np.testing.assert_allclose(
            [r.confidence for r in many], [r.confidence for r in single], atol=1e-5
        )
        assert [len(r.char_confidences) for r in many] == [len(r.text) for r in single]


def test_threads_do_not_change_an_answer(features: np.ndarray) -> None:
    assert read(features, "embedded", threads=3) == read(features, "embedded")


def test_a_broken_row_harms_no_neighbour(features: np.ndarray) -> None:
    recognizer = Recognizer(SpotterSettings(precision="f32"))
    whole = recognizer.read(features[:6]).readings
    broken = features[:6].copy()
    broken[2] = np.nan
    readings = recognizer.read(broken).readings
    assert readings[2] == Reading("", 0.0, ())
    assert [r.text for i, r in enumerate(readings) if i != 2] == [
        r.text for i, r in enumerate(whole) if i != 2
    ]


def test_graphs_for_one_word_are_refused(tmp_path: Path) -> None:
    folder = write_stub_bundle(tmp_path / "b", symbol_shape=(1, 1))
    write_spec(folder, replace(read_spec(folder / "bundle.yaml"), read_batch=4))
    with pytest.raises(BundleError, match=r"decoder\.xml reads one word at a time.*read_batch"):
        Recognizer(SpotterSettings(str(folder)))


def handed_over(batch: int, order: tuple[int, int, int]) -> SplitDecoder:
    """A reader whose second output has the rows of its input in another place."""
    words = ov.PartialShape([ov.Dimension(1, batch), 784, 256])
    shown = ops.parameter(words, ov.Type.f32)
    moved = ops.transpose(shown, ops.constant(np.array(order, np.int64)))
    encoder = ov.Model([ops.result(shown.output(0)), ops.result(moved)], [shown], "encoder")
    return SplitDecoder(encoder, None, True, 1, 0, "")


def test_what_is_handed_over_has_a_row_a_word() -> None:
    check_rows(handed_over(4, (0, 2, 1)), 4, "decoder.xml")
    with pytest.raises(BundleError, match=r"decoder\.xml reads one word at a time.*read_batch: 4"):
        check_rows(handed_over(4, (1, 0, 2)), 4, "decoder.xml")


def test_it_is_part_of_what_a_table_has_in_common(tmp_path: Path) -> None:
    prints = [
        result_fingerprint(resolve(SpotterSettings(with_batch(tmp_path / str(n), n))))
        for n in (1, 4)
    ]
    assert [p.get("read_batch") for p in prints] == [None, "4"]


def test_the_decoder_is_given_the_columns_that_it_reads(features: np.ndarray) -> None:
    files = load_bundle("embedded").model_files("f32")
    core = ov.Core()
    encoder, decoder = (
        core.read_model(str(built_in_folder() / files[part].graph.file))
        for part in ("encoder", "decoder")
    )
    split = split_decoder(encoder, decoder, decoder_ports(decoder, "decoder.xml", 38))
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    row = {0: features[:1]}
    columns = core.compile_model(split.encoder, "CPU", exact)(row)[0]
    whole = core.compile_model(encoder, "CPU", exact)(row)[0]
    assert columns.shape == (1, 56, 256)
    sequence = whole.reshape(1, 256, 784).transpose(0, 2, 1)
    np.testing.assert_array_equal(columns, sequence[:, :56])
    assert np.ptp(sequence.reshape(14, 56, 256), axis=0).max() == 0  # the rest repeats them
