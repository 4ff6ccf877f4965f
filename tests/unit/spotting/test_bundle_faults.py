"""What is wrong with a bundle is said in one line that names the file and the key."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from textspot_ray.errors import BundleError
from textspot_ray.spotting.bundle import BUNDLE_FILE, read_spec, write_spec
from textspot_ray.spotting.catalogue import load_bundle


@pytest.fixture
def folder(stub: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stub(), tmp_path / "bundle"))


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / BUNDLE_FILE
    data = yaml.safe_load(path.read_text())
    data.update(changes)
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))


def _one_line(caught: pytest.ExceptionInfo[BundleError], *parts: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_written_description_reads_back_the_same(folder: Path, tmp_path: Path) -> None:
    spec = read_spec(folder / BUNDLE_FILE)
    again = tmp_path / "again"
    again.mkdir()
    write_spec(again, spec)
    assert read_spec(again / BUNDLE_FILE) == spec
    assert spec.detection_threshold == 0.5


def test_an_untouched_bundle_verifies(folder: Path) -> None:
    bundle = load_bundle(str(folder))
    bundle.verify("f32")
    assert len(bundle.sha256s("f32")) == 6


@pytest.mark.parametrize("name", ["detector.bin", "encoder.xml", "decoder.bin"])
def test_a_changed_or_cut_file_is_named_before_it_is_loaded(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder)).verify("f32")
    _one_line(caught, str(folder / name), "sha256")


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / "encoder.bin").unlink()
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder)).verify("f32")
    _one_line(caught, "encoder.bin")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"alphabet": None}, "alphabet"),
        ({"alphabet": "aab"}, "alphabet"),
        ({"threshold": 0.5}, "threshold"),
        ({"detection_threshold": 1.5}, "detection_threshold"),
        ({"detection_threshold": "high"}, "detection_threshold"),
        ({"resize": "crop"}, "resize"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": "many"}, "max_steps"),
        ({"default_precision": "int8"}, "int8"),
        ({"precisions": {}}, "precisions"),
        ({"precisions": {"f64": {}}}, "precisions"),
        ({"precisions": {"f32": {"detector": None}}}, "precisions"),
        ({"schema": 99}, "schema"),
    ],
)
def test_a_wrong_description_is_one_line_with_the_key(
    folder: Path, changes: dict[str, Any], word: str
) -> None:
    _edit(folder, **changes)
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder))
    _one_line(caught, str(folder / BUNDLE_FILE), word)


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: [", "\x00\x01", ""])
def test_what_is_no_description_is_refused(folder: Path, text: str) -> None:
    (folder / BUNDLE_FILE).write_text(text)
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder))
    _one_line(caught, BUNDLE_FILE)


@pytest.mark.parametrize("file", ["../detector.xml", "/etc/passwd", "a/../../b.xml"])
def test_files_cannot_lie_outside_the_folder(folder: Path, file: str) -> None:
    data = yaml.safe_load((folder / BUNDLE_FILE).read_text())
    data["precisions"]["f32"]["detector"]["xml"]["file"] = file
    (folder / BUNDLE_FILE).write_text(yaml.safe_dump(data))
    with pytest.raises(BundleError) as caught:
        load_bundle(str(folder))
    _one_line(caught, file)


def test_unknown_names_and_unfetched_models_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle("text-spotting-0003", tmp_path)
    _one_line(caught, "textspot models fetch text-spotting-0003")
    with pytest.raises(BundleError) as caught:
        load_bundle("text-spotting-9")
    _one_line(caught, "text-spotting-9")
    with pytest.raises(BundleError) as caught:
        load_bundle(str(tmp_path))
    _one_line(caught, str(tmp_path))


def test_a_precision_without_files_is_refused_and_bf16_runs_on_f32_files(folder: Path) -> None:
    bundle = load_bundle(str(folder))
    assert bundle.resolve_precision(None) == "f32"
    assert bundle.model_files(bundle.resolve_precision("bf16")) is bundle.spec.precisions["f32"]
    with pytest.raises(BundleError) as caught:
        bundle.resolve_precision("int8")
    _one_line(caught, "int8", "f32")
