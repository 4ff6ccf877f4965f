"""Bundles: found, verified before use, and refused with one line that names the file and cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.support.stub_bundle import write_stub_bundle
from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import BUNDLE_FILE, read_spec, write_spec
from textspot_ray.spotting.catalogue import load_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_stub_bundle(tmp_path / "stub")


def edit(folder: Path, **changes: object) -> None:
    path = folder / BUNDLE_FILE
    data = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        if value is None:
            data.pop(key)
        else:
            data[key] = value
    path.write_text(yaml.safe_dump(data))


def test_description_round_trips(folder: Path, tmp_path: Path) -> None:
    bundle = load_bundle(str(folder))
    write_spec(tmp_path, bundle.spec)
    assert read_spec(tmp_path / BUNDLE_FILE) == bundle.spec
    assert bundle.spec.alphabet == "abcdefghijklmnopqrstuvwxyz0123456789"
    bundle.verify("f32")


@pytest.mark.parametrize("name", ["detector.bin", "encoder.xml", "decoder.xml"])
def test_damaged_and_missing_files_are_named(folder: Path, name: str) -> None:
    bundle = load_bundle(str(folder))
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        bundle.verify("f32")
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"cannot read .*{name}: No such file"):
        bundle.verify("f32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphabet": None}, "key 'alphabet' is missing"),
        ({"alphabet": "aab"}, "distinct characters"),
        ({"precisions": {"f64": {}}}, "precisions: invalid .*; one of f32, bf16, int8"),
        ({"precisions": {}}, "precisions: expected `object` of length >= 1"),
        ({"resize": "squash"}, "resize: invalid .*; one of stretch, keep_aspect"),
        ({"schema": 9}, "not of bundle schema 1"),
        ({"detection_threshold": 1.5}, "detection_threshold: expected `float` < 1.0"),
        ({"default_precision": "int8"}, "default_precision int8 has no files"),
        ({"colour": "red"}, "unknown key colour"),
    ],
)
def test_wrong_descriptions_are_one_line(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_files_cannot_lie_outside_the_folder(folder: Path) -> None:
    text = (folder / BUNDLE_FILE).read_text().replace("file: detector.xml", "file: ../../x.xml")
    (folder / BUNDLE_FILE).write_text(text)
    with pytest.raises(BundleError, match=r"\.\./\.\./x\.xml leaves the bundle's folder"):
        load_bundle(str(folder))


def test_unknown_names_and_models_not_fetched_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model 'nonesuch'"):
        load_bundle("nonesuch")
    with pytest.raises(BundleError, match="textspot models fetch text-spotting-0005"):
        load_bundle("text-spotting-0005", cache=tmp_path)
    with pytest.raises(BundleError, match=r"it has no bundle\.yaml"):
        load_bundle(str(tmp_path))


def test_precisions(folder: Path) -> None:
    bundle = load_bundle(str(folder))
    assert bundle.resolve_precision(None) == "f32"
    assert bundle.resolve_precision("bf16") == "bf16"
    assert bundle.sha256s("bf16") == bundle.sha256s("f32")
    with pytest.raises(BundleError, match="has no int8 files; it has bf16, f32"):
        bundle.resolve_precision("int8")


@pytest.mark.parametrize(("flags", "wanted"), [(True, "int8"), (False, "f32")])
def test_auto_is_int8_where_the_cpu_has_its_dot_product(
    folder: Path, monkeypatch: pytest.MonkeyPatch, flags: bool, wanted: str
) -> None:
    spec = load_bundle(str(folder)).spec
    both = {"f32": spec.precisions["f32"], "int8": spec.precisions["f32"]}
    write_spec(folder, replace(spec, precisions=both, default_precision="auto"))
    monkeypatch.setattr("textspot_ray.spotting.bundle.has_int8_dot_product", lambda: flags)
    monkeypatch.setattr("textspot_ray.spotting.bundle.has_bf16", lambda: False)
    bundle = load_bundle(str(folder))
    assert bundle.resolve_precision(None) == wanted
    assert bundle.resolve_precision("f32") == "f32"
    write_spec(folder, replace(spec, default_precision="auto"))
    assert load_bundle(str(folder)).resolve_precision(None) == "f32"


def test_a_bundle_may_refuse_bf16(folder: Path) -> None:
    edit(folder, bf16=False)
    with pytest.raises(BundleError, match="is not for bf16, which moves its boxes; it has f32"):
        load_bundle(str(folder)).resolve_precision("bf16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": [[1280, 768]]}, "shapes need resize: keep_aspect"),
        (
            {"resize": "keep_aspect", "shapes": [[1280]]},
            "expected `array` of length 2",
        ),
        (
            {"resize": "keep_aspect", "shapes": [[1280, 7]]},
            r"\[0\]\[1\]: expected `int` >= 32",
        ),
        ({"resize": "keep_aspect", "shapes": 5}, "shapes: expected `array`"),
        ({"max_stretch": 0.5}, "max_stretch: expected `float` >= 1.0"),
        ({"max_rows": 0}, "max_rows: expected `int` >= 1"),
        ({"zoom_below": -1}, "zoom_below: expected `float` >= 0.0"),
        ({"zoom_below": "much"}, "zoom_below: expected `float`"),
        ({"bf16": 1}, "bf16: expected `bool`"),
        ({"enlargement": 0.5}, "enlargement: expected `float` >= 1.0"),
        ({"pyramid": "yes"}, "pyramid: expected `bool`"),
        (
            {"pyramid": True, "resize": "keep_aspect", "shapes": [[644, 640]]},
            "with a pyramid the sides of shapes must be multiples of 8",
        ),
    ],
)
def test_wrong_rules_for_shapes_are_one_line(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(str(folder))


def test_shapes_and_rules_survive_writing(folder: Path) -> None:
    spec = load_bundle(str(folder)).spec
    told = replace(
        spec,
        resize="keep_aspect",
        shapes=((1280, 768), (768, 1280)),
        enlargement=1.25,
        pyramid=True,
        max_rows=300,
        zoom_below=14.0,
        research_only=True,
    )
    write_spec(folder, told)
    assert load_bundle(str(folder)).spec == told
