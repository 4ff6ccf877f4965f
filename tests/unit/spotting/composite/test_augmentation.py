"""Test-time augmentation: an unsure word is read from several cuts, by the mean of their steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import describe_files, write_spec
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.family import family_of
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint

A, B = 2, 3  # symbols of the stub; a value between two of them leaves it unsure
PARTS = ("detector", "encoder", "decoder", "augmentation")


def shifted(*by: float, shape: tuple[int, ...] = (64, 28, 28)) -> ov.Model:
    """A graph that adds to the features, once for each of the numbers."""
    features = ops.parameter([1, *shape], np.float32, name="features")
    each = ops.constant(np.array(by, np.float32).reshape(-1, *(1 for _ in shape)))
    return ov.Model([ops.result(ops.add(features, each))], [features], "augmentation")


def bundle(folder: Path, graph: ov.Model, between: tuple[float, float]) -> str:
    """The stub with an augmentation."""
    write_stub_bundle(folder)
    ov.save_model(graph, str(folder / "augmentation.xml"), compress_to_fp16=False)
    files = describe_files(folder, {p: (f"{p}.xml", f"{p}.bin") for p in PARTS})
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, precisions={"f32": files}, augment_between=between))
    return str(folder)


def word(*values: float) -> np.ndarray:
    """Features whose steps have these values."""
    row = np.zeros((1, 64, 28, 28), np.float32)
    row[0, : len(values)] = np.array(values).reshape(-1, 1, 1)
    return row


def softmax(value: float) -> np.ndarray:
    """The stub's step: logits are -8 times the squared distance to each symbol."""
    logits = -8 * (np.arange(38) - value) ** 2
    return np.exp(logits) / np.exp(logits).sum()


def test_an_unsure_word_is_read_by_the_mean_of_all_cuts(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", shifted(0.25, 0.25), (0.05, 0.9))
    plain = Recognizer(SpotterSettings(str(write_stub_bundle(tmp_path / "plain"))))
    assert plain.read(word(2.45)).readings[0].text == "a"
    (reading,) = Recognizer(SpotterSettings(folder)).read(word(2.45)).readings
    assert reading.text == "b"
    symbol = (softmax(2.45) + 2 * softmax(2.7)) / 3
    end = softmax(1.0)[1]  # the stub takes what is below 1 for the end
    assert reading.char_confidences == pytest.approx((symbol[B],), abs=1e-6)
    assert reading.confidence == pytest.approx(symbol[B] * end, abs=1e-6)


def test_sure_words_and_hopeless_ones_are_read_once(tmp_path: Path) -> None:
    recognizer = Recognizer(SpotterSettings(bundle(tmp_path / "b", shifted(1.0, 1.0), (0.05, 0.9))))
    (sure,) = recognizer.read(word(2.0)).readings
    assert (sure.text, sure.confidence > 0.9) == ("a", True)
    (hopeless,) = recognizer.read(word(*[2.5] * 8)).readings  # half a chance a step
    assert hopeless.confidence < 0.05
    assert len(hopeless.text) == 8
    assert hopeless.char_confidences == pytest.approx([softmax(2.5)[A]] * 8, abs=1e-6)


def test_neither_order_nor_threads_change_an_answer(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", shifted(0.25, -0.1), (0.05, 0.9))
    words = np.concatenate([word(2.4), word(2.0, 4.0), word(3.6, 2.0), word(2.45, 2.5)] * 3)
    together = Recognizer(SpotterSettings(folder, threads=3)).read(words).readings
    single = Recognizer(SpotterSettings(folder))
    assert together == tuple(single.read(words[i : i + 1]).readings[0] for i in range(12))


def test_it_is_part_of_what_a_table_has_in_common(tmp_path: Path) -> None:
    prints = [
        result_fingerprint(resolve(SpotterSettings(folder)))
        for folder in (
            str(write_stub_bundle(tmp_path / "plain")),
            bundle(tmp_path / "b", shifted(0.1), (0.05, 0.9)),
            bundle(tmp_path / "c", shifted(0.1), (0.05, 0.8)),
        )
    ]
    assert [p.get("augment_between") for p in prints] == [None, "0.05 0.9", "0.05 0.8"]
    assert "sha256 augmentation.xml" in prints[1]


def test_another_graph_is_refused(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", shifted(0.1, shape=(3, 28, 28)), (0.05, 0.9))
    wanted = (
        r"augmentation\.xml is not an augmentation: .*wanted \[1, 64, 28, 28\] to \[N, 64, 28, 28\]"
    )
    with pytest.raises(BundleError, match=wanted):
        Recognizer(SpotterSettings(folder))
    resolved = resolve(SpotterSettings(folder))
    with pytest.raises(BundleError, match=wanted):
        family_of(resolved.bundle.spec).check_graphs(resolved)
