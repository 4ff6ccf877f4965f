"""The reader: published decode rule, surgery that changes nothing, any number of threads alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from jobs.bench.full_size.reader import build_decoder, build_encoder
from tests.support.stub_bundle import draw, write_stub_bundle
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import decoder_ports
from textspot_ray.spotting.composite.decoder_graph import split_decoder
from textspot_ray.spotting.composite.recognizer import Recognizer
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import SpotterSettings, resolve, result_fingerprint
from textspot_ray.spotting.spotter import TextSpotter

RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stub_bundle(tmp_path_factory.mktemp("models") / "stub")


def features(*words: list[int]) -> np.ndarray:
    """Stub features that spell these symbols."""
    out = np.zeros((len(words), 64, 28, 28), np.float32)
    for i, symbols in enumerate(words):
        for step, symbol in enumerate(symbols):
            out[i, step] = symbol
    return out


def test_confidence_is_the_product_of_steps_with_the_end(stub: Path) -> None:
    recognizer = Recognizer(SpotterSettings(str(stub)))
    (reading,) = recognizer.read(features([2, 3])).readings
    assert reading.text == "ab"
    # the stub's logits are -8 d^2: each step's softmax has neighbours at -8
    step = 1 / (1 + 2 * np.exp(-8) + 2 * np.exp(-32))
    end = 1 / (1 + 2 * np.exp(-8) + np.exp(-32))
    assert reading.char_confidences == pytest.approx((step, step), abs=1e-6)
    assert reading.confidence == pytest.approx(step * step * end, abs=1e-6)


def test_step_limit_ends_a_word_without_an_end_factor(stub: Path) -> None:
    recognizer = Recognizer(SpotterSettings(str(stub), max_steps=3))
    (reading,) = recognizer.read(features([2] * 30)).readings
    assert reading.text == "aaa"
    assert reading.confidence == pytest.approx(np.prod(reading.char_confidences))


def test_empty_words_and_no_words(stub: Path) -> None:
    recognizer = Recognizer(SpotterSettings(str(stub)))
    assert recognizer.read(features()).readings == ()
    (reading,) = recognizer.read(features([])).readings
    assert (reading.text, reading.char_confidences) == ("", ())
    with pytest.raises(ValueError, match="N x 64 x 28 x 28"):
        recognizer.read(np.zeros((1, 3, 28, 28), np.float32))


def test_read_only_features_are_fine(stub: Path) -> None:
    given = features([5, 6])
    given.flags.writeable = False
    assert Recognizer(SpotterSettings(str(stub))).read(given).readings[0].text == "de"


def test_threads_and_batches_do_not_change_an_answer() -> None:
    words = np.abs(RNG.standard_normal((5, 64, 28, 28))).astype(np.float32)
    answers = []
    with full_bundle() as folder:
        for threads in (1, 2):
            recognizer = Recognizer(SpotterSettings(folder, threads=threads, max_steps=6))
            answers.append(recognizer.read(words).readings)
            answers.append(tuple(recognizer.read(words[i : i + 1]).readings[0] for i in range(5)))
    assert len(answers[0][0].text) == 6
    assert all(answer == answers[0] for answer in answers[1:])


def test_image_answers_do_not_depend_on_threads(stub: Path) -> None:
    picture = draw({i: f"word{i}" for i in range(0, 96, 5)})
    answers = [TextSpotter.load(str(stub), threads=n)(picture) for n in (1, 2, 3)]
    assert len(answers[0]) == 20
    assert answers[0] == answers[1] == answers[2]


class full_bundle:
    """The published reader with seeded weights in a temporary bundle (stub detector)."""

    def __enter__(self) -> str:
        import tempfile

        from textspot_ray.spotting.bundle import describe_files, write_spec

        self._tmp = tempfile.TemporaryDirectory()
        folder = write_stub_bundle(Path(self._tmp.name) / "full")
        ov.save_model(build_encoder().model, str(folder / "encoder.xml"), False)
        ov.save_model(build_decoder().model, str(folder / "decoder.xml"), False)
        spec = load_bundle(str(folder)).spec
        parts = ("detector", "encoder", "decoder")
        files = describe_files(folder, {p: (f"{p}.xml", f"{p}.bin") for p in parts})
        write_spec(folder, replace(spec, precisions={"f32": files}))
        return str(folder)

    def __exit__(self, *args: object) -> None:
        self._tmp.cleanup()


def test_cut_decoder_gives_the_same_logits() -> None:
    encoder, decoder = build_encoder().model, build_decoder(ends=True).model
    ports = decoder_ports(decoder, "decoder", 38)
    split = split_decoder(encoder, decoder, ports)
    assert split.invariants == split.exponentials == 1
    assert split.encoded_used, "the attention's sum still needs the vectors themselves"
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    whole_encoder, whole, cut_encoder, cut = (
        core.compile_model(m, "CPU", options) for m in (encoder, decoder, split.encoder, split.step)
    )
    x = np.abs(RNG.standard_normal((1, 64, 28, 28))).astype(np.float32)
    encoded = whole_encoder([x])[0].reshape(1, 256, 784).transpose(0, 2, 1).copy()
    moved = cut_encoder([x])
    assert np.array_equal(moved[0], encoded)
    state = cut_state = np.zeros((1, 1, 256), np.float32)
    symbol = np.zeros(1, np.float32)
    for _ in range(5):
        a = whole([encoded, symbol, state])
        b = cut([moved[0], symbol, cut_state, moved[1]])
        assert np.abs(a[0] - b[0]).max() < 1e-4 * max(1.0, float(np.abs(a[0]).max()))
        state, cut_state = a[1], b[1]
        symbol = np.array([a[0].argmax()], np.float32)


def test_a_bf16_step_is_handed_what_it_computes_with() -> None:
    """The hand-over is in bf16, and the words' probabilities stay as near as bf16 has them."""
    encoder, decoder = build_encoder().model, build_decoder(ends=True).model
    ports = decoder_ports(decoder, "decoder", 38)
    core = ov.Core()
    x = np.abs(RNG.standard_normal((1, 64, 28, 28))).astype(np.float32)
    logits = {}
    for hint, narrow in (("f32", False), ("bf16", False), ("bf16", True)):
        split = split_decoder(encoder, decoder, ports, narrow=narrow)
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 2}
        first, step = (
            core.compile_model(m, "CPU", options).create_infer_request()
            for m in (split.encoder, split.step)
        )
        wide = [i for i, port in enumerate(split.step.inputs) if 784 in port.shape]
        narrowed = [split.step.inputs[i].get_element_type() == ov.Type.bf16 for i in wide]
        assert narrowed == [narrow] * 2
        for i, port in enumerate(split.step.inputs):
            if i in wide:
                invariant = port.any_name.startswith("invariant")
                step.set_input_tensor(i, first.get_output_tensor(int(invariant)))
            else:
                step.get_input_tensor(i).data[...] = 0
        first.infer({0: x})
        logits[hint, narrow] = step.infer()[0].copy()
    scale = float(np.abs(logits["f32", False]).max())
    assert np.abs(logits["bf16", True] - logits["f32", False]).max() < 0.05 * scale
    assert np.abs(logits["bf16", True] - logits["bf16", False]).max() < 0.02 * scale


