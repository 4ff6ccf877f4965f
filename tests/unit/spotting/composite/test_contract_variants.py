from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

from tests.support.bundles import ALPHABET, stub_decoder, stub_detector, stub_encoder
from textspot_ray.errors import BundleError
from textspot_ray.spotting.catalogue import load_bundle
from textspot_ray.spotting.composite.contract import check_encoder, decoder_ports, detector_ports
from textspot_ray.spotting.runtime import Runtime, Share

SYMBOLS = len(ALPHABET) + 2


@pytest.mark.parametrize("signature", ["image", "im_data"])
@pytest.mark.parametrize("rows", [100, "dynamic"])
@pytest.mark.parametrize("suffix", ["", ".0"])
def test_every_kind_of_detector_is_understood(signature: str, rows: object, suffix: str) -> None:
    model = stub_detector(signature=signature, rows=rows, suffix=suffix)  # type: ignore[arg-type]
    ports = detector_ports(model, "detector.xml")
    assert (ports.width, ports.height) == (1280, 768)
    assert (ports.im_info is not None) == (signature == "im_data")
    assert [ports.labels, ports.boxes, ports.masks, ports.features] == [0, 1, 2, 3]


def test_the_order_of_inputs_and_outputs_does_not_matter() -> None:
    model = stub_detector(signature="im_data")
    turned = ov.Model(model.get_results()[::-1], model.get_parameters()[::-1], "turned")
    ports = detector_ports(turned, "detector.xml")
    assert (ports.im_info, ports.image) == (0, 1)
    assert [ports.labels, ports.boxes, ports.masks, ports.features] == [3, 2, 1, 0]


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
@pytest.mark.parametrize("kind", ["f32", "i32", "i64"])
@pytest.mark.parametrize("attention", [False, True])
def test_every_kind_of_decoder_is_understood(
    shape: tuple[int, ...], kind: str, attention: bool
) -> None:
    model = stub_decoder(len(ALPHABET), shape, kind, attention)
    ports = decoder_ports(model, "decoder.xml", SYMBOLS)
    assert ports.symbol_shape == shape
    assert np.dtype(ports.symbol_type).kind == kind[0]
    assert (ports.logits, ports.next_hidden) == (0, 1)


def _refused(check: Callable[[], object], *parts: str) -> None:
    with pytest.raises(BundleError) as caught:
        check()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_models_of_other_parts_are_refused_with_file_and_cause() -> None:
    detector, encoder = stub_detector(), stub_encoder()
    decoder = stub_decoder(len(ALPHABET))
    _refused(lambda: detector_ports(encoder, "a.xml"), "a.xml", "[1, 64, 28, 28]")
    _refused(lambda: detector_ports(decoder, "a.xml"), "a.xml", "image")
    _refused(lambda: check_encoder(decoder, "b.xml"), "b.xml", "encoder_outputs")
    _refused(lambda: check_encoder(detector, "b.xml"), "b.xml", "image")
    _refused(lambda: decoder_ports(encoder, "c.xml", SYMBOLS), "c.xml")
    _refused(lambda: decoder_ports(detector, "c.xml", SYMBOLS), "c.xml")


def test_another_size_of_alphabet_is_refused() -> None:
    model = stub_decoder(len(ALPHABET))
    _refused(lambda: decoder_ports(model, "c.xml", 12), "c.xml", "38", "12")


def test_an_input_without_fixed_size_is_refused() -> None:
    image = ops.parameter([1, 3, -1, -1], ov.Type.f32)
    model = ov.Model([ops.result(ops.relu(image))], [image], "dynamic")
    _refused(lambda: detector_ports(model, "a.xml"), "a.xml", "fixed")


def _runtime(folder: Path) -> Runtime:
    return Runtime(load_bundle(str(folder)), "f32", Share(1, 1))


@pytest.mark.parametrize("damage", ["cut xml", "cut bin", "no model", "foreign bin"])
def test_unreadable_files_are_one_line_with_the_file(
    stub: Callable[..., Path], tmp_path: Path, damage: str
) -> None:
    folder = Path(shutil.copytree(stub(), tmp_path / "bundle"))
    xml, weights = folder / "decoder.xml", folder / "decoder.bin"
    if damage == "cut xml":
        xml.write_bytes(xml.read_bytes()[:1000])
    elif damage == "cut bin":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "no model":
        xml.write_text("<html>not found</html>")
    else:
        weights.write_bytes(b"1")
    _refused(lambda: _runtime(folder).read("decoder"), "decoder.xml")