def test_decoder_without_an_invariant_part_is_left_alone(stub: Path) -> None:
    resolved = resolve(SpotterSettings(str(stub)))
    runtime = Runtime(resolved.bundle, "f32", Share())
    encoder, decoder = runtime.read("encoder"), runtime.read("decoder")
    split = split_decoder(encoder, decoder, decoder_ports(decoder, "x", 38))
    assert split.invariants == split.exponentials == 0
    assert "no step-independent part" in split.note
    assert len(decoder.inputs) == 3, "the model given is not changed"


def test_fingerprint_holds_what_changes_results_and_nothing_else(stub: Path) -> None:
    base = result_fingerprint(resolve(SpotterSettings(str(stub)), verify=False))
    shared = SpotterSettings(str(stub), threads=8, streams=2)
    assert base == result_fingerprint(resolve(shared, verify=False))
    for change in (
        {"precision": "bf16"},
        {"detection_threshold": 0.7},
        {"max_steps": 5},
    ):
        other = result_fingerprint(resolve(SpotterSettings(str(stub), **change), verify=False))  # type: ignore[arg-type]
        assert {k for k in base if base[k] != other[k]} == set(change)


def test_threshold_inside_the_graph_is_pointed_out(stub: Path, tmp_path: Path) -> None:
    from textspot_ray.errors import ConfigError
    from textspot_ray.spotting.bundle import write_spec

    folder = write_stub_bundle(tmp_path / "floor")
    spec = load_bundle(str(folder)).spec
    write_spec(folder, replace(spec, graph_threshold=0.5))
    with pytest.raises(ConfigError, match=r"0\.3 does nothing: stub has 0\.5 inside its graph"):
        resolve(SpotterSettings(str(folder), detection_threshold=0.3))
    assert resolve(SpotterSettings(str(folder), detection_threshold=0.6)).detection_threshold == 0.6
